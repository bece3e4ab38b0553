//! What to do about each address, decided before anything is done: pure, so that `--dry-run` tells the truth.

use std::collections::HashMap;

use super::address::Address;
use super::error::Error;
use super::input::Wanted;
use super::part::part_name;
use super::settings::Existing;
use super::verify::Check;

/// What is under a name now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// A file of so many bytes.
    File(u64),
    /// A directory, or something else that is no file.
    Other,
}

/// One file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// From where.
    pub address: Address,
    /// The name in the directory.
    pub name: String,
    /// The checksum that it has to have.
    pub sha256: Option<Check>,
    /// Something lies under the name of its part.
    pub begun: bool,
    /// Use nothing of what an earlier run has left.
    pub afresh: bool,
}

/// What to do about one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Fetch it.
    Fetch(Job),
    /// A file of so many bytes is there: look whether it has the checksum.
    Verify(Job, u64),
    /// A file of so many bytes is there, and stays.
    Keep(u64),
    /// Nothing can be done.
    Refuse(Error),
}

/// An address and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The address as it may be shown.
    pub shown: String,
    /// The name of the file, where there is one.
    pub name: Option<String>,
    /// What to do.
    pub step: Step,
}

/// What a run will do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// One for each address, in the order given.
    pub entries: Vec<Entry>,
    /// What is to be said aloud.
    pub notes: Vec<String>,
}

/// Decides. `present` tells what is under a name in the directory.
pub fn plan(wanted: Vec<Wanted>, existing: Existing, present: impl Fn(&str) -> Present) -> Plan {
    let mut notes = Vec::new();
    let unique = once_each(wanted, &mut notes);
    let mut entries: Vec<Entry> = last_of_each_name(unique, &mut notes);

    let names: HashMap<String, ()> = entries.iter().filter_map(|entry| Some((entry.name.clone()?, ()))).collect();
    for entry in &mut entries {
        let Step::Fetch(job) = &mut entry.step else { continue };
        job.begun = present(&part_name(&job.name)) != Present::Nothing;
        // Another file's part would be this file's name.
        let of_another = [".part", ".part.json", ".part.json.new"]
            .iter()
            .filter_map(|end| job.name.strip_suffix(end))
            .any(|stem| names.contains_key(stem));
        let step = match (present(&job.name), existing) {
            _ if of_another => Some(Step::Refuse(Error::NameTaken { name: job.name.clone() })),
            (Present::Nothing, _) | (Present::File(_), Existing::Overwrite) => None,
            (Present::Other, _) => Some(Step::Refuse(Error::InTheWay { name: job.name.clone() })),
            (Present::File(size), _) if job.sha256.is_some() => Some(Step::Verify(job.clone(), size)),
            (Present::File(size), Existing::Skip) => Some(Step::Keep(size)),
            (Present::File(_), Existing::Refuse) => Some(Step::Refuse(Error::Exists { name: job.name.clone() })),
        };
        if let Some(step) = step {
            entry.step = step;
        }
    }
    Plan { entries, notes }
}

/// An address that is given more than once is fetched once. What a later mention says of its checksum and name counts.
fn once_each(wanted: Vec<Wanted>, notes: &mut Vec<String>) -> Vec<Wanted> {
    let mut unique: Vec<Wanted> = Vec::new();
    let mut places: HashMap<Address, usize> = HashMap::new();
    for next in wanted {
        let Ok(address) = &next.address else {
            unique.push(next);
            continue;
        };
        let Some(&at) = places.get(address) else {
            places.insert(address.clone(), unique.len());
            unique.push(next);
            continue;
        };
        let first = &mut unique[at];
        if next.name.is_some() && next.name != first.name {
            let name = next.name.as_deref().unwrap_or_default();
            notes.push(format!("{} is given more than once: the last name wins, '{name}'", next.shown));
            first.name = next.name;
        }
        if next.sha256.is_some() && next.sha256 != first.sha256 {
            if first.sha256.is_some() {
                notes.push(format!("{} is given with more than one checksum: the last one wins", next.shown));
            }
            first.sha256 = next.sha256;
        }
    }
    unique
}

/// Two addresses with the same file name: the last one wins.
fn last_of_each_name(unique: Vec<Wanted>, notes: &mut Vec<String>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut last: HashMap<String, usize> = HashMap::new();
    for (at, Wanted { shown, address, sha256, name }) in unique.into_iter().enumerate() {
        let named = address.and_then(|address| Ok((name.map_or_else(|| address.name(), Ok)?, address)));
        let (name, step) = match named {
            Ok((name, address)) => (Some(name.clone()), Step::Fetch(Job { address, name, sha256, begun: false, afresh: false })),
            Err(error) => (None, Step::Refuse(error)),
        };
        if let Some(name) = &name {
            last.insert(name.clone(), at);
        }
        entries.push(Entry { shown, name, step });
    }
    let winner = |entry: &Entry| entry.name.as_ref().and_then(|name| last.get(name)).copied();
    let winners: Vec<Option<String>> = entries
        .iter()
        .enumerate()
        .map(|(at, entry)| winner(entry).filter(|&last| last != at).map(|last| entries[last].shown.clone()))
        .collect();
    let mut kept = Vec::new();
    for (entry, winner) in entries.into_iter().zip(winners) {
        match winner {
            Some(winner) => {
                notes.push(format!(
                    "{} is left out: {winner} has the same file name, '{}', and comes later",
                    entry.shown,
                    entry.name.unwrap_or_default()
                ));
            }
            None => kept.push(entry),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn planned(lines: &[&str], existing: Existing, present: &[(&str, Present)]) -> Plan {
        let wanted = lines.iter().filter_map(|line| Wanted::line(line)).collect();
        plan(wanted, existing, |name| present.iter().find(|(known, _)| *known == name).map_or(Present::Nothing, |&(_, present)| present))
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.entries.iter().filter(|entry| matches!(entry.step, Step::Fetch(_))).filter_map(|entry| entry.name.as_deref()).collect()
    }

    #[test]
    fn an_address_given_twice_is_fetched_once() {
        let plan = planned(&["http://h/a", "http://h/b", "http://h/a#fragment"], Existing::Refuse, &[]);
        assert_eq!((names(&plan), plan.notes.len()), (vec!["a", "b"], 0));
        let plan = planned(&["http://h/a - one", &format!("http://h/a {DIGITS} two")], Existing::Refuse, &[]);
        assert_eq!(
            (names(&plan), plan.notes.clone()),
            (vec!["two"], vec!["http://h/a is given more than once: the last name wins, 'two'".to_owned()])
        );
        assert!(matches!(&plan.entries[0].step, Step::Fetch(job) if job.sha256.is_some()));
    }

    #[test]
    fn of_two_addresses_with_one_name_the_last_wins_and_it_is_said() {
        let plan = planned(&["http://h/x/a?secret", "http://h/b", "http://h/y/a"], Existing::Refuse, &[]);
        assert_eq!(plan.entries.iter().map(|entry| entry.shown.as_str()).collect::<Vec<_>>(), ["http://h/b", "http://h/y/a"]);
        assert_eq!(plan.notes, ["http://h/x/a is left out: http://h/y/a has the same file name, 'a', and comes later"]);
    }

    #[test]
    fn what_cannot_be_fetched_keeps_no_other_from_it() {
        let plan = planned(&["ftp://h/a", "http://h/", "nonsense", "http://h/b"], Existing::Refuse, &[]);
        assert_eq!(names(&plan), ["b"]);
        let errors: Vec<&Error> =
            plan.entries.iter().filter_map(|entry| if let Step::Refuse(error) = &entry.step { Some(error) } else { None }).collect();
        assert!(matches!(errors[..], [Error::UnsupportedScheme { .. }, Error::NoName, Error::Malformed { .. }]), "{errors:?}");
    }

    #[test]
    fn a_file_that_exists_is_replaced_only_when_that_was_asked_for() {
        let there = [("a", Present::File(7))];
        let step = |line: &str, existing| planned(&[line], existing, &there).entries.remove(0).step;
        assert!(matches!(step("http://h/a", Existing::Refuse), Step::Refuse(Error::Exists { .. })));
        assert_eq!(step("http://h/a", Existing::Skip), Step::Keep(7));
        assert!(matches!(step("http://h/a", Existing::Overwrite), Step::Fetch(_)));
        let with_checksum = format!("http://h/a {DIGITS}");
        assert!(matches!(step(&with_checksum, Existing::Refuse), Step::Verify(_, 7)));
        assert!(matches!(step(&with_checksum, Existing::Skip), Step::Verify(_, 7)));
        assert!(matches!(step(&with_checksum, Existing::Overwrite), Step::Fetch(_)));
        let in_the_way = planned(&["http://h/a"], Existing::Overwrite, &[("a", Present::Other)]);
        assert!(matches!(in_the_way.entries[0].step, Step::Refuse(Error::InTheWay { .. })));
    }

    #[test]
    fn a_file_is_begun_where_its_part_lies() {
        let plan = planned(
            &["http://h/a", "http://h/b", "http://h/c"],
            Existing::Refuse,
            &[("a.part", Present::File(3)), ("b.part.json", Present::File(9))],
        );
        let begun = plan.entries.iter().map(|entry| matches!(&entry.step, Step::Fetch(job) if job.begun));
        assert_eq!(begun.collect::<Vec<_>>(), [true, false, false], "a sidecar alone is of nothing");
    }

    #[test]
    fn no_file_takes_the_name_of_another_ones_part() {
        let plan = planned(&["http://h/a", "http://h/a.part", "http://h/a.part.json", "http://h/b.part"], Existing::Refuse, &[]);
        assert_eq!(names(&plan), ["a", "b.part"]);
    }
}
