//! The page as a person sees it: a real app with a real record and real events, in a real browser. Pictures are kept in `target/seeing`.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};
use understudy::failover::journal::{Journal, JournalFile};
use understudy::record::{NodeName, PastFailover, Pause, Record, RecordFile, RecordStore, Step, Transition, TransitionKind};

use super::browser::{Browser, Screen};
use super::running_app::RunningApp;

const DESKTOP: Screen = Screen { width: 1280, height: 900, dark: false };
const PHONE: Screen = Screen { width: 390, height: 844, dark: false };

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// An installation's folder, as `failover-check` would leave it.
struct Stage {
    app: RunningApp,
    record: RecordFile,
    journal: JournalFile,
}

impl Stage {
    async fn set() -> Self {
        let app = RunningApp::start(1).await;
        let record = RecordFile::new(app.folder().join("cluster.json"));
        let journal = JournalFile::new(app.folder().join("events.jsonl"));
        let stage = Self { app, record, journal };
        stage.record.save(&stage.healthy()).unwrap();
        stage.see("healthy");
        for (event, details) in [
            (
                "decision",
                json!({ "epoch": 1, "rule": "R400", "action": "nothing", "reason": "the primary is writable, the standby streams and commits wait for it, the app is ready" }),
            ),
            ("paused", json!({ "epoch": 1, "by": "ada", "reason": "moving the disk" })),
            ("resumed", json!({ "epoch": 1, "by": "ada" })),
        ] {
            stage.journal.append(event, details);
        }
        stage.tell_of_the_failover();
        stage
    }

    /// The events of the README's failover.
    fn tell_of_the_failover(&self) {
        let why = "the container runtime says that the primary does not run (exited with code 137)";
        let because = format!("R80: {why}");
        for (event, details) in [
            ("decision", json!({ "epoch": 1, "rule": "R80", "action": "failover", "reason": why })),
            ("failover_begun", json!({ "epoch": 1, "from": "pg-b", "to": "pg-a", "reason": because })),
            ("fenced", json!({ "epoch": 1, "node": "pg-b", "seconds": 0.006 })),
            ("replayed", json!({ "epoch": 1, "node": "pg-a", "seconds": 0.028 })),
            ("promote_requested", json!({ "epoch": 1, "node": "pg-a", "seconds": 0.03 })),
            ("writable", json!({ "epoch": 1, "node": "pg-a", "seconds": 0.111 })),
            ("recorded", json!({ "epoch": 2, "from": "pg-b", "to": "pg-a", "seconds": 0.113, "reason": because })),
            ("failover_finished", json!({ "epoch": 2, "from": "pg-b", "to": "pg-a", "reason": because })),
            ("app_ready", json!({ "epoch": 2 })),
            (
                "node_started",
                json!({ "epoch": 2, "node": "pg-b", "reason": "R320: the standby's container does not run (exited with code 137)" }),
            ),
            ("standby_streaming", json!({ "epoch": 2, "node": "pg-b" })),
            ("sync_restored", json!({ "epoch": 2, "node": "pg-b", "seconds": 0.184 })),
            (
                "decision",
                json!({ "epoch": 2, "rule": "R400", "action": "nothing", "reason": "the primary is writable, the standby streams and commits wait for it, the app is ready" }),
            ),
        ] {
            self.journal.append(event, details);
        }
    }

    fn healthy(&self) -> Record {
        Record {
            version: 1,
            epoch: 2,
            primary: node("pg-a"),
            standby_eligible: true,
            transition: None,
            paused: None,
            system_identifier: Some("7312".to_owned()),
            counted_since: None,
            failovers: vec![PastFailover { at: Timestamp::now(), from: node("pg-b"), to: node("pg-a"), epoch: 2, lossy: false }],
        }
    }

    /// What `failover-check` left in `status.json` in such a situation, with this moment's time: `tests/seeing/pages`.
    fn see(&self, situation: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/seeing/pages/{situation}.json"));
        let mut seen: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        seen["at"] = json!(Timestamp::now());
        let new = self.app.folder().join("status.json.new");
        fs::write(&new, seen.to_string()).unwrap();
        fs::rename(new, self.app.folder().join("status.json")).unwrap();
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.app.port())
    }
}

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/seeing").join(format!("{name}.png"))
}

/// On both screens, light and dark.
async fn keep_pictures(browser: &Browser, stage: &Stage, situation: &str) {
    for (name, screen) in [("desktop", DESKTOP), ("phone", PHONE)] {
        for (scheme, dark) in [("light", false), ("dark", true)] {
            if situation != "unwatched" {
                stage.see(situation);
            }
            browser.look_on(Screen { dark, ..screen }).await;
            let scrolls_sideways = browser.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth").await;
            assert_eq!(scrolls_sideways, json!(false), "{situation} on the {name}: nothing may stick out");
            browser.keep_picture(&picture(&format!("{situation}-{name}-{scheme}"))).await;
        }
    }
    browser.look_on(DESKTOP).await;
}

fn says(text: &str) -> String {
    format!("document.body.innerText.includes({})", json!(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_follows_the_pair_live_without_a_reload() {
    let stage = Stage::set().await;
    let browser = Browser::start(true).await;
    browser.look_on(DESKTOP).await;
    browser.open(&stage.url()).await;
    browser.until("the page to follow", "document.documentElement.classList.contains('follows')").await;
    browser.evaluate("window.sameDocument = true").await;
    browser.until("the headline", &says("All is well")).await;
    browser.until("the roles", "document.querySelector('.node.primary h2').innerText === 'pg-a'").await;
    assert_eq!(browser.evaluate("document.querySelectorAll('.event').length").await, json!(16));
    assert_eq!(browser.evaluate("document.querySelector('.mode').innerText").await, json!("sync"));
    // Colours, sizes and scripts come from the app itself, under its own policy.
    assert_eq!(browser.evaluate("getComputedStyle(document.querySelector('.headline')).borderLeftWidth").await, json!("6px"));
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    keep_pictures(&browser, &stage, "healthy").await;
    browser.evaluate("document.querySelector('details').open = true").await;

    // The lead is lost, and moves.
    let why = "R80: the container runtime says that the primary does not run (exited with code 137)";
    let mut record = stage.healthy();
    record.transition = Some(Transition {
        kind: TransitionKind::Failover,
        from: node("pg-a"),
        to: node("pg-b"),
        step: Step::Replayed,
        since: Timestamp::now(),
        lossy: false,
        reason: why.to_owned(),
    });
    stage.record.save(&record).unwrap();
    stage.journal.append("failover_begun", json!({ "epoch": 2, "from": "pg-a", "to": "pg-b", "reason": why }));
    stage.see("failing-over");
    browser.until("the failover", &says("Failing over: pg-a to pg-b")).await;
    browser.until("its step", "document.querySelector('.steps .now').innerText.includes('promotion asked for')").await;
    browser.until("its event", &says("Failover begun: pg-a to pg-b")).await;
    assert_eq!(browser.evaluate("document.querySelector('#said').textContent.startsWith('Failing over')").await, json!(true));
    assert_eq!(browser.evaluate("document.querySelector('details').open").await, json!(true), "what was opened stays open");
    assert!(browser.evaluate("document.title").await.as_str().unwrap().starts_with("→ Failing over"));
    keep_pictures(&browser, &stage, "failing-over").await;

    // It is refused.
    stage.record.save(&Record { standby_eligible: false, ..stage.healthy() }).unwrap();
    stage.see("refused");
    browser.until("the refusal", &says("A person has to decide")).await;
    browser.until("the command", &says("failover-check explain")).await;
    keep_pictures(&browser, &stage, "refused").await;

    // A person pauses the tool.
    let pause = Pause { since: Timestamp::now(), by: "ada".to_owned(), reason: "moving the disk <b>now</b>".to_owned(), until: None };
    stage.record.save(&Record { paused: Some(pause), ..stage.healthy() }).unwrap();
    stage.see("healthy");
    browser.until("the pause, as text", &says("By ada: moving the disk <b>now</b>.")).await;
    assert_eq!(browser.evaluate("document.querySelectorAll('b').length").await, json!(0));

    assert_eq!(browser.evaluate("window.sameDocument").await, json!(true), "it was never loaded again");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_loudly_when_nobody_watches_and_when_the_app_is_gone() {
    let mut stage = Stage::set().await;
    let status = stage.app.folder().join("status.json");
    let mut seen: Value = serde_json::from_str(&fs::read_to_string(&status).unwrap()).unwrap();
    seen["at"] = json!(Timestamp::now() - std::time::Duration::from_secs(200));
    let browser = Browser::start(true).await;
    browser.look_on(DESKTOP).await;
    browser.open(&stage.url()).await;
    browser.until("the headline", &says("All is well")).await;

    fs::write(&status, seen.to_string()).unwrap();
    browser.until("the dead man", &says("Nobody watches")).await;
    browser.until("the age", &says("last look 3 min ago")).await;
    assert_eq!(browser.evaluate("document.querySelectorAll('.pair.old').length").await, json!(1));
    keep_pictures(&browser, &stage, "unwatched").await;

    stage.app.stop();
    stage.app.ended().await;
    browser.until("the banner", "!document.querySelector('#lost').hidden && document.body.innerText.includes('What you see is old')").await;
    browser.keep_picture(&picture("lost-desktop-light")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_whole_without_scripts_and_to_those_who_do_not_see_it() {
    let stage = Stage::set().await;
    let browser = Browser::start(false).await;
    browser.look_on(DESKTOP).await;
    browser.open(&stage.url()).await;
    let spoken = browser.spoken().await;
    for words in [
        "heading: All is well",
        "image: well",
        "heading: pg-a",
        "image: log from pg-a to pg-b: sync",
        "commits wait for the standby",
        "heading: Failover finished: pg-a is primary",
        "a snapshot of",
        "link: reload",
        "link: To the state of the pair",
    ] {
        assert!(spoken.contains(words), "{words} in\n{spoken}");
    }
    assert!(!spoken.contains("What you see is old"), "{spoken}");
    browser.keep_picture(&picture("without-scripts-desktop-light")).await;
}
