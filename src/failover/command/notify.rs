//! `notify`: tells whoever is to be told. See [`crate::failover::notify`].

use serde_json::json;

use super::refused;
use crate::exit_code::ExitCode;
use crate::failover::error::Error;
use crate::failover::notify::{deliver, test};
use crate::failover::pass::Checker;
use crate::failover::report::Report;

/// Delivers what waits, or sends a test. Needs no turn: it changes nothing of the pair.
///
/// # Errors
/// When nobody is to be told, or a test was not taken.
pub async fn notify(checker: &Checker, only_a_test: bool) -> Result<(Report, ExitCode), Error> {
    let Some(settings) = &checker.settings.notify else {
        return Err(refused(
            "nobody is to be told",
            "name a webhook or a command in variables/target.yml (understudy_notify_…) and lay it down",
        ));
    };
    if only_a_test {
        return match test(settings).await {
            Ok(()) => Ok((Report { text: "the test was taken".to_owned(), json: json!({ "taken": true }) }, ExitCode::Done)),
            Err(failures) => Err(refused(failures.join("; "), "look at the receiver, and at understudy_notify_… in variables/target.yml")),
        };
    }
    let delivered = deliver(settings, &checker.settings.state_directory).await.map_err(Error::Journal)?;
    let text = match delivered {
        Some((delivered, failed)) => format!("{delivered} delivered, {failed} not"),
        None => "another failover-check delivers at this moment".to_owned(),
    };
    let json = json!({ "delivered": delivered.map(|(delivered, _)| delivered), "failed": delivered.map(|(_, failed)| failed) });
    Ok((Report { text, json }, ExitCode::Done))
}
