//! Timelines: where each ended in the history of a server, and where two histories part.

use std::fmt;
use std::str::FromStr;

use super::lsn::Lsn;

/// The timelines that lead to a server's current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timelines {
    /// Those that ended, oldest first, each with where it ended.
    pub ended: Vec<(u32, Lsn)>,
    /// The one that the server is on.
    pub current: u32,
}

/// A text that names no timelines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no timelines such as 1@0/3000148,2")]
pub struct InvalidTimelines(String);

impl Timelines {
    /// Reads a history file of PostgreSQL (`pg_wal/00000002.history`), which is that of the timeline `current`. The first timeline has none, so it is empty.
    ///
    /// # Errors
    /// A line that is neither empty nor a comment nor an ended timeline.
    pub fn from_history(text: &str, current: u32) -> Result<Self, InvalidTimelines> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let ended = lines.map(|line| {
            let mut words = line.split_whitespace();
            let (timeline, end) = (words.next().and_then(|word| word.parse().ok()), words.next().and_then(|word| word.parse().ok()));
            timeline.zip(end).ok_or_else(|| InvalidTimelines(line.to_owned()))
        });
        Ok(Self { ended: ended.collect::<Result<_, _>>()?, current })
    }

    /// Each timeline with where it ended; none for the current one.
    fn all(&self) -> impl Iterator<Item = (u32, Option<Lsn>)> {
        self.ended.iter().map(|(timeline, end)| (*timeline, Some(*end))).chain([(self.current, None)])
    }

    /// The parts of our log that lie on timelines which `theirs` has left before: (timeline, from, to), `to` none where that is the end of our log. Empty where
    /// all of ours is theirs too.
    #[must_use]
    pub fn beyond(&self, theirs: &Self) -> Vec<(u32, Lsn, Option<Lsn>)> {
        let mut parts = Vec::new();
        let mut theirs = theirs.all();
        let mut parted_at: Option<Lsn> = None;
        let mut begin = None;
        for (timeline, end) in self.all() {
            match parted_at {
                Some(_) => parts.push((timeline, begin.unwrap_or_default(), end)),
                None => match theirs.next() {
                    Some((same, their_end)) if same == timeline => {
                        if let Some(their_end) = their_end
                            && end.is_none_or(|end| end > their_end)
                        {
                            parted_at = Some(their_end);
                            parts.push((timeline, their_end, end));
                        }
                        // Where ours ended first and theirs went on, our next timeline is one that they have not.
                        else if end.is_some() && end < their_end.or(Some(Lsn::MAX)) {
                            parted_at = end;
                        }
                    }
                    Some(_) | None => {
                        parted_at = Some(begin.unwrap_or_default());
                        parts.push((timeline, begin.unwrap_or_default(), end));
                    }
                },
            }
            begin = end;
        }
        parts
    }
}

impl fmt::Display for Timelines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (timeline, end) in &self.ended {
            write!(f, "{timeline}@{end},")?;
        }
        write!(f, "{}", self.current)
    }
}

impl FromStr for Timelines {
    type Err = InvalidTimelines;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidTimelines(text.to_owned());
        let (ended, current) = text.rsplit_once(',').unwrap_or(("", text));
        let ended = ended.split(',').filter(|part| !part.is_empty()).map(|part| {
            let (timeline, end) = part.split_once('@').ok_or_else(invalid)?;
            Ok((timeline.parse().map_err(|_| invalid())?, end.parse().map_err(|_| invalid())?))
        });
        Ok(Self { ended: ended.collect::<Result<_, _>>()?, current: current.parse().map_err(|_| invalid())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timelines(text: &str) -> Timelines {
        let read: Timelines = text.parse().unwrap();
        assert_eq!(read.to_string(), text);
        read
    }

    fn beyond(ours: &str, theirs: &str) -> Vec<String> {
        let parts = timelines(ours).beyond(&timelines(theirs));
        parts
            .into_iter()
            .map(|(timeline, from, to)| format!("{timeline}: {from} {}", to.map_or("end".to_owned(), |to| to.to_string())))
            .collect()
    }

    #[test]
    fn a_history_file_is_read_as_postgresql_writes_it() {
        let text = "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/5000000\tno recovery target specified\n";
        assert_eq!(Timelines::from_history(text, 3).unwrap(), timelines("1@0/3000148,2@0/5000000,3"));
        assert_eq!(Timelines::from_history("", 1).unwrap(), timelines("1"));
        assert!(Timelines::from_history("one 0/3", 2).is_err());
        for text in ["", "x", "1@2,3", "1@0/3000148", "1,2"] {
            assert_eq!(text.parse::<Timelines>().unwrap_err(), InvalidTimelines(text.to_owned()));
        }
    }

    #[test]
    fn what_only_we_have_begins_where_the_histories_part() {
        assert_eq!(beyond("1", "1@0/300,2"), ["1: 0/300 end"], "the old primary after a failover");
        assert_eq!(beyond("1@0/300,2", "1@0/300,2@0/500,3"), ["2: 0/500 end"]);
        assert_eq!(beyond("1", "1"), [""; 0], "a standby on the primary's timeline");
        assert_eq!(beyond("1@0/300,2", "1@0/300,2"), [""; 0]);
        assert_eq!(beyond("1@0/400,3", "1@0/300,2"), ["1: 0/300 0/400", "3: 0/400 end"], "promoted by somebody else, later than ours");
        assert_eq!(beyond("1@0/300,3", "1@0/300,2"), ["3: 0/300 end"], "promoted twice at one place");
        assert_eq!(beyond("1@0/200,3", "1"), ["3: 0/200 end"], "promoted behind the back of a primary that went on");
        assert_eq!(beyond("1@0/200,3", "1@0/300,2"), ["3: 0/200 end"]);
    }
}
