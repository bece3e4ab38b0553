//! Small files that wait for each other: finished together, they take a third of the work that they take one after the other.

use std::time::Duration;

use tokio::time::Instant;

/// So many do not wait any longer. More at once would gain little.
const ENOUGH: usize = 32;
/// How long the first one waits for others: longer than most round trips, since each group wakes a thread, and makes the disk write. It holds up nobody else, and
/// the last file of a run does not wait.
const PATIENCE: Duration = Duration::from_millis(30);

/// Those who wait, and whether a group is on its way.
#[derive(Debug)]
pub struct Company<T> {
    waiting: Vec<T>,
    until: Option<Instant>,
    is_on_its_way: bool,
}

impl<T> Default for Company<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), until: None, is_on_its_way: false }
    }
}

impl<T> Company<T> {
    /// Somebody more.
    pub fn join(&mut self, one: T, now: Instant) {
        self.waiting.push(one);
        self.until.get_or_insert(now + PATIENCE);
    }

    /// The group that goes now, if one does: one at a time, and the more come meanwhile, the larger is the next.
    pub fn go(&mut self, now: Instant, others_may_come: bool) -> Option<Vec<T>> {
        let until = self.until.filter(|_| !self.is_on_its_way)?;
        if others_may_come && self.waiting.len() < ENOUGH && now < until {
            return None;
        }
        self.until = None;
        self.is_on_its_way = true;
        Some(std::mem::take(&mut self.waiting))
    }

    /// The group is finished.
    pub fn arrived(&mut self) {
        self.is_on_its_way = false;
    }

    /// When the next one goes whoever has come by then.
    #[must_use]
    pub fn goes_at(&self) -> Option<Instant> {
        self.until.filter(|_| !self.is_on_its_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_goes_when_it_is_large_enough_or_the_first_has_waited_or_nobody_else_comes() {
        let now = Instant::now();
        let mut company = Company::default();
        assert_eq!((company.go(now, false), company.goes_at()), (None, None), "nobody waits");
        company.join(1, now);
        assert_eq!((company.go(now, true), company.goes_at()), (None, Some(now + PATIENCE)));
        company.join(2, now + PATIENCE / 2);
        assert_eq!(company.go(now + PATIENCE, true), Some(vec![1, 2]));
        company.arrived();
        company.join(3, now);
        assert_eq!(company.go(now, false), Some(vec![3]));
        company.arrived();
        (0..ENOUGH).for_each(|number| company.join(number, now));
        assert_eq!(company.go(now, true).map(|group| group.len()), Some(ENOUGH));
    }

    #[test]
    fn one_group_at_a_time() {
        let now = Instant::now();
        let mut company = Company::default();
        company.join(1, now);
        assert!(company.go(now, false).is_some());
        company.join(2, now);
        assert_eq!((company.go(now + PATIENCE, false), company.goes_at()), (None, None));
        company.arrived();
        assert_eq!(company.go(now, false), Some(vec![2]));
    }
}
