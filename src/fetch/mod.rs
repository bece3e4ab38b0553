//! `fetch`: downloads a set of files in parallel, and says how each went.
//!
//! ```text
//! command ──► input ──► plan ──► workers ──► transfer ──► verify ──► report
//! (typed)     (a list)  (pure)   (slots)     (bytes)      (digest)   (table, JSON)
//!                         │        │           │
//!                       listing  queue       network: http, https, s3
//!                                            board:   which bytes are there, and who brings which
//!                                            part:    NAME.part and NAME.part.json
//!                                company: small files wait for each other; unnamed, durable: how they are finished together
//! ```
//!
//! What holds, whatever happens on the way:
//!
//! - Under a final name there is only a whole file: its length is known to be right, and every checksum that is known fits.
//! - `NAME.part.json` claims only bytes that are on the disk, and bytes of two versions of an object never meet in one file.
//! - No output and no file of its own holds credentials or the query of an address.

pub mod address;
pub mod board;
pub mod command;
pub mod company;
pub mod durable;
pub mod error;
pub mod exit_code;
pub mod head;
pub mod input;
pub mod listing;
pub mod network;
pub mod part;
pub mod plan;
pub mod progress;
pub mod queue;
pub mod ranges;
pub mod report;
pub mod retry;
pub mod s3;
pub mod settings;
pub mod sidecar;
pub mod transfer;
pub mod unnamed;
pub mod verify;
pub mod workers;
