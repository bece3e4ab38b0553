//! `wait-healthy`.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{is_healthy, refused};
use crate::exit_code::ExitCode;
use crate::failover::error::Error;
use crate::failover::observation::{Observation, ServerView};
use crate::failover::parts::Parts;
use crate::failover::pass::Checker;
use crate::failover::report::Report;

/// Waits until the pair is healthy, at most for `limit`. Acts in nothing.
///
/// # Errors
/// See [`Error`].
pub async fn wait_healthy(checker: &Checker<impl Parts>, limit: Duration) -> Result<(Report, ExitCode), Error> {
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        let look = checker.look().await?;
        let seconds = begun.elapsed().as_secs_f64();
        if is_healthy(&look) {
            let text = format!("healthy after {seconds:.1} s: {}", describe(&look.seen));
            return Ok((Report { text, json: json!({ "healthy": true, "seconds": seconds }) }, ExitCode::Done));
        }
        let words = format!("{} {}", look.decision.rule.id, look.decision.reason);
        if begun.elapsed() >= limit {
            return Err(refused(format!("not healthy after {seconds:.0} s: {words}"), "failover-check explain; is cron running?"));
        }
        if last != look.decision.rule.id {
            log::info!("waiting: {words}");
            look.decision.rule.id.clone_into(&mut last);
        }
        sleep(Duration::from_millis(250)).await;
    }
}

fn describe(seen: &Observation) -> String {
    let position = match &seen.primary.server {
        ServerView::Primary { status, .. } => format!(" at {}", status.flushed),
        _ => String::new(),
    };
    format!("primary {}{position}, standby {} in sync", seen.primary.name, seen.standby.name)
}
