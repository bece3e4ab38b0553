//! A libpq connection string as ordered keywords and values, quoted by libpq's rules.
//!
//! The rules are those of `conninfo_parse` in libpq: a value ends at white space unless it stands in single quotes, and a backslash
//! makes the next character an ordinary one in both forms.

use std::fmt::Write as _;

/// Shown in place of a secret.
pub const MASK: &str = "********";

/// The keywords whose values nobody may see.
const SECRET_KEYWORDS: [&str; 5] = ["password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"];

/// Keywords and values in the order they were given. When a keyword is given twice, libpq uses the last.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Conninfo(Vec<(String, String)>);

impl Conninfo {
    /// Takes pairs as they are.
    ///
    /// # Errors
    /// When a keyword cannot be one: libpq's are lower-case letters, digits and underscores.
    pub fn new<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, ConninfoError> {
        let pairs: Vec<(String, String)> = pairs.into_iter().map(|(keyword, value)| (keyword.into(), value.into())).collect();
        match pairs.iter().find(|(keyword, _)| !is_keyword(keyword)) {
            Some((keyword, _)) => Err(ConninfoError::Keyword { keyword: keyword.clone() }),
            None => Ok(Self(pairs)),
        }
    }

    /// Reads a connection string of keywords and values.
    ///
    /// # Errors
    /// When libpq would not read it either, and for a URI: its parts cannot be compared or masked one by one.
    pub fn parse(text: &str) -> Result<Self, ConninfoError> {
        if text.starts_with("postgresql://") || text.starts_with("postgres://") {
            return Err(ConninfoError::Uri);
        }
        let mut pairs = Vec::new();
        let mut rest = text.trim_start_matches(is_space);
        while !rest.is_empty() {
            let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
            let keyword = &rest[..end];
            let after = rest[end..].trim_start_matches(is_space);
            let Some(after) = after.strip_prefix('=') else {
                return Err(ConninfoError::MissingEquals { keyword: shown_keyword(keyword) });
            };
            let (value, after) = read_value(after.trim_start_matches(is_space))
                .ok_or_else(|| ConninfoError::Unterminated { keyword: shown_keyword(keyword) })?;
            pairs.push((keyword.to_owned(), value));
            rest = after.trim_start_matches(is_space);
        }
        Self::new(pairs)
    }

    /// The value that libpq would use for a keyword.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == keyword).map(|(_, value)| value.as_str())
    }

    /// The pairs in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The connection string, secrets and all. Values are quoted only where libpq needs it.
    pub fn to_connection_string(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(keyword, value)| format!("{keyword}={}", quoted(value))).collect();
        words.join(" ")
    }

    /// The connection string for eyes and logs.
    pub fn masked(&self) -> Self {
        let masked = |(keyword, value): &(String, String)| {
            let shown = if SECRET_KEYWORDS.contains(&keyword.as_str()) { MASK } else { value };
            (keyword.clone(), shown.to_owned())
        };
        Self(self.0.iter().map(masked).collect())
    }
}

/// Shows no secret, so that a connection string in a failed assertion or a log is harmless.
impl std::fmt::Debug for Conninfo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Conninfo({:?})", self.masked().to_connection_string())
    }
}

/// White space as C's `isspace` sees it, which is what libpq asks.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn is_keyword(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A misplaced quote can turn a password into what looks like a keyword, so only what could be a keyword is ever quoted back.
fn shown_keyword(text: &str) -> String {
    if is_keyword(text) && text.len() <= 24 && !text.bytes().any(|byte| byte.is_ascii_digit()) { text.to_owned() } else { MASK.to_owned() }
}

fn quoted(value: &str) -> String {
    if !value.is_empty() && !value.contains(|c| is_space(c) || c == '\'' || c == '\\') {
        return value.to_owned();
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars() {
        if c == '\'' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

/// Reads one value and gives what follows it; `None` when its closing quote is missing.
fn read_value(text: &str) -> Option<(String, &str)> {
    let (inside_quotes, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if inside_quotes => return Some((value, &body[at + 1..])),
            c if !inside_quotes && is_space(c) => return Some((value, &body[at..])),
            c => value.push(c),
        }
    }
    (!inside_quotes).then_some((value, ""))
}

/// Why a connection string cannot be used. No variant holds a value: it might be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConninfoError {
    /// Not a keyword of libpq.
    #[error("'{}' is no keyword of a connection string", shown_keyword(keyword))]
    Keyword {
        /// What was given as keyword.
        keyword: String,
    },
    /// A keyword stands alone.
    #[error("no '=' follows '{keyword}' in the connection string")]
    MissingEquals {
        /// The keyword, masked when it may be a secret.
        keyword: String,
    },
    /// The closing quote is missing.
    #[error("the quoted value of '{keyword}' in the connection string does not end")]
    Unterminated {
        /// The keyword, masked when it may be a secret.
        keyword: String,
    },
    /// A URI was given.
    #[error("the connection string is a URI")]
    Uri,
}

impl ConninfoError {
    /// What a person can do about it.
    pub fn remedy(&self) -> Option<String> {
        Some("write it as keywords and values, such as host=10.0.0.1 port=5432 user=replication, values with spaces or quotes in single quotes with \\' and \\\\".to_owned())
    }
}

/// The connection string that settings files hold, masked: what cannot be read as one is masked as a whole when it may hold a secret.
pub fn masked_text(text: &str) -> String {
    if let Ok(conninfo) = Conninfo::parse(text) {
        return conninfo.masked().to_connection_string();
    }
    let mut shown = String::new();
    if let Some((scheme, rest)) = text.split_once("://")
        && !rest.contains("password=")
        && let Some((authority, path)) = rest.rsplit_once('@')
    {
        let user = authority.split(':').next().unwrap_or_default();
        let _ = write!(shown, "{scheme}://{user}:{MASK}@{path}");
        return shown;
    }
    MASK.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Conninfo, ConninfoError, masked_text};
    use proptest::prelude::*;

    #[test]
    fn values_are_quoted_only_where_libpq_needs_it() {
        let cases = [
            ("plain", "10.0.0.1", "k=10.0.0.1"),
            ("empty", "", "k=''"),
            ("spaces", "two words", "k='two words'"),
            ("quote", "o'clock", r"k='o\'clock'"),
            ("backslash", r"a\b", r"k='a\\b'"),
            ("quote at the end", "a'", r"k='a\''"),
            ("equals and hash", "a=b#c", "k=a=b#c"),
        ];
        for (case, value, expected) in cases {
            let conninfo = Conninfo::new([("k", value)]).unwrap();
            assert_eq!(conninfo.to_connection_string(), expected, "{case}");
            assert_eq!(Conninfo::parse(expected).unwrap().get("k"), Some(value), "{case}");
        }
    }

    #[test]
    fn libpqs_own_forms_are_read() {
        let read = Conninfo::parse(r"  host = 'a b'port=5432	user=o\'x application_name='' user=last ").unwrap();
        assert_eq!(read.pairs().len(), 5);
        assert_eq!(read.get("host"), Some("a b"));
        assert_eq!(read.get("port"), Some("5432"));
        assert_eq!(read.get("application_name"), Some(""));
        assert_eq!(read.get("user"), Some("last"));
    }

    #[test]
    fn what_libpq_refuses_is_refused_without_showing_a_value() {
        assert_eq!(Conninfo::parse("host"), Err(ConninfoError::MissingEquals { keyword: "host".into() }));
        assert_eq!(Conninfo::parse("password='secret"), Err(ConninfoError::Unterminated { keyword: "password".into() }));
        assert_eq!(Conninfo::parse("password=a hunter2"), Err(ConninfoError::MissingEquals { keyword: "********".into() }));
        assert_eq!(Conninfo::parse("postgresql://user:secret@host/"), Err(ConninfoError::Uri));
        assert!(Conninfo::parse("Pass!=1").unwrap_err().to_string().contains("********"));
    }

    #[test]
    fn no_secret_survives_masking() {
        assert_eq!(masked_text("host=a password='s e' user=b"), "host=a password=******** user=b");
        assert_eq!(masked_text("postgresql://u:secret@h/db"), "postgresql://u:********@h/db");
        assert_eq!(masked_text("postgresql://h/db?password=secret"), "********");
        assert_eq!(masked_text("password='unterminated"), "********");
        assert!(!format!("{:?}", Conninfo::parse("password=secret").unwrap()).contains("secret"));
    }

    proptest! {
        #[test]
        fn any_value_comes_back(values in proptest::collection::vec("\\PC*|[ '\\\\=#\\t]*", 0..4)) {
            let pairs: Vec<(String, String)> = values.into_iter().enumerate().map(|(at, value)| (format!("k{at}"), value)).collect();
            let conninfo = Conninfo::new(pairs).unwrap();
            prop_assert_eq!(Conninfo::parse(&conninfo.to_connection_string()), Ok(conninfo));
        }
    }
}
