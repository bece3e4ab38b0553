//! `failover-check` as a program: what it says to bad input, in one line with cause, value and remedy, and how it ends. Nothing is changed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

const RECORD: &str = r#"{"version":1,"epoch":1,"primary":"pg-a","standby_eligible":false,"transition":null,"paused":null,"system_identifier":null,"failovers":[]}"#;

/// A state directory with sound settings, a sound record, and no Docker Engine.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let settings = format!(
            "state_directory = \"{path}\"\ndocker_socket = \"{path}/docker.sock\"\napp_container = \"app\"\napp_url = \"http://127.0.0.1:9\"\n\
             database = \"postgres\"\nfailover_user = \"u\"\nfailover_password_file = \"{path}/password\"\n[nodes]\npg-a = \"a\"\npg-b = \"b\"\n"
        );
        fs::write(folder.path().join("settings.toml"), settings).unwrap();
        fs::write(folder.path().join("password"), "secret").unwrap();
        fs::write(folder.path().join("cluster.json"), RECORD).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_failover-check"));
        command.arg("--settings").arg(self.path().join("settings.toml")).args(arguments);
        command
    }

    /// The exit code and the one line of a refusal, with the folder's name taken out; that the record is as it was.
    fn refusal(&self, arguments: &[&str]) -> (i32, String) {
        let before = fs::read(self.path().join("cluster.json")).ok();
        let output = self.command(arguments).output().unwrap();
        assert_eq!(fs::read(self.path().join("cluster.json")).ok(), before, "the record was changed");
        (output.status.code().unwrap(), self.one_line(&output))
    }

    fn one_line(&self, output: &Output) -> String {
        assert!(output.stdout.is_empty(), "{output:?}");
        let words = String::from_utf8(output.stderr.clone()).unwrap();
        let lines: Vec<&str> = words.lines().filter(|line| line.starts_with("failover-check: ")).collect();
        assert_eq!(lines.len(), 1, "one line: {words}");
        assert!(lines[0].contains("; try: "), "a remedy: {words}");
        lines[0].replace(&self.path().display().to_string(), "").replacen("failover-check: ", "", 1)
    }
}

#[test]
fn a_wrong_command_line() {
    let place = Place::new();
    assert!(
        place.refusal(&[]).1.starts_with("'failover-check' requires a subcommand but one was not provided [subcommands: run, status, ")
    );
    let bare = Command::new(env!("CARGO_BIN_EXE_failover-check")).output().unwrap();
    assert_eq!((bare.status.code(), place.one_line(&bare).as_str()), (Some(2), "no command given; try: --help"));
    assert_eq!(place.refusal(&["run", "--fro", "3s"]).0, 2);
    assert_eq!(place.refusal(&["run", "--fro", "3s"]).1.split(" tip").next().unwrap(), "unexpected argument '--fro' found; try: --help");
    assert!(place.refusal(&["run", "--for", "soon"]).1.starts_with("invalid value 'soon' for '--for <TIME>'"));
    assert_eq!(
        place.refusal(&["failover"]),
        (2, "the following required arguments were not provided: --accept-data-loss; try: --help".to_owned())
    );
    assert!(place.refusal(&["switchover", "--to", "PG_C"]).1.contains("'PG_C' is no node name"));
    assert!(place.refusal(&["pause", "--reason", "x", "--for", "later"]).1.starts_with("invalid value 'later' for '--for <TIME>'"));
    assert_eq!(place.refusal(&["rejoin"]), (2, "the following required arguments were not provided: <NODE>; try: --help".to_owned()));
}

#[test]
fn missing_and_malformed_settings() {
    let place = Place::new();
    fs::write(place.path().join("settings.toml"), "a = = 1").unwrap();
    let (code, words) = place.refusal(&["status"]);
    assert_eq!(code, 3);
    assert!(words.starts_with("malformed settings '/settings.toml': line 1: "), "{words}");
    fs::remove_file(place.path().join("settings.toml")).unwrap();
    let (code, words) = place.refusal(&["run"]);
    assert_eq!(code, 3);
    assert!(
        words.starts_with("cannot read '/settings.toml': No such file or directory (os error 2); try: name the file with --settings"),
        "{words}"
    );
}

#[test]
fn a_record_that_is_missing_corrupt_or_newer() {
    let place = Place::new();
    for (text, beginning) in [
        (
            RECORD.replace("\"version\":1", "\"version\":2"),
            "the cluster record '/cluster.json' has version 2; this program knows version 1; try: ",
        ),
        (RECORD[..40].to_owned(), "the cluster record '/cluster.json' is corrupt: EOF while parsing"),
        (RECORD.replace("pg-a", "pg-x"), "the record names the node 'pg-x', which the settings do not know; try: "),
    ] {
        fs::write(place.path().join("cluster.json"), text).unwrap();
        for command in [&["run"][..], &["status"], &["explain"], &["switchover"], &["failover", "--accept-data-loss"]] {
            let (code, words) = place.refusal(command);
            assert_eq!(code, if words.contains("pg-x") { 3 } else { 4 }, "{command:?}: {words}");
            assert!(words.starts_with(beginning), "{command:?}: {words}");
        }
    }
    fs::remove_file(place.path().join("cluster.json")).unwrap();
    let (code, words) = place.refusal(&["run"]);
    assert_eq!(code, 4);
    assert!(words.starts_with("the cluster record '/cluster.json' is missing; try: restore the record"), "{words}");
}

#[test]
fn a_docker_engine_that_is_not_there() {
    let place = Place::new();
    for command in [&["run"][..], &["switchover"], &["failover", "--accept-data-loss"], &["rejoin", "pg-b"]] {
        let (code, words) = place.refusal(command);
        assert_eq!(code, 5, "{command:?}: {words}");
        assert!(words.starts_with("the container runtime does not answer"), "{command:?}: {words}");
        assert!(words.contains("; try: start the Docker Engine"), "{words}");
    }
    // To look is no action: status and explain tell what they can, and end with the same code.
    for command in ["status", "explain"] {
        let output = place.command(&[command]).output().unwrap();
        assert_eq!(output.status.code(), Some(5));
        assert!(String::from_utf8_lossy(&output.stdout).contains("R10"), "{output:?}");
    }
}

#[test]
fn an_error_is_an_object_where_json_is_asked_for() {
    let place = Place::new();
    fs::remove_file(place.path().join("cluster.json")).unwrap();
    let output = place.command(&["status", "--json"]).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &answer["exit_code"]), (Some(4), &serde_json::json!(4)));
    assert!(answer["error"].as_str().unwrap().contains("is missing"));
    assert!(answer["remedy"].as_str().unwrap().starts_with("restore the record"));
}

#[test]
fn anybody_but_root() {
    let place = Place::new();
    // Where the one who is not root can start it.
    let copy = place.path().join("failover-check");
    fs::copy(env!("CARGO_BIN_EXE_failover-check"), &copy).unwrap();
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(copy).arg("status").uid(65_534).gid(65_534).output().unwrap();
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(place.one_line(&output), "not run as root (user id 65534); try: sudo failover-check …");
}

#[test]
fn pausing_and_resuming_are_noted() {
    let place = Place::new();
    let run = |arguments: &[&str]| {
        let output = place.command(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["resume"]).starts_with("not paused"));
    run(&["pause", "--reason", "moving the disk"]);
    let record = fs::read_to_string(place.path().join("cluster.json")).unwrap();
    assert!(record.contains("\"reason\": \"moving the disk\""), "{record}");
    run(&["resume"]);
    assert!(fs::read_to_string(place.path().join("cluster.json")).unwrap().contains("\"paused\": null"));
    let said = run(&["pause", "--reason", "moving the disk", "--for", "2h"]);
    assert!(said.contains("a lost primary stays lost until 2"), "{said}");
    let status = place.command(&["status"]).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(
        status.contains(", for another 7200 s: moving the disk") || status.contains(", for another 7199 s: moving the disk"),
        "{status}"
    );
    run(&["resume"]);
    let events: serde_json::Value = serde_json::from_str(&run(&["history", "--json"])).unwrap();
    let names: Vec<&str> = events["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["paused", "resumed", "paused", "resumed"]);
}

#[test]
fn each_pass_leaves_what_it_saw_for_the_apps_page_and_a_fault_of_that_stops_nothing() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let status = place.path().join("status.json");
    let run = || {
        // Even where a person's shell hides new files from others: the app runs as a user of its own.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_failover-check"), "--settings"]);
        let output = command.arg(place.path().join("settings.toml")).arg("run").output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let read = || serde_json::from_slice::<serde_json::Value>(&fs::read(&status).unwrap()).unwrap();

    assert_eq!(run().0, 5);
    let seen = read();
    assert_eq!((&seen["version"], &seen["status"]["decision"]["rule"]), (&serde_json::json!(1), &serde_json::json!("R10")));
    assert!(seen["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    for name in ["status.json", "events.jsonl"] {
        assert_eq!(fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o777, 0o644, "{name}");
    }
    assert!(!seen.to_string().contains("secret"), "{seen}");

    fs::write(place.path().join("cluster.json"), "{").unwrap();
    assert_eq!(run().0, 4);
    assert!(read()["error"].as_str().unwrap().contains("is corrupt"), "{}", read());

    // A folder in its place can be neither written nor replaced.
    fs::write(place.path().join("cluster.json"), RECORD).unwrap();
    fs::remove_file(&status).unwrap();
    fs::create_dir_all(status.join("in-the-way")).unwrap();
    let (code, said) = run();
    assert_eq!(code, 5, "as without the fault: {said}");
    assert!(said.contains("so the app's page shows an old state"), "{said}");
}

#[test]
fn observing_is_said_first_and_a_drill_is_refused() {
    let place = Place::new();
    let path = place.path().join("settings.toml");
    fs::write(&path, format!("mode = \"observe\"\n{}", fs::read_to_string(&path).unwrap())).unwrap();
    let status = String::from_utf8(place.command(&["status"]).output().unwrap().stdout).unwrap();
    assert!(status.starts_with("OBSERVING ONLY, nothing is mended by itself (mode = observe): not healthy: "), "{status}");
    let json: serde_json::Value = serde_json::from_slice(&place.command(&["status", "--json"]).output().unwrap().stdout).unwrap();
    assert_eq!(json["acts"], false);
    let explained = String::from_utf8(place.command(&["explain"]).output().unwrap().stdout).unwrap();
    assert!(
        explained.contains("what says no\n  gate          does the container runtime answer, so that a node can be fenced?"),
        "{explained}"
    );
    assert!(
        explained.contains("  overruled by  nothing\n  because       what cannot be stopped for certain is never replaced"),
        "{explained}"
    );
    let (code, words) = place.refusal(&["drill", "--yes"]);
    assert_eq!(code, 6);
    assert!(words.starts_with("refused: mode = observe: nobody would fail over; try: "), "{words}");
}
