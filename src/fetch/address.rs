//! An address to fetch from: what it is, what file name it gives, and how it may be shown.

use std::fmt;

use percent_encoding::percent_decode_str;
use reqwest::Url;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::verify::hexadecimal;

/// The longest file name, in bytes, to which `.part.json.new` can still be appended on the usual file systems (255).
pub const LONGEST_NAME: usize = 241;

/// Where a file is fetched from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `http` or `https`, without its fragment, which is never sent.
    Web(Url),
    /// `s3://bucket/key`, the key as it is written: S3's keys have no escapes.
    Object {
        /// The bucket's name.
        bucket: String,
        /// The object's key, without a leading slash.
        key: String,
    },
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// It is malformed, or of a scheme that `fetch` does not speak.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let malformed = |reason: &str| Error::Malformed { reason: reason.to_owned() };
        let Some((scheme, rest)) = text.split_once(':') else { return Err(malformed("it has no scheme")) };
        match scheme.to_ascii_lowercase().as_str() {
            "s3" => Self::parse_object(rest),
            "http" | "https" => {
                let mut url = Url::parse(text).map_err(|error| Error::Malformed { reason: error.to_string() })?;
                url.set_fragment(None);
                Ok(Self::Web(url))
            }
            name if !name.is_empty()
                && rest.starts_with("//")
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
            {
                Err(Error::UnsupportedScheme { scheme: name.to_owned() })
            }
            _ => Err(malformed("it has no scheme")),
        }
    }

    fn parse_object(rest: &str) -> Result<Self, Error> {
        let malformed = |reason: &str| Error::Malformed { reason: reason.to_owned() };
        let (bucket, key) =
            rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).ok_or_else(|| malformed("not s3://bucket/key"))?;
        // The name becomes a part of a host's name.
        if bucket.is_empty() || !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return Err(malformed("not the name of a bucket"));
        }
        if key.is_empty() {
            return Err(malformed("it names a bucket and no object"));
        }
        if key.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(malformed("a key with '.' or '..' between slashes cannot be asked for over HTTP"));
        }
        Ok(Self::Object { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// The file name that the address gives: its last segment, decoded.
    ///
    /// # Errors
    /// There is none, or it would leave the directory or not be a name at all.
    pub fn name(&self) -> Result<String, Error> {
        let name = match self {
            Self::Web(url) => {
                let segment = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
                percent_decode_str(segment).decode_utf8().map_err(|_| Error::NoName)?.into_owned()
            }
            Self::Object { key, .. } => key.rsplit('/').next().unwrap_or_default().to_owned(),
        };
        if name.is_empty() {
            return Err(Error::NoName);
        }
        check_name(&name)?;
        Ok(name)
    }

    /// What the limit of connections to one host counts by.
    #[must_use]
    pub fn host(&self) -> String {
        match self {
            Self::Web(url) => format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default()),
            Self::Object { bucket, .. } => format!("s3:{bucket}"),
        }
    }

    /// A digest of the query, empty where there is none. What signs an address for a while is left out, so that a part can be resumed under a new signature.
    #[must_use]
    pub fn query_digest(&self) -> String {
        let Self::Web(url) = self else { return String::new() };
        let Some(query) = url.query() else { return String::new() };
        let kept: Vec<&str> = query.split('&').filter(|pair| !signs(pair.split('=').next().unwrap_or_default())).collect();
        hexadecimal(&Sha256::digest(kept.join("&")))
    }
}

/// Whether a parameter belongs to the signature of an address: those of S3, its older form, CloudFront, Google's and Azure's storage.
fn signs(parameter: &str) -> bool {
    let name = parameter.to_ascii_lowercase();
    name.starts_with("x-amz-")
        || name.starts_with("x-goog-")
        || ["awsaccesskeyid", "signature", "expires", "policy", "key-pair-id", "sig", "se", "st", "skoid", "ske", "skt"]
            .contains(&name.as_str())
}

/// Whether a name is one of a file in the directory itself.
///
/// # Errors
/// It is not.
pub fn check_name(name: &str) -> Result<(), Error> {
    // A backslash separates elsewhere, and control characters write on terminals.
    let unsafe_character = |c: char| c == '/' || c == '\\' || c.is_control();
    if name.is_empty() || name == "." || name == ".." || name.contains(unsafe_character) {
        // It may be an address that was meant to stand elsewhere.
        return Err(Error::UnsafeName { name: if name.contains("//") { redacted(name) } else { name.escape_debug().to_string() } });
    }
    if name.len() > LONGEST_NAME {
        return Err(Error::NameTooLong { length: name.len() });
    }
    Ok(())
}

/// A text that may be no address, as it may be shown: without what stands before an `@`, and without a query.
#[must_use]
pub fn redacted(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let shown = match text.split_once("//") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            format!("{scheme}//{}{path}", authority.rsplit('@').next().unwrap_or_default())
        }
        // Without a scheme, `name:password@host` is still somebody's password.
        None => text.rsplit('@').next().unwrap_or_default().to_owned(),
    };
    shown.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Words about a command line, which may quote its arguments, with each address in them as it may be shown.
#[must_use]
pub fn redacted_in(words: &str, arguments: impl IntoIterator<Item = String>) -> String {
    let mut words = words.to_owned();
    for argument in arguments.into_iter().filter(|argument| argument.contains("//")) {
        // `--option=value` is quoted as a whole or as its value.
        let value = match argument.split_once('=') {
            Some((option, value)) if option.starts_with('-') => value,
            _ => argument.as_str(),
        };
        words = words.replace(value, &redacted(value));
    }
    words
}

/// Without credentials, query and fragment.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => {
                write!(formatter, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
                if let Some(port) = url.port() {
                    write!(formatter, ":{port}")?;
                }
                formatter.write_str(url.path())
            }
            Self::Object { bucket, key } => write!(formatter, "s3://{bucket}/{}", key.escape_debug()),
        }
    }
}

/// As shown: a debugging line is output too.
impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(text: &str) -> Result<String, Error> {
        Address::parse(text).unwrap().name()
    }

    #[test]
    fn a_name_is_the_last_segment_decoded() {
        assert_eq!(name_of("https://a.example/b/c.tar.gz?x=/../y#z").unwrap(), "c.tar.gz");
        assert_eq!(name_of("https://a.example/a%20b%C3%A4").unwrap(), "a bä");
        assert_eq!(name_of("s3://bucket/some/key%20as it is?").unwrap(), "key%20as it is?");
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        for text in ["http://h/a%2Fb", "http://h/..%2f..%2fetc%2fpasswd", "http://h/%5c..%5cx", "http://h/a%00b", "http://h/a%0ab"] {
            assert!(matches!(name_of(text), Err(Error::UnsafeName { .. })), "{text}: {:?}", name_of(text));
        }
        for text in ["http://h", "http://h/", "http://h/a/..", "http://h/a/%2e%2e", "http://h/a/.", "s3://bucket/folder/", "http://h/%ff"] {
            assert!(matches!(name_of(text), Err(Error::NoName)), "{text}: {:?}", name_of(text));
        }
        assert!(matches!(name_of(&format!("http://h/{}", "x".repeat(300))), Err(Error::NameTooLong { length: 300 })));
        for name in ["", ".", "..", "/etc/passwd", "a/b", "a\\b", "a\nb"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        for text in [
            "",
            "file",
            "example.com/file",
            "http://",
            "https:///",
            "http://[::1/x",
            "s3://bucket",
            "s3://bucket/",
            "s3://b:1/x",
            "s3:x",
            "s3://b/a/../c",
            ":x",
        ] {
            assert!(matches!(Address::parse(text), Err(Error::Malformed { .. })), "{text}: {:?}", Address::parse(text));
        }
        assert_eq!(Address::parse("ftp://h/x"), Err(Error::UnsupportedScheme { scheme: "ftp".to_owned() }));
        assert_eq!(Address::parse("FILE:///etc/passwd"), Err(Error::UnsupportedScheme { scheme: "file".to_owned() }));
    }

    #[test]
    fn nothing_that_is_shown_holds_credentials_or_a_query() {
        let secret = "https://user:hush@h.example:8443/a/b?X-Amz-Signature=hush#hush";
        let address = Address::parse(secret).unwrap();
        assert_eq!(address.to_string(), "https://h.example:8443/a/b");
        assert_eq!(format!("{address:?}"), "https://h.example:8443/a/b");
        assert_eq!(redacted(secret), "https://h.example:8443/a/b");
        assert_eq!(redacted("https://user:hu@sh@h/x"), "https://h/x");
        assert_eq!(redacted("user:hush@h/x?hush"), "h/x");
        assert_eq!(redacted("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
    }

    #[test]
    fn words_about_a_command_line_hold_no_secret_either() {
        let argument = "https://user:hush@h/a?x=1&sig=hush";
        let about = |words: &str, argument: &str| redacted_in(words, [argument.to_owned(), "-q".to_owned()]);
        assert_eq!(about(&format!("invalid value '{argument}' for '--jobs'"), argument), "invalid value 'https://h/a' for '--jobs'");
        assert_eq!(about(&format!("invalid value '{argument}'"), &format!("--jobs={argument}")), "invalid value 'https://h/a'");
        assert_eq!(about(&format!("unexpected '--j={argument}'"), &format!("--j={argument}")), "unexpected '--j=https://h/a'");
    }

    #[test]
    fn a_new_signature_is_the_same_query_and_another_query_is_not() {
        let digest = |text: &str| Address::parse(text).unwrap().query_digest();
        assert_eq!(digest("https://h/a?id=1&X-Amz-Date=1&X-Amz-Signature=2"), digest("https://h/a?id=1&X-Amz-Date=8&X-Amz-Signature=9"));
        assert_ne!(digest("https://h/a?id=1"), digest("https://h/a?id=2"));
        assert_eq!(digest("https://h/a"), "");
    }
}
