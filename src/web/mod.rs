//! The app: a page at `/`, `/health`, `/ready` and `/metrics`, following the primary by itself.
//!
//! ```text
//!   cluster.json ──when replaced─► primary ──pool──► pg-a or pg-b
//!                                     ▲
//!   GET /ready ──► readiness ─────────┘      one deadline around pool, connect and query
//!   GET /health    touches nothing
//!   GET /metrics   what the last checks saw; asks no server
//!   GET /          what failover-check sees and does; asks no server
//! ```
//!
//! | module | answers |
//! | --- | --- |
//! | [`settings`] | what was typed, and what it means |
//! | [`startup`] | listener, server, following, draining |
//! | [`primary`] | which node is asked, over which pool |
//! | [`readiness`] | can a write be served now, and if not, why not |
//! | [`instruments`] | the numbers behind `/metrics` |
//! | [`page`] | what `failover-check` sees and does, for people |
//! | [`routes`] | HTTP: one file for each path |

pub mod error;
pub mod instruments;
pub mod page;
mod password;
pub mod primary;
pub mod readiness;
mod record_view;
mod record_watch;
pub mod routes;
pub mod settings;
pub mod startup;
