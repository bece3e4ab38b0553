//! The program `failover-check`: observe, decide, act.
//!
//! ```text
//!   record ──┐
//!   runtime ─┤            ┌────────────┐            ┌──────────┐
//!   SQL ─────┼─ observe ─►│ Observation│─ decide ──►│ Decision │─ act ─► fence, promote, record, heal
//!   app ─────┤            └────────────┘  (pure)    └──────────┘           │
//!   memory ──┘                                                            └─► events.jsonl
//! ```

pub mod decide;
pub mod decision;
pub mod observation;
pub mod clock;
pub mod journal;
pub mod lock;
pub mod memory;
pub mod settings;
pub mod docker;
pub mod runtime;
pub mod servers;
pub mod act;
pub mod observe;
pub mod command;
pub mod error;
pub mod pass;
pub mod report;
