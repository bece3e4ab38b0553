//! A standby is set up, streams, is promoted, and takes writes; for each version and each way of promoting.

use serde_json::{Value, json};

use crate::support::{APPLICATION_NAME, Folder, Server, module};

#[test]
fn postgresql_10_by_its_trigger_file() {
    a_standby_streams_and_is_promoted(10, "trigger_file", "trigger_file");
}

#[test]
fn postgresql_11_by_its_trigger_file_since_it_has_one() {
    a_standby_streams_and_is_promoted(11, "auto", "trigger_file");
}

#[test]
fn postgresql_15_by_pg_promote() {
    a_standby_streams_and_is_promoted(15, "auto", "pg_promote");
}

#[test]
fn postgresql_15_by_its_trigger_file() {
    a_standby_streams_and_is_promoted(15, "trigger_file", "trigger_file");
}

#[test]
fn postgresql_17_by_pg_promote() {
    a_standby_streams_and_is_promoted(17, "auto", "pg_promote");
}

#[test]
fn postgresql_17_by_pg_ctl() {
    a_standby_streams_and_is_promoted(17, "pg_ctl", "pg_ctl");
}

#[test]
fn postgresql_10_without_a_trigger_file_by_pg_ctl() {
    a_standby_streams_and_is_promoted(10, "auto", "pg_ctl");
}

fn a_standby_streams_and_is_promoted(major: u16, method: &str, expected_method: &str) {
    let folder = Folder::new();
    let primary = folder.primary(major);
    primary.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)");
    let standby = primary.base_backup("standby");
    let mut options = standby.standby_options(&primary, "standby");
    if expected_method == "trigger_file" {
        options["trigger_file"] = folder.path().join("promote").display().to_string().into();
    }

    it_becomes_a_standby(&standby, &options);
    standby.start();
    primary.execute("INSERT INTO t SELECT generate_series(1001, 1500)");
    standby.wait_for("SELECT count(*) FROM t", "1500");
    primary.wait_for("SELECT state || ' ' || application_name FROM pg_stat_replication", &format!("streaming {APPLICATION_NAME}"));
    it_may_not_be_made_a_primary_by_removing_its_settings(&standby);

    primary.stop();
    it_is_promoted(&standby, method, expected_method);
    its_old_settings_can_be_removed(&standby);
}

fn it_becomes_a_standby(standby: &Server<'_>, options: &Value) {
    let planned = module("postgres_recovery_conf", options.clone(), json!({"_ansible_check_mode": true, "_ansible_diff": true}));
    assert_eq!((&planned["changed"], &planned["restart_required"]), (&json!(true), &json!(true)), "{planned}");
    let switch = if standby.installation.major < 12 { "recovery.conf" } else { "standby.signal" };
    assert!(!standby.data.join(switch).exists(), "check mode wrote '{switch}'");

    let done = module("postgres_recovery_conf", options.clone(), json!({"_ansible_diff": true}));
    assert_eq!((&done["changed"], &done["files"], &done["diff"]), (&json!(true), &planned["files"], &planned["diff"]), "{done}");
    assert!(standby.data.join(switch).exists(), "{done}");
    let again = module("postgres_recovery_conf", options.clone(), json!({"_ansible_diff": true}));
    assert_eq!((&again["changed"], &again["restart_required"], &again["files"]), (&json!(false), &json!(false), &json!([])), "{again}");
}

fn it_may_not_be_made_a_primary_by_removing_its_settings(standby: &Server<'_>) {
    let refused = module("postgres_recovery_conf", json!({"data_directory": standby.data, "state": "absent"}), json!({}));
    let expected = format!(
        "'{}' is a standby that was not promoted: without its standby settings it would take writes beside its primary; try: promote it with postgres_promote, or say 'accept_unpromoted_standby: true'",
        standby.data.display()
    );
    assert_eq!((&refused["failed"], &refused["msg"]), (&json!(true), &json!(expected)));
}

fn it_is_promoted(standby: &Server<'_>, method: &str, expected_method: &str) {
    let mut options = standby.login_options();
    options["method"] = method.into();
    if expected_method == "pg_ctl" {
        options["pg_ctl"] = standby.installation.program("pg_ctl").display().to_string().into();
    }
    let planned = module("postgres_promote", options.clone(), json!({"_ansible_check_mode": true}));
    assert_eq!(
        (&planned["changed"], &planned["method"], &planned["timeline"]),
        (&json!(true), &json!(expected_method), &json!(1)),
        "{planned}"
    );
    assert_eq!(standby.ask("pg_is_in_recovery()"), "true", "check mode promoted");

    let promoted = module("postgres_promote", options.clone(), json!({}));
    assert_eq!(
        (&promoted["changed"], &promoted["method"], &promoted["timeline"]),
        (&json!(true), &json!(expected_method), &json!(2)),
        "{promoted}"
    );
    standby.execute("INSERT INTO t VALUES (0)");
    assert_eq!(standby.ask("SELECT count(*) FROM t"), "1501");
    let again = module("postgres_promote", options, json!({}));
    assert_eq!((&again["changed"], &again["method"], &again["timeline"]), (&json!(false), &json!("none"), &json!(2)), "{again}");
}

fn its_old_settings_can_be_removed(promoted: &Server<'_>) {
    let options = json!({"data_directory": promoted.data, "state": "absent"});
    let cleaned = module("postgres_recovery_conf", options.clone(), json!({}));
    // Up to 11 the promotion itself renames recovery.conf to recovery.done.
    assert_eq!(cleaned["changed"], json!(promoted.installation.major >= 12), "{cleaned}");
    let again = module("postgres_recovery_conf", options, json!({}));
    assert_eq!(again["changed"], json!(false), "{again}");
    promoted.stop();
    promoted.start();
    promoted.execute("INSERT INTO t VALUES (-1)");
}
