//! What makes a scenario read like a story.
//!
//! ```text
//!   let scenario = Scenario::begin("postmaster_killed");   // a healthy pair, a checker, a writer, a poller
//!   let (lost, heir) = scenario.roles();
//!   lost.kill_postmaster();                                // the accident
//!   scenario.expect_failover("R80");                       // the decision and its reason in the history
//!   scenario.ends_healed(&heir);                           // nothing lost, never two writable, the pair whole again
//! ```

mod checker;
mod cron;
mod docker;
mod history;
mod installation;
mod poller;
mod server;
mod writer;

use std::cell::RefCell;
use std::fs::File;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::fcntl::Flock;

pub use cron::Cron;
pub use docker::{App, Node, stop_all};
pub use history::Event;
pub use installation::Installation;

use checker::Checker;
use poller::WritablePoller;
use writer::{Pace, Writer};

/// How long the pair may take to be whole again. A base backup on a busy machine is the slowest way there.
pub const HEALING: Duration = Duration::from_secs(180);

/// How long a failover may take here. The usual one takes well under a second, that of a frozen primary under five.
pub const FAILOVER: Duration = Duration::from_secs(60);

/// One story, from a healthy pair to a healthy pair.
pub struct Scenario {
    name: &'static str,
    installation: Installation,
    began: Timestamp,
    primary: Node,
    standby: Node,
    checker: RefCell<Option<Checker>>,
    writer: Writer,
    poller: WritablePoller,
    // Dropped last, in this order: cron comes back before another scenario may begin.
    cron: Cron,
    _alone: Flock<File>,
}

impl Scenario {
    /// A healthy pair, with a checker of its own, and with cron's file set aside.
    pub fn begin(name: &'static str) -> Self {
        Self::begin_with(name, Installation::open(), true, Pace::STEADY)
    }

    /// The same, with a writer that comes back within a few milliseconds.
    pub fn begin_measurement(name: &'static str) -> Self {
        Self::begin_with(name, Installation::open(), true, Pace::EAGER)
    }

    /// A healthy pair that only cron looks after. `None`, said aloud, where no cron file was laid down.
    pub fn begin_with_cron(name: &'static str) -> Option<Self> {
        let installation = Installation::open();
        if !Cron::is_laid_down(&installation) {
            eprintln!("{name}: skipped: '{}' was not laid down; with it, this scenario runs", Cron::file(&installation).display());
            return None;
        }
        Some(Self::begin_with(name, installation, false, Pace::STEADY))
    }

    fn begin_with(name: &'static str, installation: Installation, own_checker: bool, pace: Pace) -> Self {
        let alone = installation.alone();
        // It may run the playbook, which lays cron's file down, so it comes before that is set aside.
        installation.put_right();
        let cron = if own_checker { Cron::set_aside(&installation) } else { Cron::put_back(&installation) };
        let checker = own_checker.then(|| Checker::start(&installation, &installation.settings_file, name));
        installation.wait_healthy(HEALING);
        let record = installation.record();
        let primary = installation.node(&record.primary);
        let standby = installation.other_node(&record.primary);
        let login = installation.login();
        let writer = Writer::start(&login, name, pace);
        let poller = WritablePoller::start(&login);
        let scenario = Self {
            name,
            installation,
            began: Timestamp::now(),
            primary,
            standby,
            checker: RefCell::new(checker),
            writer,
            poller,
            cron,
            _alone: alone,
        };
        scenario.wait_for_writes(20);
        scenario
    }

    /// Who was primary and who was standby when the story began.
    pub fn roles(&self) -> (Node, Node) {
        (self.primary.clone(), self.standby.clone())
    }

    /// The app.
    pub fn app(&self) -> App {
        self.installation.app()
    }

    /// The installation under test.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Runs the playbook again, which creates what is missing; a checker of the scenario's own stays the only one.
    pub fn lay_down(&self) {
        self.installation.lay_down();
        if self.checker.borrow().is_some() {
            self.cron.set_aside_again();
        }
    }

    /// Kills the checker at once, as `kill -9` does.
    pub fn kill_checker(&self) {
        self.checker.borrow_mut().take();
    }

    /// Starts a checker with the installation's own settings.
    pub fn start_checker(&self) {
        let settings = self.installation.settings_file.clone();
        self.start_checker_with(&settings);
    }

    /// Starts a checker with other settings.
    pub fn start_checker_with(&self, settings: &std::path::Path) {
        let mut checker = self.checker.borrow_mut();
        // The old one first: two would only take over from each other.
        checker.take();
        *checker = Some(Checker::start(&self.installation, settings, self.name));
    }

    /// What happened since the story began, or since `mark`.
    pub fn history_since(&self, mark: Timestamp) -> Vec<Event> {
        history::read(&self.installation).into_iter().filter(|event| event.at() >= mark).collect()
    }

    /// What happened since the story began.
    pub fn history(&self) -> Vec<Event> {
        self.history_since(self.began)
    }

    /// Waits until `look` finds something; says what it waited for, the status and the last of the history when not.
    pub fn wait_until<T>(&self, what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if begun.elapsed() > limit {
                self.fail(&format!("waited {limit:?} in vain for {what}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for an event, since the story began.
    pub fn wait_for_event(&self, name: &str, limit: Duration) -> Event {
        self.wait_for_event_since(self.began, name, limit)
    }

    /// Waits for an event since `mark`.
    pub fn wait_for_event_since(&self, mark: Timestamp, name: &str, limit: Duration) -> Event {
        self.wait_until(&format!("the event '{name}'"), limit, || self.history_since(mark).into_iter().find(|event| event.name() == name))
    }

    /// Waits until the record's transition is under way, by looking at the record itself, which is quickest.
    pub fn wait_for_transition(&self) {
        let begun = Instant::now();
        while !self.installation.record().in_transition {
            if begun.elapsed() > FAILOVER {
                self.fail("waited in vain for a transition to begin");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the failover away from the first primary, and checks which rule decided it.
    pub fn expect_failover(&self, rule: &str) {
        self.expect_failover_within(rule, FAILOVER);
    }

    /// The same, with another limit.
    pub fn expect_failover_within(&self, rule: &str, limit: Duration) {
        self.wait_until("the failover", limit, || {
            let record = self.installation.record();
            (record.primary == self.standby.name && !record.in_transition).then_some(())
        });
        self.expect_failover_since(self.began, &self.primary, &self.standby, rule);
    }

    /// Waits for a failover since `mark`, and checks who, whom and which rule, in each event that tells it. A checker
    /// that is killed between writing the record and the history leaves one of them out, never all.
    pub fn expect_failover_since(&self, mark: Timestamp, from: &Node, to: &Node, rule: &str) {
        const TELLING: [&str; 3] = ["failover_begun", "recorded", "failover_finished"];
        let telling = self.wait_until("the failover to be told", FAILOVER, || {
            let record = self.installation.record();
            let telling: Vec<Event> = self.history_since(mark).into_iter().filter(|event| TELLING.contains(&event.name())).collect();
            let done = record.primary == to.name && !record.in_transition;
            (done && !telling.is_empty()).then_some(telling)
        });
        for event in telling {
            if event.rule() != rule || event.text("from") != from.name || event.text("to") != to.name || event.reason().is_empty() {
                self.fail(&format!("expected a failover from {} to {} by rule {rule}, found: {event}", from.name, to.name));
            }
        }
    }

    /// Checks that something has not happened since the story began.
    pub fn expect_no(&self, name: &str) {
        if let Some(event) = self.history().into_iter().find(|event| event.name() == name) {
            self.fail(&format!("expected no '{name}', found: {event}"));
        }
    }

    /// Checks that nothing has moved the primary since the story began.
    pub fn expect_no_failover(&self) {
        self.expect_no("failover_begun");
        self.expect_no("switchover_begun");
        let primary = self.installation.record().primary;
        if primary != self.primary.name {
            self.fail(&format!("expected the primary to stay {}, but it is {primary}", self.primary.name));
        }
    }

    /// Waits until that many more rows are acknowledged from now on.
    pub fn wait_for_writes(&self, rows: usize) {
        let wanted = self.writer.acknowledged() + rows;
        self.wait_until(&format!("{rows} more acknowledged rows"), FAILOVER, || (self.writer.acknowledged() >= wanted).then_some(()));
    }

    /// When `node` first acknowledged a row after `since`, waiting for it.
    pub fn first_write_by(&self, node: &Node, since: Instant) -> Instant {
        self.wait_until(&format!("a row acknowledged by {}", node.name), FAILOVER, || self.writer.first_by(&node.name, since))
    }

    /// Waits until the app says that it is ready.
    pub fn wait_for_app(&self, limit: Duration) {
        let app = self.app();
        self.wait_until("the app to be ready", limit, || app.is_ready().then_some(()));
    }

    /// Waits until the pair is whole.
    pub fn wait_healthy(&self) {
        self.installation.wait_healthy(HEALING);
    }

    /// No row is written any more, until [`Self::go_on_writing`].
    pub fn hold_writing(&self) {
        self.writer.hold(true);
    }

    /// The end of [`Self::hold_writing`].
    pub fn go_on_writing(&self) {
        self.writer.hold(false);
    }

    /// Waits until the poller has seen that many nodes take writes at once.
    pub fn wait_for_writable_nodes(&self, count: usize) {
        let what = format!("{count} nodes to be writable at once");
        self.wait_until(&what, FAILOVER, || (self.poller.report().most_writable == count).then_some(()));
    }

    /// The end of every story: the pair is whole, `primary` is primary, writes go on, every acknowledged row is
    /// there, and there were never two writable nodes.
    pub fn ends_healed(self, primary: &Node) {
        self.ends_healed_after(primary, 1);
    }

    /// The end of a story in which a person has made that many nodes writable.
    pub fn ends_healed_after(self, primary: &Node, most_writable: usize) {
        self.wait_healthy();
        self.wait_for_writes(20);
        let status = self.installation.status_json();
        let recorded = self.installation.record().primary;
        let history = self.failure_context();
        let report = self.writer.stop();
        let seen = self.poller.stop();
        eprintln!("{}: {report}; {seen}", self.name);

        let mut faults = Vec::new();
        if recorded != primary.name {
            faults.push(format!("the primary is {recorded}, not {}", primary.name));
        }
        if status["healthy"] != serde_json::Value::Bool(true) {
            faults.push("the status does not call the pair healthy".to_owned());
        }
        if !report.lost.is_empty() {
            faults.push(format!("acknowledged rows are lost: {:?}", report.lost));
        }
        // None at all would say that the poller was blind, and proves nothing.
        if seen.most_writable != most_writable {
            faults.push(format!("at most {} nodes were writable at once, not {most_writable}: {}", seen.most_writable, seen.proof));
        }
        assert!(faults.is_empty(), "{}: {}\n{history}", self.name, faults.join("; "));
    }

    /// Ends the test with what a person would look at first.
    pub fn fail(&self, why: &str) -> ! {
        panic!("{}: {why}\n{}", self.name, self.failure_context())
    }

    fn failure_context(&self) -> String {
        let log = self.checker.borrow().as_ref().map_or_else(String::new, Checker::last_words);
        format!("{}{log}", self.installation.context())
    }
}
