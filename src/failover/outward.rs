//! What a pass tells to those who look on. Best effort, and after acting: none of it is waited for, and no fault of it makes a pass fail (I6).

use std::path::Path;

use super::error::Error;
use super::pass::Look;
use super::settings::Settings;
use super::status_file::StatusFile;

/// Where it is told.
#[derive(Debug)]
pub struct Outward {
    status: StatusFile,
}

impl Outward {
    /// For the installation whose state lies in `state_directory`.
    #[must_use]
    pub fn new(state_directory: &Path) -> Self {
        Self { status: StatusFile::new(state_directory.join("status.json")) }
    }

    /// After a pass, whatever came of its acting.
    pub fn tell(&self, look: &Look, settings: &Settings) {
        self.status.show(look, settings);
    }

    /// After a pass that could not look.
    pub fn tell_error(&self, error: &Error) {
        self.status.show_error(error);
    }
}
