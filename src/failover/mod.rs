//! The program `failover-check`: observe, decide, act.
//!
//! ```text
//!   record ──┐
//!   runtime ─┤            ┌────────────┐            ┌──────────┐
//!   SQL ─────┼─ observe ─►│ Observation│─ decide ──►│ Decision │─ act ─► fence, promote, record, heal
//!   app ─────┤            └────────────┘  (pure)    └──────────┘           │
//!   memory ──┘                                                            └─► events.jsonl
//! ```

pub mod act;
pub mod clock;
pub mod command;
pub mod decide;
pub mod decision;
pub mod docker;
pub mod error;
pub mod journal;
pub mod lock;
pub mod memory;
pub mod observation;
pub mod observe;
pub mod pass;
pub mod report;
pub mod runtime;
pub mod servers;
pub mod settings;
