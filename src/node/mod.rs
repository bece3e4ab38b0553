//! The program `postgres-node`, entrypoint of a node's container: makes the data directory match the role in the cluster record, then becomes `postgres`.
//!
//! ```text
//!   record ─┐
//!           ├─ plan (pure) ─► initialise │ start as primary │ follow │ rewind │ clone ─► exec postgres
//!   volume ─┘                 or refuse
//! ```
//!
//! The volume holds, beside the data directory `data`: `data.incoming` (being made, worth nothing), `data.old-*` (replaced, kept until the replacement
//! streams), `data.kept-*` (with commits that nobody else may have), `epoch` (how this node has last started, or been promoted) `rewinding` (a rewind was begun and not finished)
//! and `copy-ordered` (a person wants a fresh copy, whatever there is).
//!
//! A node starts only by the record: where it is missing or unreadable, or names a transition away from this node, the program ends with a sentence why.

pub mod command;
pub mod configuration;
pub mod discarded;
pub mod error;
pub mod follow;
pub mod initialise;
pub mod plan;
pub mod probe;
pub mod program;
pub mod secrets;
pub mod volume;
