//! Time that survives a change of the wall clock, and tells boots apart.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;

/// The two clocks.
pub trait Clock {
    /// What durations are measured with.
    fn moment(&self) -> Moment;

    /// The wall clock, for what a person reads and for what has to outlive a boot. It may jump.
    fn wall(&self) -> Timestamp;
}

/// The kernel's clocks.
#[derive(Debug, Clone, Copy)]
pub struct HostClock;

impl Clock for HostClock {
    fn moment(&self) -> Moment {
        Moment::now()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A moment of the running boot: time since it began, suspended time included, so that a machine that slept does not look as if no time had passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The kernel's name of this boot. A moment of another boot cannot be compared.
    pub boot: String,
    /// Since the boot began.
    pub since_boot: Duration,
}

impl Moment {
    /// Now. Where the kernel does not tell the boot's name (it always does on Linux), all boots look the same.
    #[must_use]
    pub fn now() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let since_boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Self { boot, since_boot }
    }
}
