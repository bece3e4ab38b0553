//! What happens to a real pair of containers when something breaks, in an operator's words.
//!
//! In each scenario a writer counts acknowledged rows and a poller counts writable nodes; each ends with a whole pair, no
//! acknowledged row lost and never two writable nodes. They run on a test installation (`understudy-test`), one after the
//! other, as root: `make scenarios`. How to add one: `support/mod.rs` shows the shape.
// In a test a panic is the report, in its helpers too, and the numbers are what a person runs them for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

// The story's words: the installation, accidents, writer, poller, history.
mod support;

// The primary's container ends: killed, stopped, removed.
mod primary_lost;

// The primary is there and does not answer: frozen by the runtime, by signals, for a moment.
mod primary_frozen;

// The app dies or loses its network: the primary stays where it is.
mod app;

// The standby goes and comes back, and what cannot be done without it.
mod standby;

// Somebody starts the old primary by hand while its successor takes over, or promotes the standby.
mod old_primary;

// The checker is killed in the middle, or cannot log in; cron runs it.
mod checker;

// Both nodes at once, several failovers in a row, and a planned one.
mod whole_pair;

// How long it takes from the accident to the next acknowledged write, step by step.
mod latency;
