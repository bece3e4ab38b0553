//! Which bytes of one file are there, and which connection brings which of the others.

use super::ranges::Ranges;

/// What is not split further, in bytes: a connection of its own has to be worth its round trips.
const SMALLEST_SHARE: u64 = 4 * 1024 * 1024;

/// A stretch of the file that one connection brings, or that waits for one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    start: u64,
    next: u64,
    end: u64,
    taken: bool,
}

/// The board of one file of known size.
#[derive(Debug, Clone)]
pub struct Board {
    size: u64,
    before: Ranges,
    stretches: Vec<Stretch>,
}

/// A stretch that was claimed, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim(usize);

impl Board {
    /// A file of which `before` is there already.
    #[must_use]
    pub fn new(size: u64, before: Ranges) -> Self {
        let stretches = before.missing(size).into_iter().map(|(start, end)| Stretch { start, next: start, end, taken: false }).collect();
        Self { size, before, stretches }
    }

    /// The whole file, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is there.
    #[must_use]
    pub fn finished(&self) -> Ranges {
        let mut finished = self.before.clone();
        for stretch in &self.stretches {
            finished.insert(stretch.start, stretch.next);
        }
        finished
    }

    /// Something to bring: what nobody brings, else the second half of what takes longest. None where a connection more would not help.
    pub fn claim(&mut self) -> Option<Claim> {
        if let Some(free) = self.stretches.iter().position(|stretch| !stretch.taken && stretch.next < stretch.end) {
            self.stretches[free].taken = true;
            return Some(Claim(free));
        }
        let longest = (0..self.stretches.len()).max_by_key(|&at| self.stretches[at].end - self.stretches[at].next)?;
        let stretch = &mut self.stretches[longest];
        if stretch.end - stretch.next < 2 * SMALLEST_SHARE {
            return None;
        }
        let middle = stretch.next + (stretch.end - stretch.next) / 2;
        let end = std::mem::replace(&mut stretch.end, middle);
        self.stretches.push(Stretch { start: middle, next: middle, end, taken: true });
        Some(Claim(self.stretches.len() - 1))
    }

    /// What a claim still lacks: from where, and up to where. The end may come nearer, when another connection takes a half.
    #[must_use]
    pub fn lacks(&self, claim: Claim) -> (u64, u64) {
        let stretch = &self.stretches[claim.0];
        (stretch.next, stretch.end)
    }

    /// So many bytes more of a claim are written.
    pub fn advance(&mut self, claim: Claim, bytes: u64) {
        let stretch = &mut self.stretches[claim.0];
        // The end may have come nearer while they were written.
        stretch.next = stretch.end.min(stretch.next + bytes);
    }

    /// Returns a claim of which nothing came, to the connection that brings what lies before it. False where there is none any more.
    pub fn give_back(&mut self, claim: Claim) -> bool {
        let (next, end) = self.lacks(claim);
        let before = self.stretches.iter().position(|stretch| stretch.taken && stretch.end == next && stretch.next < stretch.end);
        let Some(before) = before.filter(|&at| at != claim.0) else { return false };
        self.stretches[before].end = end;
        self.stretches[claim.0].end = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn one_connection_brings_all_and_others_take_halves() {
        let mut board = Board::new(64 * MIB, Ranges::default());
        let first = board.claim().unwrap();
        assert_eq!(board.lacks(first), (0, 64 * MIB));
        let second = board.claim().unwrap();
        assert_eq!((board.lacks(first), board.lacks(second)), ((0, 32 * MIB), (32 * MIB, 64 * MIB)));
        board.advance(first, 32 * MIB);
        let third = board.claim().unwrap();
        assert_eq!(board.lacks(third), (48 * MIB, 64 * MIB), "what takes longest is shared");
    }

    #[test]
    fn little_is_not_shared() {
        let mut board = Board::new(2 * SMALLEST_SHARE - 1, Ranges::default());
        assert!(board.claim().is_some());
        assert_eq!(board.claim(), None);
        assert_eq!(Board::new(0, Ranges::default()).claim(), None);
    }

    #[test]
    fn what_is_there_is_not_brought_again() {
        let mut before = Ranges::default();
        before.insert(0, 10 * MIB);
        before.insert(12 * MIB, 13 * MIB);
        let mut board = Board::new(14 * MIB, before);
        let claims: Vec<Claim> = std::iter::from_fn(|| board.claim()).collect();
        let lacking: Vec<(u64, u64)> = claims.iter().map(|&claim| board.lacks(claim)).collect();
        assert_eq!(lacking, [(10 * MIB, 12 * MIB), (13 * MIB, 14 * MIB)]);
    }

    #[test]
    fn what_is_given_back_is_brought_by_the_connection_before_it() {
        let mut board = Board::new(64 * MIB, Ranges::default());
        let (first, second) = (board.claim().unwrap(), board.claim().unwrap());
        assert!(board.give_back(second));
        assert_eq!(board.lacks(first), (0, 64 * MIB));
        let second = board.claim().unwrap();
        board.advance(first, 32 * MIB);
        assert!(!board.give_back(second), "the connection before it has ended");
    }

    proptest! {
        /// Whatever connections do, every byte is brought exactly once.
        #[test]
        fn every_byte_is_brought_once(steps in proptest::collection::vec((0_usize..6, 1_u64..9), 1..200)) {
            let size = 100 * MIB;
            let mut board = Board::new(size, Ranges::default());
            let mut claims = vec![board.claim().unwrap()];
            let mut brought = 0;
            for (which, amount) in steps {
                if which == 0 {
                    claims.extend(board.claim());
                    continue;
                }
                let claim = claims[which % claims.len()];
                if amount == 8 {
                    // Its connection is refused, and another brings what it lacks. Where none does, it stays the one that lacks it.
                    board.give_back(claim);
                    continue;
                }
                let (next, end) = board.lacks(claim);
                let bytes = (amount * MIB).min(end - next);
                board.advance(claim, bytes);
                brought += bytes;
            }
            prop_assert_eq!(board.finished().total(), brought);
            let mut lacking: Vec<(u64, u64)> = claims.iter().map(|&claim| board.lacks(claim)).filter(|(next, end)| next < end).collect();
            lacking.sort_unstable();
            let mut apart = Ranges::default();
            for &(next, end) in &lacking {
                apart.insert(next, end);
            }
            prop_assert_eq!(apart.total(), size - brought, "no byte is claimed twice");
            prop_assert_eq!(Vec::from(apart), board.finished().missing(size));
        }
    }
}
