//! The program `failover-check`: observe, decide, act.
//!
//! ```text
//!   record ──┐
//!   runtime ─┤            ┌────────────┐            ┌──────────┐
//!   SQL ─────┼─ observe ─►│ Observation│─ decide ──►│ Decision │─ act ─► fence, promote, record, heal
//!   app ─────┤            └────────────┘  (pure)    └──────────┘           │
//!   memory ──┘                                                            └─► events.jsonl
//! ```
//!
//! | where | what |
//! | --- | --- |
//! | [`observation`], [`observe`] | what can be seen, and looking at it |
//! | [`decision`], [`decide`], [`gate`] | what can be decided, the rules (a new rule goes here), and what stands behind each refusal |
//! | [`act`] | the steps of a failover and of healing |
//! | [`pass`], [`memory`], [`lock`], [`clock`] | one pass, what it leaves for the next, and who may make one |
//! | [`runtime`], [`docker`], `processes`, [`servers`], [`http_app`], [`parts`] | the traits behind which the containers, the servers and the app lie, and what stands there today |
//! | [`command`], [`report`], [`words`], [`journal`] | the command line and what a person reads |
//! | [`outward`], [`status_file`], [`metrics`], [`counters`], [`notify`] | what is told to those who look on, after acting and never in its way |
//! | [`drill`] | a failover rehearsed on a running system |
//! | [`settings`], [`error`] | the file that Ansible lays down, and what can go wrong |

pub mod act;
pub mod clock;
pub mod command;
pub mod counters;
pub mod decide;
pub mod decision;
pub mod docker;
pub mod drill;
pub mod error;
pub mod gate;
pub mod http_app;
pub mod journal;
pub mod lock;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod observation;
pub mod observe;
pub mod outward;
pub mod parts;
pub mod pass;
mod processes;
pub mod report;
pub mod runtime;
pub mod servers;
pub mod settings;
pub mod status_file;
pub mod words;
