//! Cron's file of the test installation. Scenarios with a checker of their own set it aside: cron's would otherwise take
//! over within the minute, and mend what the scenario has broken.

use std::fs;
use std::path::{Path, PathBuf};

use super::installation::Installation;

/// Puts the file back when dropped.
pub struct Cron {
    file: PathBuf,
}

impl Cron {
    /// Where Ansible lays it down.
    pub fn file(installation: &Installation) -> PathBuf {
        Path::new("/etc/cron.d").join(installation.prefix())
    }

    /// Cron passes over files whose names hold a dot.
    fn aside(file: &Path) -> PathBuf {
        file.with_extension("set-aside")
    }

    /// Whether it was laid down, be it set aside or not.
    pub fn is_laid_down(installation: &Installation) -> bool {
        let file = Self::file(installation);
        file.exists() || Self::aside(&file).exists()
    }

    /// Whether the machine's cron runs, under either of its names.
    pub fn is_running() -> bool {
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .any(|process| fs::read_to_string(process.path().join("comm")).is_ok_and(|name| matches!(name.trim_end(), "cron" | "crond")))
    }

    /// Cron no longer calls the checker. The one that runs is taken over from by the scenario's own.
    pub fn set_aside(installation: &Installation) -> Self {
        let cron = Self { file: Self::file(installation) };
        cron.set_aside_again();
        cron
    }

    /// The same, after the playbook has laid the file down anew.
    pub fn set_aside_again(&self) {
        if self.file.exists() {
            fs::rename(&self.file, Self::aside(&self.file)).unwrap();
        }
    }

    /// Cron calls the checker, as in a real installation.
    pub fn put_back(installation: &Installation) -> Self {
        let cron = Self { file: Self::file(installation) };
        cron.restore();
        cron
    }

    fn restore(&self) {
        let aside = Self::aside(&self.file);
        if aside.exists() {
            if self.file.exists() {
                fs::remove_file(aside).unwrap();
            } else {
                fs::rename(aside, &self.file).unwrap();
            }
        }
    }
}

impl Drop for Cron {
    fn drop(&mut self) {
        self.restore();
    }
}
