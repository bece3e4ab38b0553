//! What the kernel says of a container's processes.
//!
//! When a container dies the Engine holds its answer about it back until it has cleaned up after it: a tenth of a second and more, in which nobody can write.
//! The kernel knows at once. A container's first process is the init of a PID namespace, and the kernel lets an init end only when every other process of
//! that namespace is gone (`zap_pid_ns_processes` in Linux's `kernel/pid_namespace.c`; pid_namespaces(7)). So the end of that one process, told by a
//! descriptor that is bound to it (pidfd_open(2)), is the end of all.
//!
//! The container may have been started anew since. So no process may be found whose control group names the container either; a start that comes after that
//! look reads a record that already holds the transition, and does not lead.
//!
//! Whatever is not as expected here (another PID namespace, control groups that do not show, an unreadable `/proc`) is no evidence: the Engine is asked.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// For how long after the end the kernel's word stands in for the Engine's, which has been able to tell more by then: how it ended, or that it is gone.
const STANDS_IN: Duration = Duration::from_secs(2);

/// Length of a container's identity, in hexadecimal digits. A shorter word might be found in another's control group.
const IDENTITY: usize = 64;

/// The first processes of the containers that were seen running.
pub struct Processes {
    /// `/proc`.
    proc: PathBuf,
    known: RefCell<HashMap<String, Init>>,
    an_end: Arc<Notify>,
}

/// The first process of a container.
struct Init {
    /// The container's identity: one container has many first processes in its life.
    id: String,
    pid: i32,
    descriptor: Arc<AsyncFd<OwnedFd>>,
    /// When it was found ended.
    ended: Arc<OnceLock<Instant>>,
    watch: JoinHandle<()>,
}

impl Drop for Init {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Init {
    /// None where it is not surely the init of that container's PID namespace.
    fn open(proc: &Path, id: &str, pid: i32, an_end: &Arc<Notify>) -> Option<Self> {
        let descriptor = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let folder = proc.join(pid.to_string());
        let is_init = is_first_of_a_namespace(&fs::read_to_string(folder.join("status")).ok()?);
        let is_its_own = fs::read_to_string(folder.join("cgroup")).ok()?.contains(id);
        // It lives still, so its number was nobody else's while the two files were read.
        if !is_init || !is_its_own || has_ended(&descriptor) {
            return None;
        }
        #[expect(deprecated, reason = "its successor is unsafe, for types that may change their descriptor; an OwnedFd never does")]
        let descriptor = Arc::new(AsyncFd::with_interest(descriptor, Interest::READABLE).ok()?);
        let ended = Arc::<OnceLock<Instant>>::default();
        let watch = tokio::spawn({
            let (descriptor, ended, an_end) = (Arc::clone(&descriptor), Arc::clone(&ended), Arc::clone(an_end));
            async move {
                if descriptor.readable().await.is_ok() {
                    ended.get_or_init(Instant::now);
                    an_end.notify_one();
                }
            }
        });
        Some(Self { id: id.to_owned(), pid, descriptor, ended, watch })
    }

    fn has_ended(&self) -> bool {
        has_ended(self.descriptor.get_ref())
    }
}

impl Processes {
    /// By what `proc` shows, which is `/proc`.
    pub fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), known: RefCell::default(), an_end: Arc::default() }
    }

    /// The Engine says that this container runs, with this first process, and that it would not start it again by itself.
    pub fn note(&self, container: &str, id: &str, pid: i64) {
        let mut known = self.known.borrow_mut();
        let pid = i32::try_from(pid).unwrap_or(0);
        let is_known = |init: &Init| init.id == id && init.pid == pid && !init.has_ended();
        if known.get(container).is_some_and(is_known) {
            return;
        }
        let is_identity = id.len() == IDENTITY && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_identity.then(|| Init::open(&self.proc, id, pid, &self.an_end)).flatten() {
            Some(init) => drop(known.insert(container.to_owned(), init)),
            None => drop(known.remove(container)),
        }
    }

    /// The Engine says something else of it.
    pub fn forget(&self, container: &str) {
        self.known.borrow_mut().remove(container);
    }

    /// The container's identity, if it ended a moment ago and has no process now.
    pub fn ended_a_moment_ago(&self, container: &str) -> Option<String> {
        let mut known = self.known.borrow_mut();
        let init = known.get(container).filter(|init| init.has_ended())?;
        let found_ended = *init.ended.get_or_init(Instant::now);
        if found_ended.elapsed() < STANDS_IN && matches!(somebody_lives(&self.proc, &init.id), Ok(false)) {
            return Some(init.id.clone());
        }
        known.remove(container);
        None
    }

    /// The number of the container's first process, if that has ended.
    pub fn ended_process(&self, container: &str) -> Option<i64> {
        let known = self.known.borrow();
        known.get(container).filter(|init| init.has_ended()).map(|init| i64::from(init.pid))
    }

    /// Waits until the container's first process ends; for ever, where that is not known.
    pub async fn end_of(&self, container: &str) {
        let descriptor = self.known.borrow().get(container).map(|init| Arc::clone(&init.descriptor));
        match descriptor {
            Some(descriptor) if descriptor.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    /// Waits until any of them ends.
    pub fn next_end(&self) -> impl Future<Output = ()> + use<> {
        let an_end = Arc::clone(&self.an_end);
        async move { an_end.notified().await }
    }
}

/// A pidfd is readable when its process has ended.
fn has_ended(descriptor: &OwnedFd) -> bool {
    let now = rustix::event::Timespec::default();
    let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::IN)
}

/// By its `status`: `NSpid` lists its number in each namespace, the innermost last.
fn is_first_of_a_namespace(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| {
        let mut numbers = numbers.split_whitespace();
        numbers.next().is_some() && numbers.next_back() == Some("1")
    })
}

/// Does a process live whose control group names the container? A process that ends meanwhile does not.
fn somebody_lives(proc: &Path, id: &str) -> io::Result<bool> {
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let Some(groups) = read_unless_it_ends(&entry.path().join("cgroup"))? else { continue };
        if !groups.contains(id) {
            continue;
        }
        let Some(stat) = read_unless_it_ends(&entry.path().join("stat"))? else { continue };
        if !is_zombie(&stat) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// By its `stat` (proc_pid_stat(5)): it has no memory, no files, no connections any more. Where its first thread alone has ended it may have all of them.
fn is_zombie(stat: &str) -> bool {
    const STATE: usize = 0;
    const THREADS: usize = 17;
    // After the name, which is in parentheses and may hold some itself.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    matches!(fields.get(STATE), Some(&("Z" | "X"))) && matches!(fields.get(THREADS), Some(&("0" | "1")))
}

fn read_unless_it_ends(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    const ID: &str = "4e388ab32b10dc8dbc7e28144f552830adc74787c1e2c0824032078a79f227fb";

    /// A real process, under a `/proc` that calls it a container's.
    struct World {
        proc: tempfile::TempDir,
        child: Child,
    }

    impl World {
        fn new() -> Self {
            let world = Self { proc: tempfile::tempdir().unwrap(), child: Command::new("sleep").arg("60").spawn().unwrap() };
            world.show(world.pid(), "1", ID, "S");
            world
        }

        fn pid(&self) -> i64 {
            i64::from(self.child.id())
        }

        fn show(&self, pid: i64, inner: &str, id: &str, state: &str) {
            let folder = self.proc.path().join(pid.to_string());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("status"), format!("Name:\tsleep\nNSpid:\t{pid}\t{inner}\n")).unwrap();
            fs::write(folder.join("cgroup"), format!("3:pids:/docker/{id}\n0::/docker/{id}\n")).unwrap();
            fs::write(folder.join("stat"), format!("{pid} (a ) name) {state} 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9 0")).unwrap();
        }

        fn processes(&self) -> Processes {
            let processes = Processes::new(self.proc.path());
            processes.note("pg-a", ID, self.pid());
            processes
        }

        fn end(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            fs::remove_dir_all(self.proc.path().join(self.pid().to_string())).unwrap();
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }

    #[tokio::test]
    async fn its_end_is_known_at_once_and_to_those_who_wait_for_it() {
        let mut world = World::new();
        let processes = world.processes();
        assert_eq!(processes.ended_a_moment_ago("pg-a"), None, "it lives");
        let end = processes.next_end();

        world.end();

        tokio::join!(processes.end_of("pg-a"), end);
        assert_eq!(processes.ended_a_moment_ago("pg-a").as_deref(), Some(ID));
        assert_eq!(processes.ended_a_moment_ago("pg-b"), None, "nothing is known of another");
    }

    #[tokio::test]
    async fn a_container_that_was_started_anew_has_not_ended() {
        let mut world = World::new();
        let processes = world.processes();
        world.end();
        world.show(77, "1", ID, "R");
        assert_eq!(processes.ended_a_moment_ago("pg-a"), None);
    }

    #[tokio::test]
    async fn a_zombie_and_a_stranger_do_not_count() {
        let mut world = World::new();
        let processes = world.processes();
        world.end();
        world.show(world.pid(), "1", ID, "Z");
        world.show(78, "1", &ID.replace('4', "5"), "R");
        assert_eq!(processes.ended_a_moment_ago("pg-a").as_deref(), Some(ID));
        assert!(!is_zombie("7 (a) Z 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 9 0"), "two of its threads go on");
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_no_evidence() {
        let mut world = World::new();
        let processes = world.processes();
        world.end();
        fs::create_dir_all(world.proc.path().join("79/cgroup")).unwrap();
        assert_eq!(processes.ended_a_moment_ago("pg-a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_some_time_it_is_the_engines_word_that_counts() {
        let mut world = World::new();
        let processes = world.processes();
        world.end();
        processes.end_of("pg-a").await;
        tokio::task::yield_now().await;
        assert_eq!(processes.ended_process("pg-a"), Some(world.pid()));
        assert!(processes.ended_a_moment_ago("pg-a").is_some());
        tokio::time::advance(STANDS_IN).await;
        assert_eq!(processes.ended_a_moment_ago("pg-a"), None);
        assert_eq!(processes.ended_a_moment_ago("pg-a"), None, "and it is forgotten");
    }

    #[tokio::test]
    async fn who_is_not_surely_the_first_of_that_container_is_not_watched() {
        for (inner, id) in [("1", ID.replace('4', "5")), ("12", ID.to_owned()), ("", ID.to_owned())] {
            let mut world = World::new();
            world.show(world.pid(), inner, &id, "S");
            let processes = world.processes();
            world.end();
            assert_eq!(processes.ended_a_moment_ago("pg-a"), None, "{inner} {id}");
        }
        let mut world = World::new();
        let processes = world.processes();
        processes.note("pg-a", "", world.pid());
        world.end();
        assert_eq!(processes.ended_a_moment_ago("pg-a"), None, "an empty identity is found in every control group");
    }
}
