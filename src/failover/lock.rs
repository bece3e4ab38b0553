//! Only one `failover-check` acts at a time, and a waiting one gets its turn.
//!
//! Two advisory locks (`flock`), which the kernel releases when their holder dies: whoever acts holds `failover-check.lock`; whoever wants to act next
//! holds `failover-check.queue` while it waits, and writes into it what it wants. A loop looks at the queue between its passes: for another loop (cron's
//! next minute) it ends; for a person's command it lets go, and queues up again behind it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How often a waiting program looks whether its turn has come.
const POLL: Duration = Duration::from_millis(20);

/// What a program wants the lock for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To go on looping: a running loop ends for it.
    Loop,
    /// To act once: a running loop lets it go first and then goes on.
    Command,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::Command => "command",
        }
    }
}

/// Hands out the right to act.
// The program runs on one thread and spawns none of these futures, so they need not be `Send`.
#[allow(async_fn_in_trait)]
pub trait Lock {
    /// The right to act, until dropped.
    type Turn;

    /// Waits for the right to act, at most `patience`.
    ///
    /// # Errors
    /// See [`LockError`].
    async fn take(&self, purpose: Purpose, patience: Duration) -> Result<Self::Turn, LockError>;

    /// Who waits behind whoever acts, if anybody.
    fn waiting(&self) -> Option<Purpose>;
}

/// The lock as two files in the state directory.
#[derive(Debug, Clone)]
pub struct LockFiles {
    state_directory: PathBuf,
}

/// The right to act, until dropped.
pub struct Turn {
    _lock: Flock<File>,
}

/// Why there was no turn.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another one held it for the whole time.
    #[error("another failover-check is acting and did not let go within {waited:?}{holder}")]
    Busy {
        /// How long was waited.
        waited: Duration,
        /// Its process id, where known: ` (process 123)`.
        holder: String,
    },
    /// A lock file could not be used.
    #[error("cannot use the lock file '{}': {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl LockFiles {
    /// The lock files in `state_directory`, which need not exist yet.
    #[must_use]
    pub fn new(state_directory: impl Into<PathBuf>) -> Self {
        Self { state_directory: state_directory.into() }
    }

    fn queue(&self) -> PathBuf {
        self.state_directory.join("failover-check.queue")
    }
}

impl Lock for LockFiles {
    type Turn = Turn;

    async fn take(&self, purpose: Purpose, patience: Duration) -> Result<Turn, LockError> {
        let queue = self.queue();
        let lock = self.state_directory.join("failover-check.lock");
        let until = Instant::now() + patience;
        let busy = |holder: Option<String>| LockError::Busy {
            waited: patience,
            holder: holder.map(|id| format!(" (process {id})")).unwrap_or_default(),
        };
        let mut queued = wait_for(&queue, until).await?.ok_or_else(|| busy(read_content(&lock)))?;
        write_content(&mut queued, purpose.word()).map_err(|source| LockError::Unusable { path: queue.clone(), source })?;
        let mut held = wait_for(&lock, until).await?.ok_or_else(|| busy(read_content(&lock)))?;
        write_content(&mut held, &std::process::id().to_string()).map_err(|source| LockError::Unusable { path: lock, source })?;
        Ok(Turn { _lock: held })
    }

    fn waiting(&self) -> Option<Purpose> {
        let file = open(&self.queue()).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => None,
            Err(_) if read_content(&self.queue()).as_deref() == Some(Purpose::Loop.word()) => Some(Purpose::Loop),
            Err(_) => Some(Purpose::Command),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

async fn wait_for(path: &Path, until: Instant) -> Result<Option<Flock<File>>, LockError> {
    let unusable = |source: io::Error| LockError::Unusable { path: path.to_owned(), source };
    let mut file = open(path).map_err(unusable)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= until => return Ok(None),
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(unusable(errno.into())),
        }
        tokio::time::sleep(POLL).await;
    }
}

fn write_content(file: &mut File, content: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(content.as_bytes())
}

fn read_content(path: &Path) -> Option<String> {
    let mut content = String::new();
    File::open(path).ok()?.read_to_string(&mut content).ok()?;
    Some(content.trim().to_owned()).filter(|content| !content.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_at_once_cannot_both_act_and_the_second_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let lock = LockFiles::new(folder.path());
        let first = lock.take(Purpose::Loop, Duration::ZERO).await.unwrap();
        let second = lock.take(Purpose::Command, Duration::from_millis(50)).await.err().unwrap();
        assert_eq!(
            second.to_string(),
            format!("another failover-check is acting and did not let go within 50ms (process {})", std::process::id())
        );
        drop(first);
        lock.take(Purpose::Command, Duration::ZERO).await.unwrap();
    }

    #[tokio::test]
    async fn the_holder_sees_who_waits_and_the_waiter_gets_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let lock = LockFiles::new(folder.path());
        let first = lock.take(Purpose::Loop, Duration::ZERO).await.unwrap();
        assert_eq!(lock.waiting(), None);
        for purpose in [Purpose::Loop, Purpose::Command] {
            let theirs = lock.clone();
            let mut waiter = tokio::spawn(async move { theirs.take(purpose, Duration::from_millis(300)).await });
            let _ = tokio::time::timeout(Duration::from_millis(100), &mut waiter).await;
            assert_eq!(lock.waiting(), Some(purpose));
            assert!(waiter.await.unwrap().is_err());
        }
        let theirs = lock.clone();
        let waiter = tokio::spawn(async move { theirs.take(Purpose::Command, Duration::from_secs(5)).await });
        tokio::time::sleep(Duration::from_millis(60)).await;
        drop(first);
        let _theirs = waiter.await.unwrap().unwrap();
        assert_eq!(lock.waiting(), None);
    }
}
