//! What passes tell those who look on, and that none of it is ever in the way of a pass (I6). What a whole pass leaves in the metrics is one of the stories
//! (`tests/simulation/stories/outward.rs`).

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// A state directory with sound settings and no Docker Engine, so that each pass refuses (R10) and goes on.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(more: &str, sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let settings = format!(
            "state_directory = \"{path}\"\ndocker_socket = \"{path}/docker.sock\"\napp_container = \"app\"\napp_url = \"http://127.0.0.1:9\"\n\
             database = \"postgres\"\nfailover_user = \"u\"\nfailover_password_file = \"{path}/password\"\n{more}\n[nodes]\npg-a = \"a\"\npg-b = \"b\"\n{sections}\n"
        );
        fs::write(folder.path().join("settings.toml"), settings.replace("FOLDER", &path)).unwrap();
        fs::write(folder.path().join("password"), "secret").unwrap();
        let record = r#"{"version":1,"epoch":1,"primary":"pg-a","standby_eligible":false,"transition":null,"paused":null,"system_identifier":null,"failovers":[]}"#;
        fs::write(folder.path().join("cluster.json"), record).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_program(&self, name: &str, script: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_failover-check"))
            .arg("--settings")
            .arg(self.path("settings.toml"))
            .args(arguments)
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), said)
    }

    fn json(&self, name: &str) -> Value {
        fs::read(self.path(name)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn passes(&self) -> u64 {
        self.json("counters.json")["passes"].as_object().map_or(0, |passes| passes.values().filter_map(Value::as_u64).sum())
    }

    /// The id in the journal of the latest event of a name.
    fn id_of(&self, name: &str) -> Value {
        let journal = fs::read_to_string(self.path("events.jsonl")).unwrap();
        let mut events = journal.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.find(|event| event["event"] == name).unwrap()["id"].clone()
    }

    fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain for {what}: {}", self.json("notify.json"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Answers each request with `status`, or never; hands over what it got.
fn receiver(status: Option<u16>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hooks/T0PSECRET", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || {
        let mut unanswered = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut part = [0; 4096];
            while !String::from_utf8_lossy(&request).trim_end().ends_with('}') {
                let length = stream.read(&mut part).unwrap_or_default();
                if length == 0 {
                    break;
                }
                request.extend_from_slice(&part[..length]);
            }
            if sender.send(String::from_utf8_lossy(&request).into_owned()).is_err() {
                return;
            }
            match status {
                Some(status) => {
                    drop(stream.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()))
                }
                None => unanswered.push(stream),
            }
        }
    });
    (url, received)
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_webhook_and_a_command_are_told_of_a_change_with_the_id_that_it_has_in_the_journal() {
    let (url, requests) = receiver(Some(204));
    let place = Place::new(
        "metrics_file = \"FOLDER/understudy.prom\"",
        "[notify]\nwebhook_url_file = \"FOLDER/webhook\"\ncommand = [\"FOLDER/tell\", \"an argument\"]",
    );
    fs::write(place.path("webhook"), &url).unwrap();
    place.write_program("tell", &format!("cat >>'{0}/told'; echo \"$1\" >>'{0}/argument'", place.folder.path().display()));
    place.run(&["run"]);
    place.run(&["pause", "--reason", "moving the disk"]);
    place.run(&["run"]);

    let request = requests.recv_timeout(PATIENCE).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let notification: Value = serde_json::from_str(body).unwrap();
    assert!(head.starts_with("POST /hooks/T0PSECRET "), "{head}");
    assert_eq!((&notification["event"], &notification["id"]), (&Value::from("paused"), &place.id_of("paused")));
    assert!(notification["text"].as_str().unwrap().ends_with(": moving the disk"), "{notification}");
    place.wait_until("the command", || fs::read_to_string(place.path("argument")).is_ok_and(|text| text == "an argument\n"));
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(place.path("told")).unwrap()).unwrap(), notification);
    place.wait_until("the state", || place.json("notify.json")["command"]["delivered"] == 1);
    place.run(&["run"]);
    let metrics = fs::read_to_string(place.path("understudy.prom")).unwrap();
    assert_eq!(value(&metrics, "understudy_notifications_total{target=\"webhook\",result=\"delivered\"}"), Some(1.0), "{metrics}");
    assert_eq!(place.passes(), 3, "counted over processes");
    assert!(requests.try_recv().is_err(), "nothing is told twice, and what happened before there was anybody to tell is history");
    let (code, said) = place.run(&["notify", "--test"]);
    assert_eq!((code, said.trim()), (0, "the test was taken"));
}

#[test]
fn i6_a_webhook_that_never_answers_and_a_command_that_never_ends_do_not_slow_passes_down() {
    let (url, requests) = receiver(None);
    let place = Place::new("", "[notify]\nwebhook_url_file = \"FOLDER/webhook\"\ncommand = [\"FOLDER/tell\"]\ndeadline_seconds = 4");
    fs::write(place.path("webhook"), &url).unwrap();
    place.write_program("tell", "sleep 1000 & sleep 1000");
    place.run(&["run"]);
    let before = place.passes();
    place.run(&["pause", "--reason", "x"]);

    let begun = Instant::now();
    place.run(&["run", "--for", "6s"]);

    assert!(begun.elapsed() < Duration::from_secs(8), "neither waits for the other: {:?}", begun.elapsed());
    requests.recv_timeout(PATIENCE).expect("it was tried meanwhile");
    // One a second, and the last may still have been on its way.
    assert!(place.passes() - before >= 5, "{}", place.json("counters.json"));
    place.wait_until("both to be given up", || {
        let seen = place.json("notify.json");
        seen["webhook"]["failed"] == 1 && seen["command"]["failed"] == 1
    });
    let (_, said) = place.run(&["run"]);
    assert!(said.contains("2 notifications could not be delivered"), "{said}");
    assert!(!said.contains("T0PSECRET"), "the log shows the address: {said}");
}

#[test]
fn what_is_not_taken_is_tried_a_few_times_then_counted_and_said_without_the_address() {
    let (url, requests) = receiver(Some(500));
    let place = Place::new("", "[notify]\nwebhook_url_file = \"FOLDER/webhook\"");
    fs::write(place.path("webhook"), &url).unwrap();
    place.run(&["run"]);
    place.run(&["pause", "--reason", "x"]);
    let (code, said) = place.run(&["notify"]);
    assert_eq!((code, said.trim()), (0, "0 delivered, 1 not"));
    assert_eq!(requests.try_iter().count(), 3);
    let (_, said) = place.run(&["run"]);
    assert!(said.contains("1 notification could not be delivered: the webhook http://127.0.0.1/… answered 500"), "{said}");

    // Faults of the receivers are none of the tool's.
    for content in ["", "not an address", "http://127.0.0.1:1/T0PSECRET"] {
        fs::write(place.path("webhook"), content).unwrap();
        let (code, said) = place.run(&["notify", "--test"]);
        assert_eq!(code, 6, "{said}");
        assert!(said.contains("; try: ") && !said.contains("T0PSECRET"), "{said}");
    }
    fs::remove_file(place.path("webhook")).unwrap();
    assert_eq!(place.run(&["run"]).0, 5, "as without a webhook");
}

#[test]
fn a_receiver_that_was_away_for_long_gets_the_latest_and_the_rest_is_counted() {
    let (url, requests) = receiver(Some(200));
    let place = Place::new("", "[notify]\nwebhook_url_file = \"FOLDER/webhook\"");
    fs::write(place.path("webhook"), &url).unwrap();
    place.run(&["run"]);
    let line = |number: usize| format!("{{\"at\":\"2026-11-21T08:00:00Z\",\"event\":\"paused\",\"id\":\"1-{number}\",\"by\":\"ada\"}}\n");
    let mut journal = fs::OpenOptions::new().append(true).open(place.path("events.jsonl")).unwrap();
    journal.write_all((0..120).map(line).collect::<String>().as_bytes()).unwrap();
    place.run(&["notify"]);
    let ids: Vec<String> =
        requests.try_iter().map(|request| request.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned()).collect();
    assert_eq!((ids.len(), ids.first().unwrap().as_str(), ids.last().unwrap().as_str()), (50, "1-70", "1-119"));
    assert_eq!(place.json("notify.json")["dropped"], 70);
}

#[test]
fn i6_metrics_that_cannot_be_written_stop_nothing_and_are_said_once() {
    let place = Place::new("metrics_file = \"/nowhere/understudy.prom\"", "");
    let (code, said) = place.run(&["run", "--for", "2500ms"]);
    assert_eq!(code, 5, "as without metrics: {said}");
    assert_eq!(said.matches("cannot tell of this pass in metrics").count(), 1, "{said}");
    assert!(place.path("status.json").exists());
}
