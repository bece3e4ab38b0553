//! A set of byte ranges: sorted, apart from each other, half open.

use serde::{Deserialize, Serialize};

/// Which bytes of a file are there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds the bytes from `start` up to and without `end`.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        self.0.retain(|&(from, to)| {
            let apart = to < start || end < from;
            if !apart {
                start = start.min(from);
                end = end.max(to);
            }
            apart
        });
        let at = self.0.partition_point(|&(from, _)| from < start);
        self.0.insert(at, (start, end));
    }

    /// How many bytes are in it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// What lacks of the first `size` bytes.
    #[must_use]
    pub fn missing(&self, size: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = 0;
        for &(start, end) in &self.0 {
            if at < start {
                missing.push((at, start.min(size)));
            }
            at = end;
        }
        if at < size {
            missing.push((at, size));
        }
        missing
    }

    /// The end of the last range.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |&(_, end)| end)
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Self {
        ranges.0
    }
}

/// What was read from a file may be anything.
impl TryFrom<Vec<(u64, u64)>> for Ranges {
    type Error = String;

    fn try_from(read: Vec<(u64, u64)>) -> Result<Self, String> {
        let mut ranges = Self::default();
        for (start, end) in read {
            if start >= end {
                return Err(format!("{start} to {end} is no range"));
            }
            ranges.insert(start, end);
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_touches_becomes_one() {
        let mut ranges = Ranges::default();
        ranges.insert(10, 20);
        ranges.insert(30, 40);
        ranges.insert(5, 5);
        assert_eq!(ranges.missing(50), [(0, 10), (20, 30), (40, 50)]);
        ranges.insert(20, 30);
        assert_eq!(Vec::from(ranges.clone()), [(10, 40)]);
        assert_eq!((ranges.total(), ranges.end()), (30, 40));
    }

    #[test]
    fn what_was_read_is_checked() {
        assert!(serde_json::from_str::<Ranges>("[[5,3]]").is_err());
        assert_eq!(serde_json::from_str::<Ranges>("[[5,9],[0,6]]").unwrap().missing(10), [(9, 10)]);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_set_of_numbers_holds(inserted in proptest::collection::vec((0_u64..60, 0_u64..20), 0..12)) {
            let mut ranges = Ranges::default();
            let mut numbers = std::collections::BTreeSet::new();
            for (start, length) in inserted {
                ranges.insert(start, start + length);
                numbers.extend(start..start + length);
            }
            prop_assert_eq!(ranges.total(), numbers.len() as u64);
            let missing: Vec<u64> = ranges.missing(80).into_iter().flat_map(|(start, end)| start..end).collect();
            let meant: Vec<u64> = (0..80).filter(|number| !numbers.contains(number)).collect();
            prop_assert_eq!(missing, meant);
        }
    }
}
