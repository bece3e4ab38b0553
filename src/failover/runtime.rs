//! What the rest of `failover-check` may do to a node's container. Docker is one implementation; a pair across hosts will bring another.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::Stream;

use super::observation::InsideView;
use crate::node::discarded::Discarded;
use crate::postgres::timeline::Timelines;

/// A container, as the runtime says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// It has processes, or may get them back by itself (paused, restarting).
    Running {
        /// Its address on the pair's network; none while the network is cut.
        address: Option<IpAddr>,
        /// Its processes are held by the runtime.
        paused: bool,
        /// The runtime would start it again by itself.
        restarts: bool,
    },
    /// It has no process; how it ended.
    Stopped {
        /// For a person: `exited with code 137` …
        how: String,
        /// The runtime would start it again by itself, at the latest with the next boot.
        restarts: bool,
    },
    /// There is no such container.
    Missing,
}

/// The runtime did not do or say what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime as a whole does not answer.
    #[error("the container runtime does not answer: {0}")]
    Silent(String),
    /// It answered with an error.
    #[error("the container runtime refuses to {doing} '{container}': {why}")]
    Refused {
        /// The container.
        container: String,
        /// What was asked: `start`, `kill` …
        doing: &'static str,
        /// Its words.
        why: String,
    },
}

/// What can be done to a container. Every call comes back within a bounded time.
// The program runs on one thread and spawns none of these futures, so they need not be `Send`.
#[allow(async_fn_in_trait)]
pub trait Runtime {
    /// A stream with one item for each of these containers that ends from now on. It ends itself when the runtime goes away; none where it is away now.
    async fn endings(&self, containers: &[String]) -> Option<impl Stream<Item = ()>>;

    /// Is it running?
    ///
    /// # Errors
    /// See [`RuntimeError`]; an error says nothing about the container.
    async fn inspect(&self, container: &str) -> Result<ContainerState, RuntimeError>;

    /// Starts it; already running is fine.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    async fn start(&self, container: &str) -> Result<(), RuntimeError>;

    /// Asks it to end in good order, and kills it after `grace`.
    ///
    /// # Errors
    /// See [`RuntimeError`]. No error is no proof that it has ended: inspect.
    async fn stop(&self, container: &str, grace: Duration) -> Result<(), RuntimeError>;

    /// Kills it at once, also when it is paused; not running is fine.
    ///
    /// # Errors
    /// See [`RuntimeError`]. No error is no proof that it has ended: inspect.
    async fn kill(&self, container: &str) -> Result<(), RuntimeError>;

    /// Stops and starts it; stopped is fine.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    async fn restart(&self, container: &str) -> Result<(), RuntimeError>;

    /// Takes care that the runtime never starts it by itself.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    async fn forbid_restart(&self, container: &str) -> Result<(), RuntimeError>;

    /// Runs the node's own probe inside it: does its server answer over the unix socket?
    async fn probe_inside(&self, container: &str, deadline: Duration) -> InsideView;

    /// Tells the node of the epoch that it leads since it was promoted, so that it will know an older record.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    async fn note_lead(&self, container: &str, epoch: u64) -> Result<(), RuntimeError>;

    /// What the node's volume has that a primary with these timelines has not; its container need not run.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    async fn discarded(&self, container: &str, primary: &Timelines) -> Result<Vec<Discarded>, RuntimeError>;

    /// Has the node take a fresh copy of the primary's data at its next start; its container need not run.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    async fn order_copy(&self, container: &str) -> Result<(), RuntimeError>;

    /// Tells the node that its replacement streams, so that data directories kept aside can go. Its answer, in words.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    async fn discard_old_data(&self, container: &str) -> Result<String, RuntimeError>;
}
