//! Tells a webhook and a command of what changes, and is never in the way of it.
//!
//! ```text
//!   events.jsonl ──(grew?)──► a pass starts `failover-check notify`, if none runs ──► webhook
//!        ▲                       a process of its own, which nobody waits for     └─► command
//!        └── whatever happens                    └─► notify.json: up to where, and what came of it
//! ```
//!
//! The journal is the queue: what was not told yet is what lies behind the offset in `notify.json`, whoever wrote it and whichever process died. So a
//! notification comes at least once, with the id that the event has in the journal, by which a receiver knows one that comes twice. Each attempt has a
//! deadline, attempts are few, and when more wait than [`MOST_WAITING`] the oldest are dropped and counted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use ureq::tls::{RootCerts, TlsConfig};

use super::counters::Counters;
use super::journal::JournalFile;
use crate::replace_file;

/// How many may wait; a receiver that was away for longer finds the rest in the journal.
pub const MOST_WAITING: usize = 50;
/// How much later than its deadline an attempt is given up from outside.
const GRACE: Duration = Duration::from_millis(500);
/// Before the second attempt, and before the third and last.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Whom to tell, and how long one attempt may take.
#[derive(Debug, Clone)]
pub struct NotifySettings {
    /// The file with the address to post each notification to. It is read where it is needed: a fault in it must not keep a pass from being made.
    pub webhook_file: Option<PathBuf>,
    /// The program that gets each notification on its standard input, with its arguments; empty for none.
    pub command: Vec<String>,
    /// How long one attempt may take.
    pub deadline: Duration,
    /// The settings file, for the process that is started.
    pub settings_file: PathBuf,
}

impl NotifySettings {
    /// Is there anybody to tell?
    #[must_use]
    pub fn has_receivers(&self) -> bool {
        self.webhook_file.is_some() || !self.command.is_empty()
    }
}

/// The address of a webhook. Whoever knows it may post there, so it is never shown in full.
#[derive(Clone)]
pub struct Webhook(reqwest::Url);

impl Webhook {
    /// Reads the file.
    ///
    /// # Errors
    /// Why there is none, in words; without the address.
    fn load(path: &Path) -> Result<Self, String> {
        let failed = |why: &str| format!("the webhook's file '{}': {why}", path.display());
        let text = fs::read_to_string(path).map_err(|error| failed(&error.to_string()))?;
        Self::parse(&text).map_err(failed)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let url: reqwest::Url = text.trim().parse().map_err(|_| "it holds no address")?;
        match url.scheme() {
            "http" | "https" if url.has_host() => Ok(Self(url)),
            _ => Err("it holds no http:// or https:// address"),
        }
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/…", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({self})")
    }
}

/// What became of notifications, over processes: `notify.json`. Only the process that holds `notify.lock` writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delivery {
    /// Up to where the journal has been told of.
    pub offset: u64,
    /// The tool alerted or refused when it was last heard of.
    attention: bool,
    /// Of the webhook.
    pub webhook: Results,
    /// Of the command.
    pub command: Results,
    /// Never tried, because too many waited.
    pub dropped: u64,
    /// Why the last one could not be delivered.
    pub last_failure: String,
}

/// What became of notifications to one receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// It took them.
    pub delivered: u64,
    /// It did not, in any attempt.
    pub failed: u64,
}

impl Delivery {
    fn load(path: &Path) -> Option<Self> {
        fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok())
    }

    fn save(&self, path: &Path) -> io::Result<()> {
        replace_file::write_unflushed(path, &serde_json::to_vec(self).map_err(io::Error::other)?)
    }

    /// Receiver, result and count, for the metrics.
    #[must_use]
    pub fn results(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("webhook", "delivered", self.webhook.delivered),
            ("webhook", "failed", self.webhook.failed),
            ("command", "delivered", self.command.delivered),
            ("command", "failed", self.command.failed),
        ]
    }

    fn failures(&self) -> u64 {
        self.webhook.failed + self.command.failed + self.dropped
    }
}

/// The part that lives in the process that makes passes.
#[derive(Debug)]
pub struct Notifier {
    settings: NotifySettings,
    files: Files,
    child: RefCell<Option<Child>>,
    /// How long the journal was when the process was last started: what it did not deliver then is left until there is more, or for the next minute's run.
    started_at: Cell<Option<u64>>,
}

#[derive(Debug, Clone)]
struct Files {
    state: PathBuf,
    lock: PathBuf,
}

impl Files {
    fn beside_the_record(state_directory: &Path) -> Self {
        Self { state: state_directory.join("notify.json"), lock: state_directory.join("notify.lock") }
    }

    /// The right to deliver; None where another process has it.
    fn lock(&self) -> io::Result<Option<Flock<File>>> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&self.lock)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

impl Notifier {
    /// For the installation whose state lies in `state_directory`.
    #[must_use]
    pub fn new(settings: NotifySettings, state_directory: &Path) -> Self {
        Self { settings, files: Files::beside_the_record(state_directory), child: RefCell::default(), started_at: Cell::new(None) }
    }

    /// Starts the process that delivers, where something waits and none runs. Says what could not be delivered since the last call.
    ///
    /// # Errors
    /// When the state cannot be read or written, or the process cannot be started.
    pub fn wake(&self, journal: &JournalFile, counters: &mut Counters) -> io::Result<Delivery> {
        let mut child = self.child.borrow_mut();
        if let Some(running) = child.as_mut()
            && running.try_wait()?.is_some()
        {
            *child = None;
        }
        let length = journal.length()?;
        let Some(delivery) = Delivery::load(&self.files.state) else {
            // What happened before there was anybody to be told is history.
            let delivery = Delivery { offset: length, ..Delivery::default() };
            delivery.save(&self.files.state)?;
            return Ok(delivery);
        };
        let failures = delivery.failures();
        if failures > counters.failures_logged {
            let count = failures - counters.failures_logged;
            log::warn!("{count} notification{} could not be delivered: {}", if count == 1 { "" } else { "s" }, delivery.last_failure);
        }
        counters.failures_logged = failures;
        let is_new = length != delivery.offset && self.started_at.get() != Some(length);
        if is_new && child.is_none() && self.files.lock()?.is_some() {
            // The program itself, also where its file was replaced by a newer one meanwhile. Nothing of this process is held open by it, so whoever waits for the
            // end of this one's output does not wait for that one; and in a group of its own, so that what ends this one lets it finish.
            let started = Command::new("/proc/self/exe")
                .arg0("failover-check")
                .arg("--settings")
                .arg(&self.settings.settings_file)
                .arg("notify")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()?;
            *child = Some(started);
            self.started_at.set(Some(length));
        }
        Ok(delivery)
    }
}

/// Delivers what waits, until nothing does. Returns how many were delivered and how many were not; None where another process is at it.
///
/// # Errors
/// When the journal or the state cannot be read or written.
pub async fn deliver(settings: &NotifySettings, state_directory: &Path) -> io::Result<Option<(u64, u64)>> {
    let files = Files::beside_the_record(state_directory);
    let Some(_lock) = files.lock()? else { return Ok(None) };
    let journal = JournalFile::new(state_directory.join("events.jsonl"));
    let messenger = Messenger::new(settings);
    let mut delivery = Delivery::load(&files.state).unwrap_or_default();
    let before = delivery.clone();
    loop {
        let mut waiting = VecDeque::new();
        let mut attention = delivery.attention;
        let mut dropped = 0;
        let end = journal.follow(delivery.offset, |event, behind| {
            if let Some(notification) = notification(&event, &mut attention) {
                if waiting.len() == MOST_WAITING {
                    waiting.pop_front();
                    dropped += 1;
                }
                waiting.push_back((notification, behind, attention));
            }
        })?;
        if dropped > 0 {
            delivery.dropped += dropped;
            delivery.last_failure = format!("more than {MOST_WAITING} waited");
        }
        for (notification, behind, attention) in waiting {
            messenger.tell(&notification, &mut delivery).await;
            delivery.offset = behind;
            delivery.attention = attention;
            delivery.save(&files.state)?;
        }
        if delivery.offset == end && dropped == 0 {
            break;
        }
        delivery.offset = end;
        delivery.attention = attention;
        delivery.save(&files.state)?;
    }
    let delivered = |delivery: &Delivery| delivery.webhook.delivered + delivery.command.delivered;
    Ok(Some((delivered(&delivery) - delivered(&before), delivery.failures() - before.failures())))
}

/// Sends one notification that says that it is a test, at once and in one attempt.
///
/// # Errors
/// Each receiver that did not take it, with the reason.
pub async fn test(settings: &NotifySettings) -> Result<(), Vec<String>> {
    let now = Timestamp::now();
    let notification =
        notification_of(&json!({ "at": now.to_string(), "id": format!("0-{:x}", now.as_nanosecond()) }), "test", "this is a test");
    let messenger = Messenger::new(settings);
    let (webhook, command) = tokio::join!(messenger.post(&notification), messenger.run(&notification));
    let failures: Vec<String> = [webhook, command].into_iter().filter_map(|result| result.err().map(|failure| failure.why)).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// The notification of an event; none where it changes nothing that anybody is told of. An alert ends with the first decision that is none.
fn notification(event: &Map<String, Value>, attention: &mut bool) -> Option<Value> {
    let word = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let (from, to, node, reason) = (word("from"), word("to"), word("node"), word("reason"));
    let (name, words) = match word("event") {
        "decision" => {
            let asks = matches!(word("action"), "alert" | "refuse");
            let was = std::mem::replace(attention, asks);
            match (word("action"), was) {
                ("refuse", _) => ("refused", format!("a person has to decide: {reason}")),
                ("alert", _) => ("alert", format!("a person should look: {reason}")),
                (_, true) => ("alert_ended", format!("the alert is over: {reason}")),
                (_, false) => return None,
            }
        }
        "would_have" => ("would_have", format!("observing only; would have done {}: {reason}", word("action"))),
        "failover_begun" => ("failover_begun", format!("failing over from {from} to {to}: {reason}")),
        "failover_finished" => ("failover_finished", format!("{to} is primary instead of {from}: {reason}")),
        "switchover_begun" => ("switchover_begun", format!("switching over from {from} to {to}: {reason}")),
        "switchover_finished" => ("switchover_finished", format!("{to} is primary instead of {from}: {reason}")),
        "rolled_back" => ("rolled_back", format!("{node} stays primary: {reason}")),
        "fenced_stray" => ("fenced_stray", format!("{node} took writes and was stopped: {reason}")),
        "dropped_to_async" => ("sync_lost", format!("commits go on without the standby: {reason}")),
        "marked_ineligible" => ("sync_lost", format!("the standby may not take over: {reason}")),
        "sync_restored" => ("sync_restored", "commits wait for the standby again".to_owned()),
        "app_restarted" => ("app_restarted", format!("the app was restarted: {reason}")),
        "paused" => ("paused", format!("paused by {}: {reason}", word("by"))),
        "pause_ended" => ("resumed", "the pause is over by itself".to_owned()),
        "resumed" => ("resumed", format!("resumed by {}", word("by"))),
        _ => return None,
    };
    Some(notification_of(&Value::Object(event.clone()), name, &words))
}

/// `text` is what chat programs show of a webhook.
fn notification_of(event: &Value, name: &str, words: &str) -> Value {
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    json!({
        "version": 1,
        "id": event.get("id"),
        "event": name,
        "at": event.get("at"),
        "epoch": event.get("epoch"),
        "host": host,
        "text": format!("understudy on {host}: {words}"),
        "details": event,
    })
}

/// Why an attempt failed, and whether another one may do better.
struct Failure {
    why: String,
    again: bool,
}

impl Failure {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: true }
    }
}

/// The part that talks to receivers.
struct Messenger<'a> {
    settings: &'a NotifySettings,
    webhook: Option<Result<Webhook, String>>,
    agent: ureq::Agent,
}

impl<'a> Messenger<'a> {
    fn new(settings: &'a NotifySettings) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(settings.deadline))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("understudy/", env!("CARGO_PKG_VERSION")))
            // The certificates that the host trusts, a company's own among them.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build()
            .into();
        Self { settings, webhook: settings.webhook_file.as_deref().map(Webhook::load), agent }
    }

    /// Tells both receivers, side by side, each in a few attempts.
    async fn tell(&self, notification: &Value, delivery: &mut Delivery) {
        let (webhook, command) =
            tokio::join!(in_attempts(async || self.post(notification).await), in_attempts(async || self.run(notification).await));
        for (results, outcome) in [(&mut delivery.webhook, webhook), (&mut delivery.command, command)] {
            match outcome {
                Ok(true) => results.delivered += 1,
                Ok(false) => {}
                Err(failure) => {
                    results.failed += 1;
                    delivery.last_failure = failure.why;
                }
            }
        }
    }

    /// One attempt; false where there is no webhook.
    async fn post(&self, notification: &Value) -> Result<bool, Failure> {
        let webhook = match &self.webhook {
            None => return Ok(false),
            Some(Ok(webhook)) => webhook.clone(),
            Some(Err(why)) => return Err(Failure { why: why.clone(), again: false }),
        };
        let id = notification.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (agent, body, url) = (self.agent.clone(), notification.to_string(), webhook.0.to_string());
        let posting = tokio::task::spawn_blocking(move || {
            let request = agent.post(&url).header("content-type", "application/json").header("idempotency-key", &id);
            // Some errors quote the address.
            request.send(body).map(|answer| answer.status()).map_err(|error| error.to_string().replace(&url, "…"))
        });
        let failed = |why: &str| Failure::new(format!("the webhook {webhook}: {why}"));
        // The agent keeps its deadline by itself; a name server that hangs is nothing that it can interrupt.
        let answered = timeout(self.settings.deadline + GRACE, posting).await.map_err(|_| failed("no answer within the deadline"))?;
        let status = answered.map_err(|error| failed(&error.to_string()))?.map_err(|why| failed(&why))?;
        if status.is_success() {
            return Ok(true);
        }
        // What the request itself is to blame for is not mended by another one.
        let again = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        Err(Failure { why: format!("the webhook {webhook} answered {}", status.as_u16()), again })
    }

    /// One attempt; false where there is no command. Past its deadline it is killed, with all that it started.
    async fn run(&self, notification: &Value) -> Result<bool, Failure> {
        let Some((program, arguments)) = self.settings.command.split_first() else { return Ok(false) };
        let failed = |why: String| Failure::new(format!("the command '{program}': {why}"));
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let input = child.stdin.take();
        let ended = timeout(self.settings.deadline, async {
            if let Some(mut input) = input {
                // One that does not read is one that does not need to.
                let _ = input.write_all(format!("{notification}\n").as_bytes()).await;
            }
            child.wait().await
        })
        .await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(true),
            Ok(Ok(status)) => Err(failed(status.to_string())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => {
                if let Some(group) = group {
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
                Err(failed("it did not end within the deadline and was killed".to_owned()))
            }
        }
    }
}

async fn in_attempts(attempt: impl AsyncFn() -> Result<bool, Failure>) -> Result<bool, Failure> {
    for pause in PAUSES {
        match attempt().await {
            Err(Failure { again: true, .. }) => sleep(pause).await,
            outcome => return outcome,
        }
    }
    attempt().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_never_shown_in_full() {
        let webhook = Webhook::parse("https://user:pw@hooks.example.org/services/T000/SECRET?token=SECRET\n").unwrap();
        assert_eq!(webhook.to_string(), "https://hooks.example.org/…");
        assert_eq!(format!("{webhook:?}"), "Webhook(https://hooks.example.org/…)");
        assert_eq!(Webhook::parse("hooks.example.org").err(), Some("it holds no address"));
        assert_eq!(Webhook::parse("file:///etc/passwd").err(), Some("it holds no http:// or https:// address"));
    }

    #[tokio::test]
    async fn a_webhook_over_tls_needs_nothing_of_the_process() {
        use tokio::io::AsyncReadExt as _;

        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let webhook_file = folder.path().join("webhook");
        fs::write(&webhook_file, format!("https://{}/secret", listener.local_addr().unwrap())).unwrap();
        let settings = NotifySettings {
            deadline: Duration::from_secs(5),
            webhook_file: Some(webhook_file),
            command: Vec::new(),
            settings_file: folder.path().join("settings"),
        };
        let first_byte = async { timeout(settings.deadline, listener.accept()).await.unwrap().unwrap().0.read_u8().await.unwrap() };
        let (messenger, notification) = (Messenger::new(&settings), json!({ "id": "1-a" }));
        let (posted, first_byte) = tokio::join!(messenger.post(&notification), first_byte);
        assert_eq!(first_byte, 0x16, "a handshake of TLS");
        let why = posted.err().unwrap().why;
        assert!(why.starts_with("the webhook https://127.0.0.1/…: ") && !why.contains("panic") && !why.contains("secret"), "{why}");
    }

    #[test]
    fn only_what_changes_something_is_told_and_an_alert_ends() {
        let mut attention = false;
        let mut told = |event: Value| {
            let Value::Object(event) = event else { panic!("an object") };
            notification(&event, &mut attention).map(|notification| notification["event"].as_str().unwrap().to_owned())
        };
        let decision = |action: &str| json!({ "id": "1-a", "event": "decision", "action": action, "reason": "x" });
        assert_eq!(told(decision("nothing")), None);
        assert_eq!(told(decision("alert")).as_deref(), Some("alert"));
        assert_eq!(told(json!({ "event": "node_started" })), None);
        assert_eq!(told(decision("wait")).as_deref(), Some("alert_ended"));
        assert_eq!(told(decision("nothing")), None);
        assert_eq!(told(decision("refuse")).as_deref(), Some("refused"));
        assert_eq!(told(decision("nothing")).as_deref(), Some("alert_ended"));
        for (event, name) in
            [("failover_begun", "failover_begun"), ("dropped_to_async", "sync_lost"), ("paused", "paused"), ("rolled_back", "rolled_back")]
        {
            assert_eq!(told(json!({ "event": event })).as_deref(), Some(name));
        }
    }
}
