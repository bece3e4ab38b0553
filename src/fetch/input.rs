//! The list of what is wanted: lines of a file, and addresses on the command line.

use super::address::{Address, check_name, redacted};
use super::error::Error;
use super::verify::{Algorithm, Check};

/// One file that is wanted, or a line that names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The address as it may be shown.
    pub shown: String,
    /// The address itself.
    pub address: Result<Address, Error>,
    /// The checksum that the file has to have.
    pub sha256: Option<Check>,
    /// The name to give it, instead of the one in its address.
    pub name: Option<String>,
}

impl Wanted {
    /// A file by its address alone.
    #[must_use]
    pub fn address(text: &str) -> Self {
        let address = Address::parse(text);
        let shown = address.as_ref().map_or_else(|_| redacted(text), ToString::to_string);
        Self { shown, address, sha256: None, name: None }
    }

    /// A line `URL [SHA256|-] [NAME]`; the name is the rest of the line. None for an empty line and one that begins with `#`.
    #[must_use]
    pub fn line(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (address, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (sha256, name) = rest.trim_start().split_once(char::is_whitespace).unwrap_or((rest.trim_start(), ""));
        let mut wanted = Self::address(address);
        if !matches!(sha256, "" | "-") {
            match sha256_of(sha256) {
                Ok(check) => wanted.sha256 = Some(check),
                Err(error) => wanted.address = wanted.address.and(Err(error)),
            }
        }
        let name = name.trim_start();
        if !name.is_empty() {
            match check_name(name) {
                Ok(()) => wanted.name = Some(name.to_owned()),
                Err(error) => wanted.address = wanted.address.and(Err(error)),
            }
        }
        Some(wanted)
    }
}

/// A SHA-256 in hexadecimal digits, `sha256:` before it or not.
///
/// # Errors
/// It is none.
pub fn sha256_of(text: &str) -> Result<Check, Error> {
    Check::from_hexadecimal(Algorithm::Sha256, text.strip_prefix("sha256:").unwrap_or(text))
        .ok_or_else(|| Error::MalformedLine { reason: format!("'{}' is no SHA-256 (64 hexadecimal digits)", redacted(text)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn a_line_has_an_address_a_checksum_and_a_name() {
        assert_eq!(Wanted::line("  "), None);
        assert_eq!(Wanted::line("# https://h/a"), None);
        assert_eq!(Wanted::line("https://h/a\r").unwrap(), Wanted::address("https://h/a"));
        let line = Wanted::line(&format!(" https://h/a \t sha256:{DIGITS}  my  file ")).unwrap();
        assert_eq!((line.sha256, line.name.as_deref()), (Some(sha256_of(DIGITS).unwrap()), Some("my  file")));
        let line = Wanted::line("https://h/a - b").unwrap();
        assert_eq!((line.sha256, line.name.as_deref()), (None, Some("b")));
    }

    #[test]
    fn a_line_that_is_wrong_says_why() {
        let error = |line: &str| Wanted::line(line).unwrap().address.unwrap_err();
        assert_eq!(error("https://h/a b"), Error::MalformedLine { reason: "'b' is no SHA-256 (64 hexadecimal digits)".to_owned() });
        assert!(matches!(error("https://h/a - ../b"), Error::UnsafeName { .. }));
        assert!(matches!(error("h/a - ../b"), Error::Malformed { .. }), "the first mistake is the one that is told");
        assert_eq!(Wanted::line("user:hush@h/a?hush - b").unwrap().shown, "h/a");
        for line in ["https://h/a https://user:hush@h/b?hush", "https://h/a - https://user:hush@h/b?hush"] {
            assert!(!error(line).to_string().contains("hush"), "{}", error(line));
        }
    }
}
