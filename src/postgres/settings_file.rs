//! Reads and edits the text of a settings file (`postgresql.auto.conf`, `recovery.conf`) one setting at a time, leaving every other
//! byte as it is.
//!
//! The grammar is that of PostgreSQL's `guc-file.l`: a line is `name [=] value [# comment]`, names are case-insensitive, a quoted value
//! knows `''` and backslash escapes, and no value spans lines.

use std::ops::Range;

use super::conninfo;

/// A line that sets something.
struct Assignment<'a> {
    name: &'a str,
    /// Where the value stands in the line and what it means; `None` when PostgreSQL would not read the line.
    value: Option<(Range<usize>, String)>,
}

/// Quotes a value as `ALTER SYSTEM` does: quotes and backslashes doubled.
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// The value in force in this file: the last one, as for PostgreSQL. `None` when no line sets it or the line cannot be read.
pub fn value(text: &str, name: &str) -> Option<String> {
    let last = text.lines().filter_map(read_line).rfind(|assignment| assignment.name.eq_ignore_ascii_case(name))?;
    last.value.map(|(_, value)| value)
}

/// The text with `name` set to a value, or without it for `None`.
///
/// The last occurrence is edited in place, so its comment stays, and others are dropped; a line that already says it is left alone.
pub fn set(text: &str, name: &str, wanted: Option<&str>) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let sets_name = |line: &&str| read_line(line).is_some_and(|assignment| assignment.name.eq_ignore_ascii_case(name));
    let last = lines.iter().rposition(sets_name);
    let mut edited = String::with_capacity(text.len() + 64);
    for (at, line) in lines.iter().enumerate() {
        match wanted {
            Some(wanted) if Some(at) == last => edited.push_str(&with_value(line, name, wanted)),
            _ if sets_name(line) => {}
            _ => edited.push_str(line),
        }
    }
    if let (Some(wanted), None) = (wanted, last) {
        if !edited.is_empty() && !edited.ends_with('\n') {
            edited.push('\n');
        }
        edited.push_str(&assignment_line(name, wanted));
    }
    edited
}

/// The text for eyes and logs: passwords in connection strings are masked, in comments too.
pub fn masked(text: &str) -> String {
    text.split_inclusive('\n').map(masked_line).collect()
}

fn assignment_line(name: &str, value: &str) -> String {
    format!("{name} = {}\n", quote(value))
}

fn with_value(line: &str, name: &str, wanted: &str) -> String {
    match read_line(line).and_then(|assignment| assignment.value) {
        Some((_, present)) if present == wanted => line.to_owned(),
        Some((range, _)) => format!("{}{}{}", &line[..range.start], quote(wanted), &line[range.end..]),
        None => assignment_line(name, wanted),
    }
}

fn masked_line(line: &str) -> String {
    if let Some(Assignment { name, value: Some((range, value)) }) = read_line(line)
        && name.eq_ignore_ascii_case("primary_conninfo")
    {
        let comment = masked_after_password(&line[range.end..]);
        return format!("{}{}{comment}", &line[..range.start], quote(&conninfo::masked_text(&value)));
    }
    masked_after_password(line)
}

/// Masks the rest of a line that no connection string could be read from, when it speaks of a password.
fn masked_after_password(line: &str) -> String {
    let Some(at) = line.to_ascii_lowercase().find("password") else {
        return line.to_owned();
    };
    let ending = if line.ends_with('\n') { "\n" } else { "" };
    format!("{}{}{ending}", &line[..at + "password".len()], conninfo::MASK)
}

/// Reads one line; `None` when it is blank, a comment, or starts with no name.
fn read_line(line: &str) -> Option<Assignment<'_>> {
    let start = skip_blanks(line, 0);
    let end = line[start..].find(|c: char| !is_name_character(c)).map_or(line.len(), |length| start + length);
    let name = &line[start..end];
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let mut at = skip_blanks(line, end);
    if line[at..].starts_with('=') {
        at = skip_blanks(line, at + 1);
    }
    let value = read_value(&line[at..]).filter(|(length, _)| {
        let rest = skip_blanks(line, at + length);
        line[rest..].is_empty() || line[rest..].starts_with(['#', '\n'])
    });
    Some(Assignment { name, value: value.map(|(length, value)| (at..at + length, value)) })
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '$' || !c.is_ascii()
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

fn skip_blanks(line: &str, from: usize) -> usize {
    line.len() - line[from..].trim_start_matches(is_blank).len()
}

/// The length of the value's token and what it means.
fn read_value(text: &str) -> Option<(usize, String)> {
    if let Some(body) = text.strip_prefix('\'') {
        let (length, bytes) = read_quoted(body.as_bytes())?;
        return Some((length + 1, String::from_utf8(bytes).ok()?));
    }
    let length = text.find(|c| is_blank(c) || matches!(c, '#' | '\n' | '\'')).unwrap_or(text.len());
    (length > 0).then(|| (length, text[..length].to_owned()))
}

/// Reads up to and including the closing quote, as `GUC_scanstr` does (escapes can make any byte, hence bytes).
fn read_quoted(body: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        match (*body.get(at)?, body.get(at + 1).copied()) {
            (b'\n', _) | (b'\\', None | Some(b'\n')) => return None,
            (b'\'', Some(b'\'')) => {
                bytes.push(b'\'');
                at += 2;
            }
            (b'\'', _) => return Some((at + 1, bytes)),
            (b'\\', Some(b'0'..=b'7')) => {
                let digits = body[at + 1..].iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte));
                let (count, code) = digits.fold((0, 0u16), |(count, code), digit| (count + 1, code * 8 + u16::from(digit - b'0')));
                bytes.push((code & 0xff) as u8);
                at += 1 + count;
            }
            (b'\\', Some(escaped)) => {
                bytes.push(match escaped {
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => other,
                });
                at += 2;
            }
            (byte, _) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{masked, quote, set, value};
    use proptest::prelude::*;

    #[test]
    fn every_form_that_postgresql_reads_is_read() {
        let cases = [
            ("equals", "port = 5432", Some("5432")),
            ("no equals", "port 5432", Some("5432")),
            ("no space at all", "port='5432'", Some("5432")),
            ("upper case, comment", "\tPORT=5432#default", Some("5432")),
            ("doubled quote", "port = 'o''clock'", Some("o'clock")),
            ("escaped quote", r"port = 'o\'clock'", Some("o'clock")),
            ("escapes", r"port = 'a\tb\\c\101'", Some("a\tb\\cA")),
            ("hash inside quotes", "port = 'a#b' # c", Some("a#b")),
            ("carriage return", "port = 1\r", Some("1")),
            ("the last one wins", "port = 1\nport = 2", Some("2")),
            ("a comment", "# port = 1", None),
            ("unterminated", "port = 'a", None),
            ("rubbish after the value", "port = 'a' b", None),
            ("no value", "port =", None),
            ("a longer name", "port_x = 1", None),
        ];
        for (case, text, expected) in cases {
            assert_eq!(value(text, "port").as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn only_the_named_setting_changes() {
        let text = "# head\nWork_Mem = 4MB # note\nport=1\n\nWORK_MEM='8MB'   # why\nlast = 'x'";
        assert_eq!(set(text, "work_mem", Some("16MB")), "# head\nport=1\n\nWORK_MEM='16MB'   # why\nlast = 'x'");
        assert_eq!(set(text, "work_mem", None), "# head\nport=1\n\nlast = 'x'");
        assert_eq!(set(text, "new", Some(r"it's \ here")), format!("{text}\nnew = 'it''s \\\\ here'\n"));
        assert_eq!(set(text, "last", Some("x")), text);
        assert_eq!(set("", "a", Some("")), "a = ''\n");
        assert_eq!(set("a = 'broken\n", "a", Some("b")), "a = 'b'\n");
    }

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        assert_eq!(
            masked("primary_conninfo = 'host=a password=''s e''' # was password=old\n# primary_conninfo = 'password=older'\nport = 1\n"),
            "primary_conninfo = 'host=a password=********' # was password********\n# primary_conninfo = 'password********\nport = 1\n"
        );
        assert_eq!(masked("primary_conninfo = 'password=broken"), "primary_conninfo = 'password********");
    }

    proptest! {
        #[test]
        fn any_value_comes_back_and_setting_it_again_changes_nothing(wanted in "[^\n\0]*", text in "([a-z]{1,3} ?=? ?('[^\n']*'|[a-z]*)( #.*)?\n)*") {
            let edited = set(&text, "setting", Some(&wanted));
            let read = value(&edited, "setting");
            prop_assert_eq!(read.as_deref(), Some(wanted.as_str()));
            prop_assert_eq!(set(&edited, "SETTING", Some(&wanted)), edited.clone());
            prop_assert_eq!(set(&edited, "setting", None), text);
        }

        #[test]
        fn quoting_is_undone_by_reading(wanted in "[^\n\0]*|[' \\\\#]*") {
            let line = format!("a = {} # comment", quote(&wanted));
            let read = value(&line, "a");
            prop_assert_eq!(read.as_deref(), Some(wanted.as_str()));
        }
    }
}
