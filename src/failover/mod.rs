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
