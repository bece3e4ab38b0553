//! Understudy: a PostgreSQL primary and standby that fail over by themselves.
//!
//! Which program is served by which module:
//!
//! | program | modules |
//! | --- | --- |
//! | `failover-check` | [`failover`] |
//! | `postgres-node` | [`node`] |
//! | `app` | [`web`] |
//! | `fetch` | [`mod@fetch`], which knows nothing of a database |
//! | `postgres_promote`, `postgres_recovery_conf` | [`modules`] behind [`ansible_module`] |
//!
//! [`postgres`] knows one server and nothing of a cluster; [`record`] is the one file that says who is primary; [`replace_file`] is how every file here is
//! written.

pub mod ansible_module;
pub mod exit_code;
pub mod failover;
pub mod fetch;
pub mod http_client;
pub mod modules;
pub mod node;
pub mod postgres;
pub mod record;
pub mod replace_file;
pub mod usage_error;
pub mod web;
pub mod with_causes;
