//! Says when the record was replaced, at once.
//!
//! The record is replaced by a rename, which takes the watched inode away; so it is its folder that is watched. A watch can fail (the kernel's limit
//! on watches, a folder that is mounted anew): then nothing is ever said, and whoever waits has to look by itself from time to time.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};

/// Room for some events with the longest file name; those that do not fit are read next.
type Buffer = [u8; 1024];

/// Watches a record's folder.
pub struct RecordWatch {
    events: Option<EventStream<Buffer>>,
    name: OsString,
}

impl RecordWatch {
    /// Begins to watch. Must be called within a Tokio runtime.
    #[must_use]
    pub fn of(record: &Path) -> Self {
        let folder = record.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = record.file_name().unwrap_or_default().to_owned();
        match watch(folder) {
            Ok(events) => Self { events: Some(events), name },
            Err(error) => {
                log::warn!("cannot watch '{}', so a new record is noticed a little later: {error}", folder.display());
                Self { events: None, name }
            }
        }
    }

    /// Comes back when the record was replaced since the last call; never, where there is no watch.
    pub async fn replaced(&mut self) {
        while let Some(events) = &mut self.events {
            match events.next().await {
                // Other files of the folder change each second.
                Some(Ok(event)) if event.name.as_ref() == Some(&self.name) => return,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    log::warn!("the record's watch has ended, so a new record is noticed a little later: {error}");
                    self.events = None;
                }
                None => self.events = None,
            }
        }
        std::future::pending().await
    }
}

fn watch(folder: &Path) -> io::Result<EventStream<Buffer>> {
    let inotify = Inotify::init()?;
    inotify.watches().add(folder, WatchMask::MOVED_TO)?;
    inotify.into_event_stream([0; 1024])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn each_replacement_is_said_once_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("cluster.json");
        let mut watch = RecordWatch::of(&record);
        for text in ["one", "two"] {
            crate::replace_file::write(&record, text.as_bytes()).unwrap();
            timeout(Duration::from_secs(5), watch.replaced()).await.unwrap();
        }
        crate::replace_file::write(&folder.path().join("memory.json"), b"x").unwrap();
        assert!(timeout(Duration::from_millis(50), watch.replaced()).await.is_err());
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_never_said_to_change() {
        let mut watch = RecordWatch::of(Path::new("/nowhere/cluster.json"));
        assert!(timeout(Duration::from_millis(20), watch.replaced()).await.is_err());
    }
}
