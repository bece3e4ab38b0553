//! What happens to a real pair of containers when something breaks, in an operator's words.
//!
//! In each scenario a writer counts acknowledged rows and a poller counts writable nodes; each ends with a whole pair, no
//! acknowledged row lost and never two writable nodes. They run on a test installation (`understudy-test`), one after the
//! other, as root: `make scenarios`. How to add one: `support/mod.rs` shows the shape.
//!
//! This table is the register: what is not in it does not run (`support/table.rs`). The numbers are those of the list of
//! faults that such tools are known to be tested with or to have failed at:
//!
//! Must not fail over: 1 the app is down; 2 a probe lost or late; 3 a server restarted in its place; 4 the checker's own
//! network cut; 5 frozen for less than the threshold; 6 the checker refused; 7 the standby down, behind or not replaying;
//! 8 both down; 9 maintenance; 10 clocks jumped, state stale or corrupt; 11 checkers that overlap or are killed.
//! Must fail over, or refuse: 12 the server killed; 13 its container or data gone; 14 its disk full; 15 frozen, then back;
//! 16 one-way cuts; 17 a fence that fails; 18 a client that stays through the fence; 19 lag; 20 a half-made standby; 21 the
//! old primary started; 22 stuck or broken off in the middle; 23 again and again; 24 a standby promoted by hand; 25 a
//! planned switchover; 26 rewind impossible; 27 slots that grow.
//!
//! Not played here: a wall clock that jumps (10), which would be the whole machine's; decisions go by the time since boot,
//! and that is moved (`boot_clock_jumped`). Slow names (2): the checker resolves none. Delays (2) are made by a door in the node's
//! network, as not every kernel has `sch_netem`.
//!
//! Slow ones run with `make scenarios-slow`.
//!
//! | scenario | faults | when | expected |
//! | --- | --- | --- | --- |
//! | `app_killed` | 1 | usual | R340 restarts the app; the primary stays |
//! | `app_network_cut` | 1 | usual | the primary stays |
//! | `packets_lost_between_checker_and_nodes` | 2, 16 | usual | R190 alerts; the primary stays |
//! | `answers_late_between_checker_and_nodes` | 2 | usual | R190 alerts; the primary stays |
//! | `backend_killed_and_recovered_in_place` | 3 | usual | the primary stays, on its timeline |
//! | `checker_cut_off_from_the_primary` | 4, 16 | usual | R190 alerts, in either direction; clients are served; the primary stays |
//! | `primary_frozen_briefly` | 2, 5 | usual | R220 waits; the primary stays |
//! | `postmaster_stopped_while_its_sessions_go_on` | 2, 5 | usual | R220 waits, since the app is served; the primary stays |
//! | `wrong_password_in_the_checker` | 6 | usual | R180 alerts; the primary stays |
//! | `connection_slots_exhausted` | 6 | usual | the checker gets in all the same; refused, R180 alerts; the primary stays |
//! | `standby_killed_and_returned` | 7 | usual | R310 goes on without it, R330 takes it back; the primary stays |
//! | `replay_paused_on_the_standby` | 7, 22 | usual | R365 alerts; a dead primary is started in place (R110) |
//! | `both_stopped` | 8 | usual | R100 starts the primary; it stays |
//! | `both_stopped_and_the_standby_comes_first` | 8 | usual | R80: the standby has every acknowledged row and takes over |
//! | `both_stopped_and_the_primary_comes_first` | 8 | usual | R320 starts the standby; the primary stays |
//! | `paused_for_maintenance` | 9 | usual | R50 does nothing for a dead primary; R80 after the pause |
//! | `memory_from_before_a_reboot_or_corrupt` | 10 | usual | counts for nothing; the primary stays |
//! | `boot_clock_jumped` | 10 | usual | ahead: nothing was silent for a day; back: R230 all the same |
//! | `record_corrupt` | 10, 17 | usual | nothing is done, no node starts; repaired, R80 |
//! | `record_missing` | 10 | slow | nothing is done, no node starts; put back, R80 |
//! | `record_from_before_the_last_failover` | 10, 21 | slow | no node starts by it; put right, the primary stays |
//! | `checker_killed_in_mid_failover` | 11, 22 | usual | R80 three times, each brought to its end by the next checker |
//! | `checker_killed_after_each_step` | 11, 22 | slow | R80 seven times, each brought to its end by the next checker |
//! | `checkers_overlap` | 11 | usual | R80 once |
//! | `cron_heals` | 11, 12 | usual | R80, by the checker that cron calls |
//! | `postmaster_killed` | 12, 26 | usual | R80 |
//! | `postmaster_killed_in_mid_bulk_write` | 12, 26 | usual | R80 |
//! | `primary_stopped` | 12 | usual | R80 |
//! | `primary_container_removed` | 13 | usual | R80 |
//! | `data_directory_destroyed` | 13, 26 | usual | R80; the old primary is copied afresh |
//! | `data_directory_corrupt` | 13 | usual | R80; the old primary does not start on it (R325), and is copied afresh once a person has moved it away |
//! | `data_directory_removed_under_the_running_server` | 13 | slow | R180 alerts while it answers; R80 when it ends |
//! | `wal_disk_full` | 14, 26 | usual | R80; the old primary is copied afresh |
//! | `primary_frozen_and_resumed` | 15 | usual | R230 |
//! | `primary_resumed_while_it_is_being_replaced` | 15 | usual | R230 |
//! | `primary_processes_frozen` | 15 | usual | R230 |
//! | `standby_cut_off_from_the_primary` | 7, 16 | usual | R310 goes on without it; the primary stays |
//! | `primary_cut_off_from_everybody` | 16 | usual | R210 |
//! | `fence_refused` | 17 | usual | nothing is promoted, also while the old primary serves again; then R230 |
//! | `fence_hangs` | 17 | usual | nothing is promoted until it is done; then R230 |
//! | `fence_only_pretended` | 17 | slow | nothing is promoted; then R230 |
//! | `engine_silent` | 17 | usual | R10 does nothing for a dead primary; then R80 |
//! | `client_holds_its_connection_through_the_fence` | 15, 18 | usual | R230; nothing is acknowledged to it after the fence |
//! | `failover_refused_when_standby_ineligible` | 19 | usual | R130 refuses; the primary stays |
//! | `loss_accepted_by_a_person` | 19 | usual | R130 refuses, a person orders it, and is told what is lost |
//! | `primary_killed_while_standby_ineligible_comes_back_in_place` | 19, 20 | usual | R110 starts it in place; it stays |
//! | `standby_killed_in_mid_copy` | 20 | usual | R100 starts the primary; the half copy is made anew |
//! | `old_primary_started_by_hand` | 21 | usual | R80; it does not take writes |
//! | `docker_engine_restarted` | 8, 21 | slow | R100 starts the recorded primary; it stays |
//! | `promotion_hangs` | 22 | usual | R80, finished when it goes on |
//! | `replay_stands_still` | 22 | slow | rolled back; the primary is started in place |
//! | `there_and_back_again` | 23 | usual | R80 three times |
//! | `standby_promoted_by_hand` | 24 | usual | two take writes, by a person's hand; R30 fences the one; the primary stays |
//! | `switchover_under_load` | 25 | usual | as ordered, without a rule |
//! | `switchover_that_would_take_too_long_is_refused` | 19, 25 | usual | refused before anything is stopped; the primary stays |
//! | `drill_holds_its_limits_and_leaves_nothing_behind` | 12, 23, 25 | usual | R80, then a switchover back; nothing of the drill is left |
//! | `drill_refuses_a_pair_that_could_not_stand_it` | 9 | slow | refused without a person's yes, while paused and while nobody watches |
//! | `rejoin_from_a_copy_under_load` | 26 | usual | the standby is copied afresh, the primary's writers go on |
//! | `rejoin_tells_what_only_the_old_primary_has` | 19, 26 | slow | what was given up is told before the old primary is copied afresh |
//! | `rewind_impossible` | 26 | usual | R80; the old primary is copied afresh |
//! | `slot_growth_capped` | 27 | usual | the primary's disk stays free; R335 has the standby copied afresh |
// In a test a panic is the report, in its helpers too, and the numbers are what a person runs them for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

// The story's words: the installation, accidents, writer, poller, history.
mod support;

// The primary's container ends: killed, stopped, removed. Or its data do, or its disk is full.
mod primary_lost;

// The primary is there and does not answer: frozen by the runtime, by signals, for a moment.
mod primary_frozen;

// Packets are lost or late, and cut in one direction.
mod network;

// The app dies or loses its network: the primary stays where it is.
mod app;

// The standby goes and comes back, and what cannot be done without it.
mod standby;

// Somebody starts the old primary by hand while its successor takes over, or promotes the standby; and how it comes back.
mod old_primary;

// The checker is killed in the middle, or cannot log in; cron runs it.
mod checker;

// The record and what the checker remembers: corrupt, missing, stale; and its clocks.
mod record;

// The container runtime refuses, hangs, lies, is silent, is restarted.
mod engine;

// Promotions that are stuck.
mod promotion;

// What a person orders: a change of primary in good order, a failover for practice, a node that is to come back.
mod drill;
mod planned;
mod rejoin;

// Both nodes at once, several failovers in a row, a pause, and a planned one.
mod whole_pair;

// How long it takes from the accident to the next acknowledged write, step by step.
mod latency;

// Some hundred failovers in one go, by chance.
mod soak;
