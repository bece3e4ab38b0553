//! The modules and the playbooks of native hosts against real servers of every era: PostgreSQL 10 and 11 with `recovery.conf`, 15 and 17
//! with `standby.signal`. Needs no container and no running server: `scripts/fetch-test-servers` lays the programs into `.cache`.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report, in its helpers too.

/// Servers, and calls of the modules, that a test can speak of in one line.
mod support;

/// A standby is set up, streams, is promoted, and takes writes; for each version and each way of promoting.
mod standby_and_promotion;

/// What must not happen: a standby made writable, a promotion that waits for ever.
mod refusals;

/// The playbooks for hosts that run PostgreSQL natively.
mod playbooks;

/// The sessions that failover-check keeps between its questions.
mod sessions;
