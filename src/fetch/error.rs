//! What can go wrong with one file: the cause, what helps, and whether another attempt may.

use std::time::Duration;

use super::verify::Algorithm;

/// Why a file is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Each has its sentence.
pub enum Error {
    #[error("malformed address: {reason}")]
    Malformed { reason: String },
    #[error("the scheme '{scheme}' is not supported")]
    UnsupportedScheme { scheme: String },
    #[error("malformed line: {reason}")]
    MalformedLine { reason: String },
    #[error("the address gives no file name")]
    NoName,
    #[error("'{name}' is not the name of a file in the directory")]
    UnsafeName { name: String },
    #[error("the name is too long: {length} bytes")]
    NameTooLong { length: usize },
    #[error("'{name}' is kept for the part of another file of this run")]
    NameTaken { name: String },
    #[error("'{name}' exists")]
    Exists { name: String },
    #[error("'{name}' exists and is no file")]
    InTheWay { name: String },
    #[error("cannot write into '{directory}': {cause}")]
    Directory { directory: String, cause: String },
    #[error("'{name}' is being fetched by another process")]
    Locked { name: String },
    #[error("no space is left for {needed} bytes")]
    DiskFull { needed: u64 },
    #[error("cannot {action}: {cause}")]
    Disk { action: &'static str, cause: String },
    #[error("the server answered {status}{detail}")]
    Status { status: u16, detail: String },
    #[error("the server asks to wait for {} s", .wait.as_secs())]
    WaitTooLong { wait: Duration },
    #[error("{cause}")]
    Network { cause: String },
    #[error("the certificate does not verify: {cause}")]
    Certificate { cause: String },
    #[error("not followed: {cause}")]
    Redirect { cause: String },
    #[error("no byte came for {} s", .0.as_secs_f64())]
    Silent(Duration),
    #[error("the body ended after {received} of {expected} bytes")]
    Short { received: u64, expected: u64 },
    #[error("the server tells no length and ends the body by closing the connection: whether it is whole cannot be known")]
    NoLength,
    #[error("the object changed while it was fetched")]
    Changed,
    #[error("the answer makes no sense: {cause}")]
    Nonsense { cause: String },
    #[error("{algorithm} mismatch: expected {expected}, found {found}")]
    Mismatch { algorithm: Algorithm, expected: String, found: String },
    #[error("no credentials for S3: {cause}")]
    Credentials { cause: String },
    #[error("the deadline has passed")]
    Deadline,
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// What helps, as what follows `try:`.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "an address such as https://host/file or s3://bucket/key",
            Self::UnsupportedScheme { .. } => "an address with http, https or s3",
            Self::MalformedLine { .. } => "lines of the form URL [SHA256|-] [NAME]",
            Self::NoName => "give a name: -o NAME, or URL - NAME in a list",
            Self::UnsafeName { .. } => "a plain name, without slashes; the directory is given with --dir",
            Self::NameTooLong { .. } => "give a shorter name: -o NAME, or URL - NAME in a list",
            Self::NameTaken { .. } => "give another name: -o NAME, or URL - NAME in a list",
            Self::Exists { .. } => "--overwrite or --skip-existing",
            Self::InTheWay { .. } => "move it away, or give another name with -o",
            Self::Directory { .. } => "another directory with --dir, or look at its permissions",
            Self::Locked { .. } => "wait for it, or fetch into another directory",
            Self::DiskFull { .. } => "free space, or another directory with --dir",
            Self::Disk { .. } => "look at the directory and its file system",
            Self::Status { status, .. } => match status {
                401 | 403 => "look at the credentials, and at what they may read",
                404 | 410 => "look at the address",
                407 => "look at the proxy's credentials",
                408 | 429 | 500..=599 => "later, or with more --retries",
                _ => "look at the address with curl -v",
            },
            Self::WaitTooLong { .. } => "later, or with a longer --deadline",
            Self::Network { .. } => "look at host, port and network; then run it again",
            Self::Certificate { .. } => {
                "--cacert FILE with the authority that signed it, or look at the host's name and this machine's clock"
            }
            Self::Redirect { .. } => "give the address that it leads to",
            Self::Silent(_) => "later, or with a longer --timeout",
            Self::Short { .. } => "run it again",
            Self::NoLength => "give its --sha256, or an https address",
            Self::Changed => "run it again when the object rests",
            Self::Nonsense { .. } => "look at the address with curl -v; --connections 1 asks for no ranges",
            Self::Mismatch { .. } => "look whether the checksum belongs to this version of the file",
            Self::Credentials { .. } => "aws configure, --profile, or --no-sign-request for a public bucket",
            Self::Deadline => "run it again to go on, or with a longer --deadline",
            Self::Interrupted => "run it again to go on",
        }
    }

    /// Whether another attempt may bring what this one did not.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            // What a server cannot do (501, 505) it will not be able to do in a minute either.
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504 | 506..=599),
            Self::Network { .. } | Self::Silent(_) | Self::Short { .. } | Self::Changed => true,
            _ => false,
        }
    }

    /// An error of a file system, while a part was written.
    #[must_use]
    pub fn disk(action: &'static str, error: &std::io::Error) -> Self {
        Self::Disk { action, cause: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_not_change_is_not_tried_again() {
        for status in [400, 401, 403, 404, 405, 410, 412, 416, 501, 505] {
            assert!(!Error::Status { status, detail: String::new() }.may_pass(), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504, 507, 509, 520, 599] {
            assert!(Error::Status { status, detail: String::new() }.may_pass(), "{status}");
        }
        assert!(!Error::Certificate { cause: String::new() }.may_pass());
        assert!(Error::Short { received: 1, expected: 2 }.may_pass());
    }
}
