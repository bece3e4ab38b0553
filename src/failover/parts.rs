//! What a checker stands on, as one type. Production stands on [`Host`]; the simulation puts a world in memory in its place, under the same code.

use super::clock::{Clock, HostClock};
use super::docker::Engine;
use super::http_app::HttpApp;
use super::journal::{Journal, JournalFile};
use super::lock::{Lock, LockFiles};
use super::memory::{MemoryFile, MemoryStore};
use super::observe::AppProbe;
use super::runtime::Runtime;
use super::servers::{PairServers, Servers};
use crate::record::{RecordFile, RecordStore};

/// The kinds of the parts that a [`super::pass::Checker`] works with. Holds nothing.
pub trait Parts {
    /// The container runtime.
    type Runtime: Runtime;
    /// The two servers.
    type Servers: Servers;
    /// Where the record is kept.
    type Store: RecordStore;
    /// Where events go.
    type Journal: Journal;
    /// The app.
    type App: AppProbe;
    /// Both clocks.
    type Clock: Clock;
    /// Where a pass leaves what the next one has to know.
    type Memories: MemoryStore;
    /// Who may act.
    type Lock: Lock;
}

/// This host: the Docker Engine, servers over TCP, and files.
#[derive(Debug)]
pub struct Host;

impl Parts for Host {
    type Runtime = Engine;
    type Servers = PairServers;
    type Store = RecordFile;
    type Journal = JournalFile;
    type App = HttpApp;
    type Clock = HostClock;
    type Memories = MemoryFile;
    type Lock = LockFiles;
}
