//! The page at `/` as the bytes that are served. What a browser makes of it is in `tests/seeing`.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::free_port;
use super::running_app::{Answer, RunningApp};

/// Longer than an answer is kept for others who ask.
const FRESH: Duration = Duration::from_millis(300);

fn status(at: Timestamp) -> Value {
    json!({
        "version": 1, "at": at, "error": null, "remedy": null,
        "status": {
            "standby_eligible": true,
            "decision": { "rule": "R400", "sentence": "all is well", "action": "nothing", "because": "the primary is writable" },
            "nodes": {
                "pg-a": { "container": "running", "server": "primary", "timeline": 4, "flushed": "0/3000148", "standby_streams": true, "standby_synchronous": true },
                "pg-b": { "container": "running", "server": "standby", "timeline": 4, "received": "0/3000148", "streaming": true },
            },
            "app": { "state": "ready" },
        },
        "gates": ["standby can take over without loss: yes"],
        "standby_behind": { "bytes": 312, "age_seconds": 0.0 },
    })
}

fn write(app: &RunningApp, name: &str, content: &str) {
    fs::write(app.folder().join(name), content).unwrap();
}

async fn page(app: &RunningApp) -> String {
    tokio::time::sleep(FRESH).await;
    let answer = app.get("/").await;
    assert_eq!(answer.status, 200);
    answer.text().to_owned()
}

#[tokio::test]
async fn it_shows_the_pair_and_what_happened_to_it() {
    let app = RunningApp::start(free_port()).await;
    app.name_primary("pg-a", 4);
    write(&app, "status.json", &status(Timestamp::now()).to_string());
    write(
        &app,
        "events.jsonl",
        "{\"at\":\"2026-11-21T08:01:08Z\",\"event\":\"failover_finished\",\"id\":\"4-1\",\"epoch\":4,\"from\":\"pg-b\",\"to\":\"pg-a\"}\n",
    );

    let html = page(&app).await;

    for words in
        ["All is well", "pg-a takes writes, pg-b can step in", "312 bytes", "0/3000148", "R400", "Failover finished: pg-a is primary"]
    {
        assert!(html.contains(words), "{words} in\n{html}");
    }
    let seen: Value = app.get("/status.json").await.body;
    assert_eq!((&seen["headline"]["level"], &seen["epoch"], &seen["link"]["state"]), (&json!("good"), &json!(4), &json!("sync")));
    assert_eq!(seen["events"][0]["id"], "4-1");
}

#[tokio::test]
async fn it_lets_nothing_in_from_elsewhere_and_is_never_kept() {
    let app = RunningApp::start(free_port()).await;
    let page: Answer = app.get("/").await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
    assert_eq!((page.header("cache-control"), page.header("x-content-type-options")), ("no-store", "nosniff"));
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    for path in ["/", "/page.css", "/page.js", "/icon.svg"] {
        let text = app.get(path).await.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{path} names another place");
        assert!(!text.contains(" style=") && !text.contains("onclick"), "{path} has what the policy forbids");
    }
}

#[tokio::test]
async fn whatever_the_files_hold_stays_text() {
    let app = RunningApp::start(free_port()).await;
    let hostile = r#"</title><script>alert(1)</script><img src=x onerror=alert(2)>"'&"#;
    app.write_record(
        &json!({
            "version": 1, "epoch": 4, "primary": hostile, "standby_eligible": false, "system_identifier": null, "failovers": [],
            "transition": { "kind": hostile, "from": hostile, "to": hostile, "step": hostile, "since": "x", "lossy": false, "reason": hostile },
            "paused": { "since": "2026-11-21T08:00:00Z", "by": hostile, "reason": hostile },
        })
        .to_string(),
    );
    let mut seen = status(Timestamp::now());
    seen["status"]["decision"] = json!({ "rule": hostile, "sentence": hostile, "action": hostile, "because": hostile });
    seen["status"]["nodes"] =
        json!({ hostile: { "container": hostile, "container_detail": hostile, "server": hostile, "flushed": hostile } });
    seen["status"]["app"] = json!({ "state": hostile, "why": hostile });
    seen["gates"] = json!([hostile]);
    for content in [seen, json!({ "version": 1, "at": Timestamp::now(), "error": hostile, "remedy": hostile })] {
        write(&app, "status.json", &content.to_string());
        let event = json!({ "at": hostile, "event": hostile, "id": hostile, "reason": hostile, "rule": hostile, "node": hostile });
        let known = json!({ "at": "2026-11-21T08:00:00Z", "event": "paused", "by": hostile, "to": hostile });
        write(&app, "events.jsonl", &format!("{event}\n{known}\n"));

        let html = page(&app).await;

        assert!(html.contains("&lt;script&gt;alert(1)"), "the text itself is shown:\n{html}");
        assert!(!html.contains("<script>alert") && !html.contains("<img"), "{html}");
        assert_eq!(html.matches("</title>").count(), 1, "{html}");
        // In an attribute the quote is what would end it.
        assert!(!html.contains("onerror=alert(2)>\""), "{html}");
        assert_eq!(html.matches("<script").count(), 1, "only the page's own");
    }
}

#[tokio::test]
async fn without_files_with_old_ones_and_with_broken_ones_it_says_what_it_does_not_know() {
    let app = RunningApp::start(free_port()).await;
    assert!(page(&app).await.contains("The record cannot be read"));

    app.name_primary("pg-a", 1);
    let html = page(&app).await;
    assert!(html.contains("Nobody watches") && html.contains("status.json cannot be read"), "{html}");

    write(&app, "status.json", &status(Timestamp::now() - Duration::from_secs(300)).to_string());
    let html = page(&app).await;
    assert!(html.contains("Nobody watches") && html.contains("5 min ago") && html.contains("not known now"), "{html}");
    assert!(!html.contains("All is well"), "{html}");

    for (name, content, words) in [
        ("status.json", "{", "status.json is not valid"),
        ("status.json", r#"{"version":9}"#, "status.json has version 9"),
        ("events.jsonl", "no json\n{\"event\":\"paused\",\"by\":\"ada\"}\n[1]\n\u{0}\n", "Paused by ada"),
        ("cluster.json", "", "cluster.json is not valid"),
    ] {
        write(&app, name, content);
        let html = page(&app).await;
        assert!(html.contains(words), "{words} in\n{html}");
    }
}

#[tokio::test]
async fn a_hundred_viewers_do_not_keep_probes_waiting() {
    let app = RunningApp::start(free_port()).await;
    app.name_primary("pg-a", 1);
    write(&app, "events.jsonl", &"{\"event\":\"decision\",\"reason\":\"x\"}\n".repeat(100_000));
    let viewers = futures_util::future::join_all((0..100).map(|_| app.get("/")));
    let probe = async {
        let begun = std::time::Instant::now();
        assert_eq!(app.get("/health").await.status, 200);
        begun.elapsed()
    };
    let (pages, waited) = tokio::join!(viewers, probe);
    assert!(pages.iter().all(|page| page.status == 200 && page.text().len() < 100_000), "the end of the events only");
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}
