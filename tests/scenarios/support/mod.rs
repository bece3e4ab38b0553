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
mod crowd;
mod disk;
mod docker;
mod engine;
mod held;
mod history;
mod installation;
pub mod network;
mod poller;
mod server;
pub mod table;
mod tuning;
mod writer;

use std::cell::RefCell;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::fcntl::Flock;

pub use checker::Checker;
pub use cron::Cron;
pub use crowd::Crowd;
pub use disk::SmallDisk;
pub use docker::{App, Node, others_that_run, stop_all};
pub use engine::{EngineDoor, Treatment};
pub use held::HeldClient;
pub use history::{Event, Watch};
pub use installation::Installation;
pub use tuning::Tuning;

use poller::WritablePoller;
use table::{Row, Story};
use writer::{Pace, Writer};

/// How long the pair may take to be whole again. A base backup on a busy machine is the slowest way there.
pub const HEALING: Duration = Duration::from_secs(180);

/// How long a failover may take here. The usual one takes well under a second, that of a frozen primary under five.
pub const FAILOVER: Duration = Duration::from_secs(60);

/// One story, from a healthy pair to a healthy pair.
pub struct Scenario {
    name: &'static str,
    /// None for what is no scenario of the fault list: a measurement, the soak.
    story: Option<Story>,
    installation: Installation,
    began: Timestamp,
    begun: Instant,
    epoch: u64,
    primary: Node,
    standby: Node,
    /// Settings that the story has changed.
    folder: tempfile::TempDir,
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
        Self::begin_with(name, Some(table::story(name)), Installation::open(), true, Pace::STEADY)
    }

    /// The same, with a writer that comes back within a few milliseconds, and without a row in the table.
    pub fn begin_measurement(name: &'static str) -> Self {
        Self::begin_with(name, None, Installation::open(), true, Pace::EAGER)
    }

    /// A healthy pair that only cron looks after. `None`, said aloud, where no cron file was laid down.
    pub fn begin_with_cron(name: &'static str) -> Option<Self> {
        let installation = Installation::open();
        let story = table::story(name);
        if !Cron::is_laid_down(&installation) {
            Row::skipped(&story, &installation.record(), "no cron file was laid down").write();
            eprintln!("{name}: skipped: '{}' was not laid down; with it, this scenario runs", Cron::file(&installation).display());
            return None;
        }
        Some(Self::begin_with(name, Some(story), installation, false, Pace::STEADY))
    }

    /// The same as [`Self::begin`], unless something stands against it. `None`, said aloud, where that is so.
    pub fn begin_unless(name: &'static str, against: impl FnOnce(&Installation) -> Option<String>) -> Option<Self> {
        let installation = Installation::open();
        let story = table::story(name);
        if let Some(why) = against(&installation) {
            Row::skipped(&story, &installation.record(), &why).write();
            eprintln!("{name}: skipped: {why}");
            return None;
        }
        Some(Self::begin_with(name, Some(story), installation, true, Pace::STEADY))
    }

    fn begin_with(name: &'static str, story: Option<Story>, installation: Installation, own_checker: bool, pace: Pace) -> Self {
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
            story,
            installation,
            began: Timestamp::now(),
            begun: Instant::now(),
            epoch: record.epoch,
            primary,
            standby,
            folder: tempfile::tempdir().unwrap(),
            checker: RefCell::new(checker),
            writer,
            poller,
            cron,
            _alone: alone,
        };
        // Its last word, should it not reach its end.
        if let Some(row) = scenario.row() {
            row.write();
        }
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

    /// The installation's settings, changed, as a file of the story's own.
    pub fn settings_with(&self, change: impl FnOnce(&mut toml::Table)) -> PathBuf {
        let text = std::fs::read_to_string(&self.installation.settings_file).unwrap();
        let mut settings: toml::Table = text.parse().unwrap();
        change(&mut settings);
        let file = self.folder.path().join("failover-check.toml");
        std::fs::write(&file, settings.to_string()).unwrap();
        file
    }

    /// Starts a checker that waits less than usual: for stories that are not about how long it waits.
    pub fn start_checker_with_thresholds(&self, thresholds: &[(&str, f64)]) {
        let settings = self.settings_with(|settings| change_thresholds(settings, thresholds));
        self.start_checker_with(&settings);
    }

    /// Starts a checker that talks to the Engine through a door of the story's own.
    pub fn start_checker_behind_a_door(&self) -> EngineDoor {
        let door = EngineDoor::open(self.folder.path(), self.installation.docker_socket());
        let settings = self.settings_with(|settings| {
            settings.insert("docker_socket".to_owned(), door.path().to_str().unwrap().into());
        });
        self.start_checker_with(&settings);
        door
    }

    /// Starts a checker that reaches both nodes through doors of its own, so that its network can be cut and the clients' not.
    pub fn start_checker_behind_doors(&self, thresholds: &[(&str, f64)]) -> [network::Door; 2] {
        let doors = [&self.primary, &self.standby].map(network::Door::open);
        let settings = self.settings_with(|settings| {
            change_thresholds(settings, thresholds);
            settings.insert("postgres_port".to_owned(), i64::from(network::DOOR).into());
        });
        self.start_checker_with(&settings);
        doors
    }

    /// Starts one more checker, as cron does each minute. Killed when dropped.
    pub fn start_another_checker(&self) -> Checker {
        Checker::start(&self.installation, &self.installation.settings_file, self.name)
    }

    /// Starts a checker whose clocks since boot are ahead by so many seconds.
    pub fn start_checker_ahead(&self, seconds: u32) {
        let mut checker = self.checker.borrow_mut();
        checker.take();
        *checker = Some(Checker::start_ahead(&self.installation, &self.installation.settings_file, self.name, seconds));
    }

    /// A client that holds its connection to the primary.
    pub fn hold_a_connection(&self) -> HeldClient {
        let client = HeldClient::connect(&self.installation.login(), &self.primary);
        self.wait_until("the held connection to serve", FAILOVER, || (client.acknowledged() > 0).then_some(()));
        client
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

    /// Waits until a rule has decided, since the story began.
    pub fn wait_for_rule(&self, rule: &str, limit: Duration) -> Event {
        self.wait_until(&format!("a decision by rule {rule}"), limit, || self.history().into_iter().find(|event| event.rule() == rule))
    }

    /// Checks for so long, again and again, that nothing has moved the primary.
    pub fn expect_no_failover_for(&self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.expect_no_failover();
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Follows the history's file from now on.
    pub fn watch(&self) -> Watch {
        Watch::begin(&self.installation)
    }

    /// Waits for an event in the history's file, within a millisecond.
    pub fn wait_to_see(&self, watch: &Watch, name: &str) {
        let begun = Instant::now();
        while !watch.has_seen(name) {
            if begun.elapsed() > FAILOVER {
                self.fail(&format!("waited in vain to see '{name}' written"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
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

    /// From the last row that was acknowledged before `node`'s first one after `since`, to that one.
    pub fn outage_until(&self, node: &Node, since: Instant) -> Option<Duration> {
        self.writer.outage_until(&node.name, since)
    }

    /// How long no row was acknowledged before the one that was acknowledged at `first`.
    pub fn gap_before(&self, first: Instant) -> Duration {
        first - self.writer.last_before(first).unwrap_or_else(|| self.fail("no row was acknowledged before"))
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
        self.ends(primary, most_writable, false);
    }

    /// The end of a story in which a person has given acknowledged rows up: some are lost, and nothing else is wrong.
    pub fn ends_with_a_loss_that_was_accepted(self, primary: &Node) {
        self.ends(primary, 1, true);
    }

    fn ends(self, primary: &Node, most_writable: usize, loss_accepted: bool) {
        self.wait_healthy();
        self.wait_for_writes(20);
        // On a busy machine one look may miss its deadline; an unhealthy pair stays unhealthy.
        self.wait_until("the status to call the pair healthy", HEALING, || {
            (self.installation.status_json()["healthy"] == serde_json::Value::Bool(true)).then_some(())
        });
        let recorded = self.installation.record().primary;
        let history = self.failure_context();
        let row = self.row();
        let report = self.writer.stop();
        let seen = self.poller.stop();
        eprintln!("{}: {report}; {seen}; took {:.1} s", self.name, self.begun.elapsed().as_secs_f64());

        let mut faults = Vec::new();
        if recorded != primary.name {
            faults.push(format!("the primary is {recorded}, not {}", primary.name));
        }
        if loss_accepted && report.lost.is_empty() {
            faults.push("no row was lost, so nothing was there to be accepted".to_owned());
        }
        if !loss_accepted && !report.lost.is_empty() {
            faults.push(format!("acknowledged rows are lost: {:?}", report.lost));
        }
        // None at all would say that the poller was blind, and proves nothing.
        if seen.most_writable != most_writable {
            faults.push(format!("at most {} nodes were writable at once, not {most_writable}: {}", seen.most_writable, seen.proof));
        }
        if let Some(row) = row {
            let given_up = if loss_accepted { report.lost.len() } else { 0 };
            Row {
                outcome: if faults.is_empty() { "passed" } else { "failed" }.to_owned(),
                rows_acknowledged: report.acknowledged,
                rows_lost: report.lost.len() - given_up,
                rows_given_up: given_up,
                most_writable_nodes: seen.most_writable,
                write_outage_seconds: report.longest_gap.as_secs_f64(),
                ..row
            }
            .write();
        }
        assert!(faults.is_empty(), "{}: {}\n{history}", self.name, faults.join("; "));
    }

    /// What the run's table says of this story, as far as the history and the record tell. Until its end is reached, it has failed.
    fn row(&self) -> Option<Row> {
        let mut rules: Vec<String> = Vec::new();
        for event in self.history() {
            if !event.rule().is_empty() && rules.last().is_none_or(|last| last != event.rule()) {
                rules.push(event.rule().to_owned());
            }
        }
        let record = self.installation.record();
        Some(Row {
            outcome: "failed".to_owned(),
            rules,
            primary: (self.primary.name.clone(), record.primary.clone()),
            epoch: (self.epoch, record.epoch),
            took_seconds: self.begun.elapsed().as_secs_f64(),
            ..Row::skipped(self.story.as_ref()?, &record, "")
        })
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

/// Sets thresholds in the settings.
pub fn change_thresholds(settings: &mut toml::Table, thresholds: &[(&str, f64)]) {
    let table = settings.entry("thresholds").or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
    for (name, value) in thresholds {
        let is_time = name.ends_with("_seconds");
        // The others are counts.
        let value = if is_time { (*value).into() } else { (value.round() as i64).into() };
        table.insert((*name).to_owned(), value);
    }
}
