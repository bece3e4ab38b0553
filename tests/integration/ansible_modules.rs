//! The Ansible modules as programs: what they print for every kind of call. Their work on real servers is in `tests/servers`.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use understudy::ansible_module::arguments::{Context, Kind, OptionSpec};
use understudy::ansible_module::outcome::Outcome;
use understudy::ansible_module::{Module, serve};
use understudy::modules::postgres_promote::PostgresPromote;
use understudy::modules::postgres_recovery_conf::PostgresRecoveryConf;

const PROMOTE: &str = env!("CARGO_BIN_EXE_postgres_promote");
const RECOVERY_CONF: &str = env!("CARGO_BIN_EXE_postgres_recovery_conf");

/// Calls a module with these bytes as its file of options.
fn call(program: &str, options: impl AsRef<[u8]>) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), options).unwrap();
    answer(&Command::new(program).arg(file.path()).output().unwrap())
}

/// The one JSON object that a module printed. Its three ways of telling success agree.
fn answer(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text:?}");
    assert_eq!(output.stderr, b"", "a module says everything in its object");
    let object: Value = serde_json::from_str(&text).unwrap();
    let failed = object.get("failed") == Some(&json!(true));
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{object}");
    assert!(object["msg"].is_string(), "{object}");
    object
}

/// A data directory of a stopped primary, as far as files can tell.
fn data_directory(version: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("PG_VERSION"), format!("{version}\n")).unwrap();
    std::fs::write(path.join("postgresql.auto.conf"), "# kept\nwork_mem = '8MB' # kept too\n").unwrap();
    std::fs::set_permissions(path.join("postgresql.auto.conf"), std::fs::Permissions::from_mode(0o640)).unwrap();
    control_file(path, 1);
    directory
}

/// A control file in one of the states of `DBState`: 1 is shut down, 2 shut down in recovery, 5 in recovery, 6 in production.
fn control_file(data: &Path, state: u32) {
    let mut bytes = vec![0; 8192];
    bytes[16..20].copy_from_slice(&state.to_ne_bytes());
    std::fs::create_dir_all(data.join("global")).unwrap();
    std::fs::write(data.join("global/pg_control"), bytes).unwrap();
}

fn standby(data: &Path) -> Value {
    json!({
        "data_directory": data,
        "primary_conninfo": {"host": "10.0.0.1", "port": "5432", "user": "replication", "password": "hunter2 '\\"},
        "primary_slot_name": "pg_b",
    })
}

fn with(mut options: Value, more: Value) -> String {
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options.to_string()
}

#[test]
fn a_call_that_is_none_of_ansibles_is_answered_in_the_same_form() {
    for program in [PROMOTE, RECOVERY_CONF] {
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        let expected = format!(
            "expected one argument, the path of a JSON file; try: use it as the module '{name}' of an Ansible task, or give it a JSON file of its options"
        );
        for arguments in [&[][..], &["a", "b"], &["a", "b", "c"]] {
            let object = answer(&Command::new(program).args(arguments).output().unwrap());
            assert_eq!(object, json!({"failed": true, "changed": false, "msg": expected}), "{arguments:?}");
        }
        let missing = answer(&Command::new(program).arg("/nonexistent/args").output().unwrap());
        assert_eq!(
            missing["msg"],
            "cannot read the options in '/nonexistent/args': No such file or directory (os error 2); try: give a JSON file such as Ansible writes: {\"option\": \"value\"}"
        );
        let directory = answer(&Command::new(program).arg("/").output().unwrap());
        assert!(directory["msg"].as_str().unwrap().starts_with("cannot read the options in '/': Is a directory"), "{directory}");
    }
}

#[test]
fn rubbish_in_the_file_is_refused_without_being_shown() {
    let deep = "[".repeat(100_000);
    let rubbish: [&[u8]; 9] = [b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b"password=hunter2", b"{\"a\":1}}", deep.as_bytes()];
    for program in [PROMOTE, RECOVERY_CONF] {
        for bytes in rubbish {
            let object = call(program, bytes);
            assert_eq!(object["failed"], true, "{object}");
            assert!(!object.to_string().contains("hunter2"), "{object}");
        }
        // Every option with every kind of value: never a crash, always an answer.
        for spec in options_of(program) {
            for value in
                [json!(null), json!(true), json!(-1), json!(1e300), json!(""), json!("\u{0}'\\\n"), json!([1]), json!({"a": [null]})]
            {
                let mut options = json!({ spec.name: value, "data_directory": "/nonexistent", "login_host": "127.0.0.1", "login_port": 1 });
                let known = |name: &str| options_of(program).iter().any(|spec| spec.name == name);
                options.as_object_mut().unwrap().retain(|name, _| known(name));
                options[spec.name] = value;
                call(program, options.to_string());
            }
        }
    }
}

fn options_of(program: &str) -> &'static [OptionSpec] {
    if program == PROMOTE { PostgresPromote::OPTIONS } else { PostgresRecoveryConf::OPTIONS }
}

#[test]
fn what_is_wrong_with_a_task_is_said_in_these_words() {
    let data = data_directory("17");
    let path = data.path().display().to_string();
    let old = data_directory("9.6");
    let cases = [
        (PROMOTE, json!({"login_hots": "a"}), "unknown option 'login_hots'; try: 'login_host'".to_owned()),
        (PROMOTE, json!({"method": "force"}), "the option 'method' is 'force', not one of auto, pg_promote, trigger_file, pg_ctl; try: give one of auto, pg_promote, trigger_file, pg_ctl".to_owned()),
        (PROMOTE, json!({"method": "pg_promote", "trigger_file": "/x"}), "the option 'trigger_file' means nothing to this method; try: leave 'trigger_file' out, or say 'method: trigger_file'".to_owned()),
        (PROMOTE, json!({"login_host": "a", "login_unix_socket": "/b"}), "'login_host' and 'login_unix_socket' exclude each other; try: leave one of them out".to_owned()),
        (PROMOTE, json!({"login_host": "127.0.0.1", "port": 1}), "cannot ask the server: error connecting to server: Connection refused (os error 111); try: look whether the server runs and at login_host, login_port or login_unix_socket".to_owned()),
        (RECOVERY_CONF, json!({"primary_coninfo": "a"}), "unknown option 'primary_coninfo'; try: 'primary_conninfo'".to_owned()),
        (RECOVERY_CONF, json!({}), "the option 'data_directory' is missing; try: give 'data_directory'".to_owned()),
        (RECOVERY_CONF, json!({"data_directory": path}), "a standby needs 'primary_conninfo' or 'restore_command'; try: give 'primary_conninfo', such as host=10.0.0.1 user=replication".to_owned()),
        (RECOVERY_CONF, json!({"data_directory": path, "state": "absent", "primary_slot_name": "a"}), "'primary_slot_name' and 'state: absent' exclude each other; try: leave 'primary_slot_name' out".to_owned()),
        (RECOVERY_CONF, json!({"data_directory": "/nonexistent", "restore_command": "a"}), "cannot read '/nonexistent/PG_VERSION': No such file or directory (os error 2); try: give the data directory of an initialised server, the one that holds 'PG_VERSION'".to_owned()),
        (RECOVERY_CONF, json!({"data_directory": path, "restore_command": "a", "trigger_file": "/x"}), "PostgreSQL 17 knows no trigger file; try: leave the trigger file out and promote with pg_promote()".to_owned()),
        (RECOVERY_CONF, json!({"data_directory": old.path(), "restore_command": "a", "recovery_target_timeline": "current"}), "'current' is no recovery target timeline of PostgreSQL 9; try: give 'latest' or the number of a timeline".to_owned()),
    ];
    for (program, options, expected) in cases {
        let object = call(program, options.to_string());
        assert_eq!((&object["msg"], &object["changed"]), (&json!(expected), &json!(false)), "{options}");
    }
}

#[test]
fn a_standby_is_made_once_and_check_mode_makes_none() {
    for version in ["11", "17"] {
        let data = data_directory(version);
        let path = data.path();
        let before = snapshot(path);
        let planned = call(RECOVERY_CONF, with(standby(path), json!({"_ansible_check_mode": true, "_ansible_diff": true})));
        assert_eq!(snapshot(path), before, "check mode wrote");
        let done = call(RECOVERY_CONF, with(standby(path), json!({"_ansible_diff": true})));
        assert_ne!(snapshot(path), before);
        for object in [&planned, &done] {
            assert_eq!(
                (&object["changed"], &object["restart_required"], &object["version"]),
                (&json!(true), &json!(true), &json!(version.parse::<u16>().unwrap()))
            );
        }
        assert_eq!((&planned["files"], &planned["diff"]), (&done["files"], &done["diff"]));
        let after = snapshot(path);
        let again = call(RECOVERY_CONF, with(standby(path), json!({"_ansible_diff": true})));
        assert_eq!((&again["changed"], &again["files"], &again["diff"]), (&json!(false), &json!([]), &json!([])));
        assert_eq!(snapshot(path), after, "the second run wrote");
    }
}

/// Every file with its text, mode and number (a replaced file has another).
fn snapshot(data: &Path) -> Vec<(String, String, u32, u64)> {
    let mut files: Vec<_> = std::fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text, metadata.mode() & 0o7777, metadata.ino())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn files_keep_their_mode_and_new_ones_are_private() {
    let data = data_directory("17");
    call(RECOVERY_CONF, standby(data.path()).to_string());
    let modes: Vec<(String, u32)> = snapshot(data.path()).into_iter().map(|(name, _, mode, _)| (name, mode)).collect();
    assert!(modes.contains(&("postgresql.auto.conf".to_owned(), 0o640)), "{modes:?}");
    assert!(modes.contains(&("standby.signal".to_owned(), 0o600)), "{modes:?}");
}

#[test]
fn new_files_belong_to_the_owner_of_the_data_directory() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let data = data_directory("17");
    std::os::unix::fs::chown(data.path(), Some(12345), Some(12346)).unwrap();
    call(RECOVERY_CONF, standby(data.path()).to_string());
    let owner = |name: &str| {
        let metadata = std::fs::metadata(data.path().join(name)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("standby.signal"), (12345, 12346));
    assert_eq!(owner("postgresql.auto.conf"), (0, 0), "it was root's and stays root's");
}

#[test]
fn no_secret_is_shown_in_any_answer() {
    let data = data_directory("17");
    let text = "primary_conninfo = 'host=a password=hunter2'\n# primary_conninfo = 'password=hunter2'\n";
    std::fs::write(data.path().join("postgresql.auto.conf"), text).unwrap();
    std::fs::write(data.path().join("recovery.conf"), "primary_conninfo = 'postgres://u:hunter2@h/d'\n").unwrap();
    let shown = [
        call(RECOVERY_CONF, with(standby(data.path()), json!({"_ansible_diff": true, "_ansible_check_mode": true}))),
        call(RECOVERY_CONF, with(standby(data.path()), json!({"primary_conninfo": "password='hunter2"}))),
        call(RECOVERY_CONF, with(standby(data.path()), json!({"primary_conninfo": "host hunter2"}))),
        call(RECOVERY_CONF, with(standby(data.path()), json!({"primary_conninfo": ["hunter2"]}))),
        call(PROMOTE, json!({"login_password": "hunter2", "login_host": "127.0.0.1", "login_port": 1}).to_string()),
        call(PROMOTE, json!({"login_password": {"a": "hunter2"}}).to_string()),
    ];
    for object in &shown {
        assert!(!object.to_string().contains("hunter2"), "{object}");
    }
    assert_eq!(shown[0]["invocation"]["module_args"]["primary_conninfo"], "host=10.0.0.1 password=******** port=5432 user=replication");
    assert_eq!(shown[0]["diff"][2]["before"], "primary_conninfo = 'postgres://u:********@h/d'\n");
    assert_eq!(shown[4]["invocation"]["module_args"]["login_password"], "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER");
}

#[test]
fn only_a_directory_that_is_no_unpromoted_standby_loses_its_settings() {
    let data = data_directory("17");
    call(RECOVERY_CONF, standby(data.path()).to_string());
    let absent = json!({"data_directory": data.path(), "state": "absent"});
    for state in [2, 5] {
        control_file(data.path(), state);
        let refused = call(RECOVERY_CONF, absent.to_string());
        assert!(refused["msg"].as_str().unwrap().contains("is a standby that was not promoted"), "{refused}");
        assert!(data.path().join("standby.signal").exists());
    }
    let accepted = call(RECOVERY_CONF, with(absent.clone(), json!({"accept_unpromoted_standby": "yes", "_ansible_check_mode": true})));
    assert_eq!((&accepted["changed"], accepted["warnings"].as_array().unwrap().len()), (&json!(true), 1), "{accepted}");
    control_file(data.path(), 6);
    let removed = call(RECOVERY_CONF, absent.to_string());
    assert_eq!((&removed["changed"], &removed["warnings"]), (&json!(true), &json!([])), "{removed}");
    assert!(!data.path().join("standby.signal").exists());
    let text = std::fs::read_to_string(data.path().join("postgresql.auto.conf")).unwrap();
    assert_eq!(text, "# kept\nwork_mem = '8MB' # kept too\n");
}

#[test]
fn the_documentation_lists_exactly_the_options_that_are_accepted() {
    for (name, specs) in [(PostgresPromote::NAME, PostgresPromote::OPTIONS), (PostgresRecoveryConf::NAME, PostgresRecoveryConf::OPTIONS)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("library/{name}.yml"));
        let documented = documented_options(&std::fs::read_to_string(path).unwrap());
        let accepted: Vec<String> = specs.iter().map(described).collect();
        assert_eq!(documented, accepted, "{name}");
    }
}

/// An option on one line, its facts in the order of the documentation's keys.
fn described(spec: &OptionSpec) -> String {
    let (kind, choices) = match spec.kind {
        Kind::Text => ("str", None),
        Kind::Path => ("path", None),
        Kind::Integer(..) => ("int", None),
        Kind::Seconds => ("float", None),
        Kind::Boolean => ("bool", None),
        Kind::Choice(words) => ("str", Some(words)),
        Kind::Conninfo => ("raw", None),
        Kind::Settings => ("dict", None),
    };
    let list = |words: &[&str]| format!("[{}]", words.join(", "));
    let facts = [
        Some(format!("type: {kind}")),
        spec.required.then(|| "required: true".to_owned()),
        choices.map(|words| format!("choices: {}", list(words))),
        spec.default.map(|default| format!("default: {default}")),
        (!spec.aliases.is_empty()).then(|| format!("aliases: {}", list(spec.aliases))),
    ];
    std::iter::once(spec.name.to_owned()).chain(facts.into_iter().flatten()).collect::<Vec<_>>().join("; ")
}

/// The options in the sidecar, read by their indentation.
fn documented_options(sidecar: &str) -> Vec<String> {
    let lines = sidecar.lines().skip_while(|line| *line != "  options:").skip(1).take_while(|line| line.starts_with("    "));
    let mut options: Vec<String> = Vec::new();
    for line in lines {
        let indentation = line.len() - line.trim_start().len();
        match (indentation, line.trim()) {
            (4, name) => options.push(name.trim_end_matches(':').to_owned()),
            (6, "description:") => {}
            (6, fact) => options.last_mut().unwrap().push_str(&format!("; {fact}")),
            _ => {}
        }
    }
    options
}

/// A module that panics, with a secret in its mouth.
struct Panicking;

impl Module for Panicking {
    const NAME: &'static str = "panicking";
    const OPTIONS: &'static [OptionSpec] = &[];
    type Options = serde_json::Map<String, Value>;
    type Returned = ();
    type Error = understudy::ansible_module::arguments::ArgumentError;

    fn run(_: Self::Options, _: Context) -> Result<Outcome<()>, Self::Error> {
        panic!("hunter2");
    }
}

/// Set to the file of options in the process that shall panic.
const PANICKING_CHILD: &str = "UNDERSTUDY_TEST_PANICKING_CHILD";

/// Does nothing by itself; [`a_panic_is_answered_with_one_json_object`] runs it in a process of its own.
#[test]
fn panicking_child() {
    if let Some(file) = std::env::var_os(PANICKING_CHILD) {
        serve::<Panicking>([file]);
    }
}

#[test]
fn a_panic_is_answered_with_one_json_object() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{}").unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .arg("ansible_modules::panicking_child")
        .env(PANICKING_CHILD, file.path())
        .output()
        .unwrap();
    let text = String::from_utf8(child.stdout).unwrap();
    let objects: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect();
    assert_eq!(objects.len(), 1, "{text}");
    assert_eq!(child.status.code(), Some(1));
    assert_eq!(objects[0]["failed"], true);
    assert!(!text.contains("hunter2"), "{text}");
}
