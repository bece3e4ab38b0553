//! Which job is next: in the order they were given, but no host gets more than its share, and none waits behind another one's.

use std::collections::{HashMap, VecDeque};

/// Jobs that wait, by host.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: VecDeque<Host<T>>,
    running: HashMap<String, usize>,
    per_host: usize,
}

#[derive(Debug)]
struct Host<T> {
    name: String,
    jobs: VecDeque<T>,
}

impl<T> Queue<T> {
    /// With at most `per_host` jobs of one host at a time.
    #[must_use]
    pub fn new(per_host: usize) -> Self {
        Self { waiting: VecDeque::new(), running: HashMap::new(), per_host }
    }

    /// Adds jobs, each with its host.
    pub fn extend(&mut self, jobs: impl IntoIterator<Item = (String, T)>) {
        let mut places: HashMap<String, usize> = self.waiting.iter().enumerate().map(|(at, host)| (host.name.clone(), at)).collect();
        for (name, job) in jobs {
            let at = *places.entry(name).or_insert_with_key(|name| {
                self.waiting.push_back(Host { name: name.clone(), jobs: VecDeque::new() });
                self.waiting.len() - 1
            });
            self.waiting[at].jobs.push_back(job);
        }
    }

    /// The next job that may run now; it counts as running until `done`. Hosts take turns.
    pub fn take(&mut self) -> Option<(String, T)> {
        for _ in 0..self.waiting.len() {
            let mut host = self.waiting.pop_front()?;
            let running = self.running.entry(host.name.clone()).or_default();
            let job = if *running < self.per_host { host.jobs.pop_front() } else { None };
            let found = job.map(|job| (host.name.clone(), job));
            *running += usize::from(found.is_some());
            if !host.jobs.is_empty() {
                self.waiting.push_back(host);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// A job of the host has ended.
    pub fn done(&mut self, host: &str) {
        if let Some(running) = self.running.get_mut(host) {
            *running = running.saturating_sub(1);
        }
    }

    /// What never ran.
    pub fn remaining(self) -> impl Iterator<Item = T> {
        self.waiting.into_iter().flat_map(|host| host.jobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(per_host: usize, jobs: &[(&str, u32)]) -> Queue<u32> {
        let mut queue = Queue::new(per_host);
        queue.extend(jobs.iter().map(|&(host, job)| (host.to_owned(), job)));
        queue
    }

    #[test]
    fn no_host_gets_more_than_its_share() {
        let mut queue = queue(2, &[("a", 1), ("a", 2), ("a", 3)]);
        assert_eq!([queue.take(), queue.take(), queue.take()], [Some(("a".to_owned(), 1)), Some(("a".to_owned(), 2)), None]);
        queue.done("a");
        assert_eq!(queue.take(), Some(("a".to_owned(), 3)));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_busy_host_keeps_no_other_waiting() {
        let mut queue = queue(1, &[("a", 1), ("a", 2), ("b", 3), ("c", 4)]);
        let jobs: Vec<u32> = std::iter::from_fn(|| queue.take()).map(|(_, job)| job).collect();
        assert_eq!(jobs, [1, 3, 4]);
        assert_eq!(queue.remaining().collect::<Vec<_>>(), [2]);
    }
}
