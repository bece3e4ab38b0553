pub mod moto;
pub mod nginx;
pub mod scripted;
pub mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory to fetch into.
pub struct Place {
    pub folder: tempfile::TempDir,
}

/// What a run said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}; there are {:?}", self.names()))
    }

    /// Everything in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The program, with this directory, no proxy and nobody's credentials.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fetch"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let nothing = self.path("no-such-file");
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", &nothing).env("AWS_SHARED_CREDENTIALS_FILE", &nothing);
        command.arg("--dir").arg(self.folder.path()).args(arguments).stdin(Stdio::null());
        command
    }

    pub fn fetch(&self, arguments: &[&str]) -> Said {
        Said::of(&self.command(arguments).output().unwrap())
    }

    /// The same, with what it says in JSON.
    pub fn fetch_json(&self, arguments: &[&str]) -> (i32, Value) {
        let said = self.fetch(&[&["--json"], arguments].concat());
        (said.code, serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {} {}", said.out, said.err)))
    }

    /// Fetches what has to succeed.
    pub fn fetched(&self, arguments: &[&str]) -> Said {
        let said = self.fetch(arguments);
        assert_eq!(said.code, 0, "{} {}", said.out, said.err);
        said
    }
}

impl Said {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// The one line that tells of what went wrong, with its remedy.
    pub fn complaint(&self) -> &str {
        let lines: Vec<&str> = self.err.lines().filter(|line| line.contains("; try: ")).collect();
        assert_eq!(lines.len(), 1, "one line: {}", self.err);
        lines[0]
    }
}

/// A program that `scripts` lay into `.cache`.
pub fn cached(path: &str, script: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache").join(path);
    assert!(program.exists(), "'{}' is missing; try: {script}", program.display());
    program
}

/// Bytes that no two places share.
pub fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    understudy::fetch::verify::hexadecimal(&sha2::Sha256::digest(bytes))
}

/// Waits for a server that was just started.
pub fn wait_for_port(port: u16, process: &mut std::process::Child) {
    let begun = std::time::Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(process.try_wait().unwrap().is_none(), "the server on port {port} has ended");
        assert!(begun.elapsed().as_secs() < 120, "the server on port {port} does not answer");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A port of the loopback that nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
