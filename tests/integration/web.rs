//! The app as whoever probes it sees it.

// The page at `/`.
mod page;
// Starts the app, writes its record, asks it.
mod running_app;
// A PostgreSQL server that lives as long as its test.
mod throwaway_server;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use running_app::{DEADLINE, RunningApp};
use throwaway_server::ThrowawayServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a busy machine may add to the deadline before the answer is here.
const SLACK: Duration = Duration::from_millis(400);

/// A port that nothing listens on, on any of the loopback addresses.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn without_a_record_it_lives_and_is_not_ready() {
    let app = RunningApp::start(free_port()).await;

    let ready = app.get("/ready").await;
    assert_eq!(app.get("/health").await.status, 200);
    assert_eq!(ready.status, 503);
    assert_eq!(ready.header("cache-control"), "no-store");
    assert_eq!(ready.body["cause"], "primary_unknown");
    assert_eq!(ready.body["primary"], serde_json::Value::Null);
    assert!(ready.reason().contains("No such file"), "{}", ready.reason());
}

#[tokio::test]
async fn a_primary_that_refuses_connections_is_named_with_the_cause() {
    let app = RunningApp::start(free_port()).await;
    app.name_primary("127.0.0.2", 7);

    let ready = app.wait_for("the record to be read", |ready| ready.body["epoch"] == 7).await;

    assert_eq!(ready.status, 503);
    assert_eq!(ready.body["cause"], "unreachable");
    assert_eq!(ready.reason(), "the primary '127.0.0.2' cannot be reached: connection refused");
}

#[tokio::test]
async fn a_primary_that_accepts_and_never_answers_costs_no_more_than_the_deadline() {
    let silent = TcpListener::bind(("127.0.0.2", 0)).unwrap();
    let app = RunningApp::start(silent.local_addr().unwrap().port()).await;
    app.name_primary("127.0.0.2", 1);
    app.wait_for("the record to be read", |ready| ready.body["epoch"] == 1).await;

    // More at once than the pool has connections: those that wait for one have the same deadline.
    let begun = Instant::now();
    let checks = (0..10).map(|_| app.get("/ready"));
    let answers = futures_util::future::join_all(checks).await;

    assert!(begun.elapsed() < DEADLINE + SLACK, "{:?}", begun.elapsed());
    for answer in answers {
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body["cause"], "deadline_passed");
        assert_eq!(answer.reason(), "the primary '127.0.0.2' did not answer within 500ms");
    }
    assert_eq!(app.get("/health").await.status, 200);
}

#[tokio::test]
async fn while_it_asks_a_silent_primary_a_new_record_is_heeded_at_once() {
    let silent = TcpListener::bind(("127.0.0.2", 0)).unwrap();
    let app = RunningApp::start(silent.local_addr().unwrap().port()).await;
    app.name_primary("127.0.0.2", 1);
    app.wait_for("the record to be read", |ready| ready.body["epoch"] == 1).await;

    let (answer, ()) = tokio::join!(app.get("/ready"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        app.name_primary("127.0.0.3", 2);
    });

    assert_eq!(answer.body["primary"], "127.0.0.3");
    assert_eq!(answer.body["cause"], "unreachable");
}

#[tokio::test]
async fn a_corrupt_or_newer_record_keeps_the_last_known_primary() {
    let app = RunningApp::start(free_port()).await;
    app.name_primary("127.0.0.2", 3);
    app.wait_for("the record to be read", |ready| ready.body["epoch"] == 3).await;

    for (content, words) in [("{", "is not valid"), (r#"{"version":2}"#, "has version '2', newer than '1'")] {
        app.write_record(content);
        let ready = app.wait_for(words, |ready| ready.reason().contains(words)).await;
        assert_eq!(ready.body["primary"], "127.0.0.2");
        assert!(ready.reason().contains("the last known primary is kept"), "{}", ready.reason());
    }
    app.remove_record();
    app.wait_for("the missing record to be told", |ready| ready.reason().contains("cannot read the record")).await;
    assert!(app.metric("understudy_record_read_failures_total").await >= 3.0);
}

#[tokio::test]
async fn head_is_answered_like_get_without_a_body_and_nothing_else_is_allowed() {
    let app = RunningApp::start(free_port()).await;

    for (path, status) in [
        ("/health", 200),
        ("/ready", 503),
        ("/metrics", 200),
        ("/", 200),
        ("/status.json", 200),
        ("/page.css", 200),
        ("/page.js", 200),
        ("/icon.svg", 200),
    ] {
        let answer = raw_request(&app, "HEAD", path).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        assert_eq!(body, "", "{path}");

        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = raw_request(&app, method, path).await;
            assert!(answer.starts_with("HTTP/1.1 405 "), "{method} {path}: {answer}");
            assert!(answer.to_lowercase().contains("allow: get, head"), "{method} {path}: {answer}");
        }
    }
    let unknown = app.get("/nowhere").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.body["paths"][3], "/ready");
}

/// One request on a connection of its own, as the bytes that came back.
async fn raw_request(app: &RunningApp, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", app.port())).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.expect("an answer that ends").unwrap();
    answer
}

#[tokio::test]
async fn it_says_that_it_shuts_down_before_it_is_gone() {
    let mut app = RunningApp::start(free_port()).await;
    assert_eq!(app.get("/health").await.status, 200);

    app.stop();
    let ready = app.wait_for("the shutdown to be announced", |ready| ready.body["cause"] == "shutting_down").await;
    assert_eq!(ready.status, 503);
    assert_eq!(app.get("/health").await.status, 200);

    tokio::time::timeout(Duration::from_secs(8), app.ended()).await.expect("the app is gone before docker would kill it");
}

#[tokio::test]
async fn a_real_primary_is_ready_and_a_frozen_one_is_not() {
    let port = free_port();
    let server = ThrowawayServer::primary("127.0.0.2", port);
    let app = RunningApp::start(port).await;
    app.name_primary("127.0.0.2", 1);

    let ready = app.wait_for("the primary to answer", |ready| ready.status == 200).await;
    assert_eq!(ready.body["status"], "ready");
    assert_eq!(ready.body["cause"], serde_json::Value::Null);
    assert_eq!(ready.body["reason"], serde_json::Value::Null);
    assert_eq!(ready.body["in_recovery"], false);
    assert_eq!(ready.body["read_only"], false);
    assert_eq!(app.metric("understudy_ready").await, 1.0);
    assert_eq!(app.metric("understudy_record_epoch").await, 1.0);
    assert!(app.metric("understudy_pool_connections").await >= 1.0);
    assert_eq!(app.metric("understudy_pool_size").await, 4.0);

    server.freeze();
    for _ in 0..3 {
        let begun = Instant::now();
        let frozen = app.get("/ready").await;
        assert!(begun.elapsed() < DEADLINE + SLACK, "{:?}", begun.elapsed());
        assert_eq!(frozen.status, 503);
        assert_eq!(frozen.body["cause"], "deadline_passed");
    }
    assert_eq!(app.metric("understudy_ready").await, 0.0);
    assert_eq!(app.metric("understudy_pool_connections").await, 0.0, "connections that were abandoned are thrown away");

    server.thaw();
    app.wait_for("the thawed primary to answer", |ready| ready.status == 200).await;
}

#[tokio::test]
async fn it_follows_the_record_to_another_primary_without_a_restart() {
    let port = free_port();
    let first = ThrowawayServer::primary("127.0.0.2", port);
    let second = ThrowawayServer::primary("127.0.0.3", port);
    let app = RunningApp::start(port).await;
    app.name_primary("127.0.0.2", 1);
    app.wait_for("the first primary", |ready| ready.status == 200).await;
    assert_eq!(first.connections_of_the_app().await, 1);

    app.name_primary("127.0.0.3", 2);

    let ready = app.wait_for("the second primary", |ready| ready.status == 200 && ready.body["epoch"] == 2).await;
    assert_eq!(ready.body["primary"], "127.0.0.3");
    assert_eq!(app.metric("understudy_primary_changes_total").await, 1.0);
    assert_eq!(second.connections_of_the_app().await, 1);
    assert_eq!(first.connections_of_the_app().await, 0, "idle connections to the old primary are dropped");
}

#[tokio::test]
async fn the_last_known_primary_keeps_it_ready_when_the_record_is_gone() {
    let port = free_port();
    let _server = ThrowawayServer::primary("127.0.0.2", port);
    let app = RunningApp::start(port).await;
    app.name_primary("127.0.0.2", 1);
    app.wait_for("the primary to answer", |ready| ready.status == 200).await;

    app.remove_record();

    let ready = app.wait_for("the missing record to be told", |ready| ready.reason().contains("cannot read the record")).await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.body["primary"], "127.0.0.2");
}

#[tokio::test]
async fn a_standby_or_a_read_only_primary_is_not_ready() {
    let port = free_port();
    let _standby = ThrowawayServer::standby("127.0.0.2", port);
    let _read_only = ThrowawayServer::read_only("127.0.0.3", port);
    let app = RunningApp::start(port).await;

    app.name_primary("127.0.0.2", 1);
    let ready = app.wait_for("the standby to answer", |ready| ready.body["cause"] == "in_recovery").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body["in_recovery"], true);

    app.name_primary("127.0.0.3", 2);
    let ready = app.wait_for("the read-only primary to answer", |ready| ready.body["cause"] == "read_only").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body["in_recovery"], false);
    assert_eq!(ready.body["read_only"], true);
}

#[tokio::test]
async fn a_changed_password_needs_no_restart() {
    let port = free_port();
    let _server = ThrowawayServer::primary("127.0.0.2", port);
    let app = RunningApp::start_with_password(port, "wrong").await;
    app.name_primary("127.0.0.2", 1);
    let refused = app.wait_for("the wrong password to be refused", |ready| ready.body["cause"] == "password_refused").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.reason(), "the primary '127.0.0.2' refused the app's user or password (SQLSTATE 28P01)");

    app.write_password(throwaway_server::PASSWORD);
    app.wait_for("the right password to be read", |ready| ready.status == 200).await;
}

#[test]
fn the_program_ends_by_itself_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "hush").unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_app"))
        .args(["--listen", "127.0.0.1:0", "--database", "shop"])
        .args(["--database-user", "clerk", "--record", "/nowhere/cluster.json"])
        .arg("--password-file")
        .arg(&password)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(program.stderr.take().unwrap());
    let listening = log.lines().map_while(Result::ok).find(|line| line.contains("listening on port"));
    assert!(listening.is_some(), "the program did not begin to listen");

    let begun = Instant::now();
    kill(Pid::from_raw(program.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let status = program.wait().unwrap();

    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn the_program_refuses_bad_input_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "hush").unwrap();
    let password = password.to_str().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let empty = empty.to_str().unwrap();
    let named = ["--database", "shop", "--database-user", "clerk"];

    for (arguments, code, line) in [
        (vec!["--databse", "x"], 2, "app: unexpected argument '--databse' found; try: --database".to_owned()),
        (vec![], 2, "app: a setting is missing: '--database'; try: --database VALUE, or UNDERSTUDY_DATABASE in the environment".to_owned()),
        (
            [&named[..], &["--password-file", empty]].concat(),
            3,
            format!("app: the password file is empty: '{empty}'; try: write the database user's password into it"),
        ),
        (
            [&named[..], &["--password-file", "/nowhere/password"]].concat(),
            3,
            "app: cannot read the password file: '/nowhere/password': No such file or directory (os error 2); \
             try: --password-file with a file that the app's user may read, holding the database user's password"
                .to_owned(),
        ),
        (
            [&named[..], &["--password-file", password, "--listen", &taken]].concat(),
            3,
            format!(
                "app: cannot listen on '{taken}': Address already in use (os error 98); \
                 try: --listen with another address or port"
            ),
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_app")).args(&arguments).env_clear().output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, format!("{line}\n"), "{arguments:?}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
    }
}
