//! When to try again, and how long to wait before.

use std::time::Duration;

use super::error::Error;

/// The longest wait before the second attempt; each further one may take twice as long.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait that is not asked for.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest wait that a server may ask for by `Retry-After`.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(300);
/// After so many new bytes the count begins anew: a server that ends every connection after a while is slow, not broken.
const WORTH_IT: u64 = 1024 * 1024;

/// The attempts that failed, of one connection that brings a file.
#[derive(Debug, Clone)]
pub struct Attempts {
    allowed: u32,
    failed: u32,
    kept_at_failure: u64,
}

impl Attempts {
    /// With so many attempts after the first one.
    #[must_use]
    pub fn new(allowed: u32) -> Self {
        Self { allowed, failed: 0, kept_at_failure: 0 }
    }

    /// How long to wait before the next attempt. `kept` is how many bytes are there and stay, `left` the time until the deadline, `chance` a number from 0
    /// up to 1: attempts of many files at once should not come at once again.
    ///
    /// # Errors
    /// There is no next attempt, because it would not help, there were enough, or it would come too late.
    pub fn next(
        &mut self,
        error: Error,
        asked_for: Option<Duration>,
        kept: u64,
        left: Option<Duration>,
        chance: f64,
    ) -> Result<Duration, Error> {
        if !error.may_pass() {
            return Err(error);
        }
        if kept >= self.kept_at_failure.saturating_add(WORTH_IT) {
            self.failed = 0;
        }
        self.kept_at_failure = kept;
        if self.failed >= self.allowed {
            return Err(error);
        }
        self.failed += 1;
        let longest = FIRST.saturating_mul(2_u32.saturating_pow(self.failed - 1)).min(LONGEST);
        let wait = longest.mul_f64(chance);
        let Some(asked_for) = asked_for else { return Ok(wait) };
        if asked_for > LONGEST_ASKED_FOR || left.is_some_and(|left| asked_for >= left) {
            return Err(Error::WaitTooLong { wait: asked_for });
        }
        // Never before what was asked for, and not all in the same moment after it.
        Ok(asked_for + wait.min(FIRST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> Error {
        Error::Short { received: 1, expected: 2 }
    }

    #[test]
    fn waits_double_up_to_a_limit_and_end() {
        let mut attempts = Attempts::new(9);
        let waits: Vec<f64> =
            std::iter::from_fn(|| attempts.next(short(), None, 0, None, 1.0).ok()).map(|wait| wait.as_secs_f64()).collect();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert_eq!(Attempts::new(3).next(short(), None, 0, None, 0.5), Ok(Duration::from_millis(250)));
        assert_eq!(Attempts::new(0).next(short(), None, 0, None, 0.5), Err(short()));
    }

    #[test]
    fn progress_begins_the_count_anew() {
        let mut attempts = Attempts::new(1);
        for number in 1..20 {
            assert_eq!(attempts.next(short(), None, number * WORTH_IT, None, 1.0), Ok(FIRST));
        }
        assert_eq!(attempts.next(short(), None, 20 * WORTH_IT - 1, None, 1.0), Err(short()));
    }

    #[test]
    fn what_a_server_asks_for_is_kept_to_within_limits() {
        let seconds = Duration::from_secs;
        let busy = || Error::Status { status: 429, detail: String::new() };
        assert_eq!(Attempts::new(3).next(busy(), Some(seconds(7)), 0, None, 0.0), Ok(seconds(7)));
        assert_eq!(Attempts::new(3).next(busy(), Some(seconds(7)), 0, Some(seconds(5)), 0.0), Err(Error::WaitTooLong { wait: seconds(7) }));
        assert_eq!(Attempts::new(3).next(busy(), Some(seconds(301)), 0, None, 0.0), Err(Error::WaitTooLong { wait: seconds(301) }));
    }

    #[test]
    fn what_will_not_change_has_no_second_attempt() {
        let missing = Error::Status { status: 404, detail: String::new() };
        assert_eq!(Attempts::new(9).next(missing.clone(), None, 0, None, 1.0), Err(missing));
    }
}
