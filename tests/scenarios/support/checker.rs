//! `failover-check run`, as cron would run it, for one scenario.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::installation::Installation;

/// Longer than any scenario.
const FOR: &str = "1200s";

/// A checker in a process group of its own, killed (`kill -9`) when dropped.
pub struct Checker {
    process: Child,
    log: PathBuf,
}

impl Checker {
    pub fn start(installation: &Installation, settings: &Path, scenario: &str) -> Self {
        Self::start_by(&[], installation, settings, scenario)
    }

    /// In a time namespace of its own: only its clocks since boot are ahead, not the machine's.
    pub fn start_ahead(installation: &Installation, settings: &Path, scenario: &str, seconds: u32) -> Self {
        let seconds = seconds.to_string();
        let unshare = ["unshare", "--fork", "--kill-child", "--time", "--boottime", &seconds, "--monotonic", &seconds, "--"];
        Self::start_by(&unshare, installation, settings, scenario)
    }

    fn start_by(before: &[&str], installation: &Installation, settings: &Path, scenario: &str) -> Self {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{scenario}.checker.log"));
        let out = File::options().create(true).append(true).open(&log).unwrap();
        // Ends with the test also when that is killed: a checker that is left over would mend what others break.
        let program = installation.program_with(settings);
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(before)
            .arg(program.get_program())
            .args(program.get_args())
            .args(["run", "--for", FOR])
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { process, log }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.len().saturating_sub(25);
        format!("--- the checker's last words ({})\n{}\n", self.log.display(), lines[last..].join("\n"))
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.process.id().try_into().unwrap());
        // It may have ended by itself.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.process.wait();
    }
}
