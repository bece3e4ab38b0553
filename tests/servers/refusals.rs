//! What must not happen: a standby made writable, a promotion that waits for ever.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use understudy::postgres::recovery_conf::{Notice, needed_for};
use understudy::postgres::version::MajorVersion;

use crate::support::{Folder, Server, module};

fn standby_of<'a>(primary: &Server<'a>) -> Server<'a> {
    let standby = primary.base_backup("standby");
    module("postgres_recovery_conf", standby.standby_options(primary, "standby"), json!({}));
    standby.start();
    standby
}

fn failure(answer: &Value) -> &str {
    assert_eq!(answer["failed"], json!(true), "{answer}");
    answer["msg"].as_str().unwrap()
}

#[test]
fn a_standby_whose_replay_is_paused_is_not_promoted() {
    let folder = Folder::new();
    let primary = folder.primary(17);
    let standby = standby_of(&primary);
    standby.execute("SELECT pg_wal_replay_pause()");
    let refused = module("postgres_promote", standby.login_options(), json!({}));
    assert_eq!(
        failure(&refused),
        "replay is paused on the standby: a promotion would wait until it is resumed; try: SELECT pg_wal_replay_resume() on the standby"
    );
    assert_eq!(standby.ask("pg_is_in_recovery()"), "true");
}

#[test]
fn a_frozen_server_is_given_up_in_time() {
    let folder = Folder::new();
    let primary = folder.primary(15);
    kill(primary.postmaster().unwrap(), Signal::SIGSTOP).unwrap();
    let started = Instant::now();
    let given_up = module("postgres_promote", primary.login_options(), json!({"timeout": 1.5}));
    assert!(
        failure(&given_up).starts_with("cannot ask the server: no answer within 1.5s; try: look whether the server runs"),
        "{given_up}"
    );
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
}

#[test]
fn a_user_who_may_not_promote_is_told_so() {
    let folder = Folder::new();
    let primary = folder.primary(17);
    primary.execute("CREATE ROLE visitor LOGIN");
    let standby = standby_of(&primary);
    standby.wait_for("SELECT count(*) FROM pg_roles WHERE rolname = 'visitor'", "1");
    let refused = module("postgres_promote", standby.login_options(), json!({"login_user": "visitor"}));
    assert!(failure(&refused).contains("permission denied for function pg_promote"), "{refused}");
    let nowhere = module("postgres_promote", standby.login_options(), json!({"login_user": "visitor", "method": "pg_ctl"}));
    assert_eq!(failure(&nowhere), "the server does not tell this user its data directory; try: give 'data_directory'");
    assert_eq!(standby.ask("pg_is_in_recovery()"), "true");
}

#[test]
fn a_trigger_file_that_the_server_does_not_watch_is_refused() {
    let folder = Folder::new();
    let primary = folder.primary(11);
    let standby = primary.base_backup("standby");
    module("postgres_recovery_conf", standby.standby_options(&primary, "standby"), json!({"trigger_file": folder.path().join("watched")}));
    standby.start();
    let other = folder.path().join("other");
    let refused = module("postgres_promote", standby.login_options(), json!({"trigger_file": other}));
    assert_eq!(
        failure(&refused),
        format!(
            "the server watches for the trigger file '{}/watched', not for '{}'; try: leave 'trigger_file' out",
            folder.path().display(),
            other.display()
        )
    );
    assert!(!other.exists());
}

#[test]
fn the_data_directory_of_another_server_is_refused() {
    let folder = Folder::new();
    let primary = folder.primary(15);
    let standby = standby_of(&primary);
    for method in ["auto", "pg_ctl"] {
        let refused = module("postgres_promote", standby.login_options(), json!({"data_directory": primary.data, "method": method}));
        let expected = format!("the data directory of the server is '{}', not '{}'; try: ", standby.data.display(), primary.data.display());
        assert!(failure(&refused).starts_with(&expected), "{refused}");
    }
    assert_eq!(standby.ask("pg_is_in_recovery()"), "true");
}

#[test]
fn a_conninfo_is_reloadable_where_the_module_says_so() {
    let folder = Folder::new();
    let primary = folder.primary(15);
    let standby = standby_of(&primary);
    let mut options = standby.standby_options(&primary, "standby");
    options["primary_conninfo"]["application_name"] = "renamed".into();
    let changed = module("postgres_recovery_conf", options, json!({}));
    assert_eq!((&changed["restart_required"], &changed["reload_required"]), (&json!(false), &json!(true)), "{changed}");
    standby.execute("SELECT pg_reload_conf()");
    primary.wait_for("SELECT string_agg(application_name, ' ') FROM pg_stat_replication", "renamed");
}

#[test]
fn nothing_that_needs_a_restart_is_said_to_need_only_a_reload() {
    for major in [10, 11, 15, 17] {
        let folder = Folder::new();
        let server = folder.primary(major);
        let settings = server.client().query("SELECT name, context FROM pg_settings", &[]).unwrap();
        let wrong: Vec<String> = settings
            .iter()
            .map(|row| (row.get::<_, String>(0), row.get::<_, String>(1)))
            .filter(|(name, context)| {
                matches!(context.as_str(), "postmaster" | "internal") && needed_for(name, MajorVersion(major)) == Notice::Reload
            })
            .map(|(name, _)| name)
            .collect();
        assert_eq!(wrong, [""; 0], "PostgreSQL {major}");
    }
}
