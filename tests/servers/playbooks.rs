//! The playbooks of native hosts, by a real `ansible-playbook` on this machine: the standby is the host, the primary another port.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Folder, PASSWORD, Server};

/// A folder with the built modules and nothing else: Ansible would take any other file in it for a module too.
struct Controller {
    library: tempfile::TempDir,
    program: PathBuf,
}

impl Controller {
    fn new() -> Self {
        let library = tempfile::tempdir().unwrap();
        for program in [env!("CARGO_BIN_EXE_postgres_promote"), env!("CARGO_BIN_EXE_postgres_recovery_conf")] {
            std::os::unix::fs::symlink(program, library.path().join(Path::new(program).file_name().unwrap())).unwrap();
        }
        Self { library, program: ansible_playbook() }
    }

    fn play(&self, playbook: &str, variables: &Value, more: &[&str]) -> Output {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(&self.program);
        command.arg(root.join("playbooks").join(playbook)).args(["-i", "db2,", "-e", &variables.to_string()]).args(more);
        command.current_dir(root).env("ANSIBLE_LIBRARY", self.library.path()).env("ANSIBLE_ROLES_PATH", root.join("roles"));
        command.env("ANSIBLE_NOCOLOR", "1").env("LC_ALL", "C.UTF-8").output().unwrap()
    }

    /// The number of changed tasks on the host, of a play that has to succeed.
    fn changed(&self, playbook: &str, variables: &Value, more: &[&str]) -> u32 {
        let output = self.play(playbook, variables, more);
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        assert!(!text.contains("secret"), "the password is shown: {text}");
        let recap = text.lines().rfind(|line| line.starts_with("db2 ")).unwrap_or_else(|| panic!("no recap: {text}"));
        let changed = recap.split_whitespace().find_map(|word| word.strip_prefix("changed=")).unwrap();
        changed.parse().unwrap()
    }

    /// The words of a play that has to fail.
    fn refusal(&self, playbook: &str, variables: &Value) -> String {
        let output = self.play(playbook, variables, &[]);
        let text = text(&output);
        assert!(!output.status.success(), "{text}");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The project's own, or what `ANSIBLE_PLAYBOOK` names, or the one in `PATH`.
fn ansible_playbook() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/ansible-playbook");
    let named = std::env::var_os("ANSIBLE_PLAYBOOK").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("ansible-playbook"));
    let candidates = named.into_iter().chain([own]).chain(found);
    candidates
        .into_iter()
        .find(|program| program.is_file())
        .expect("ansible-playbook is not found; try: make test, or set ANSIBLE_PLAYBOOK to its path")
}

fn variables(folder: &Folder, primary: &Server<'_>, standby: &Server<'_>) -> Value {
    let owner = folder.owner_name();
    json!({
        "ansible_connection": "local",
        // The host is this machine, and the test is root already.
        "ansible_become": false,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "native_standby_hosts": "db2",
        "native_promote_host": "db2",
        "postgres_standby_data_directory": standby.data,
        "postgres_standby_bin_directory": standby.installation.bin,
        "postgres_standby_primary_host": "127.0.0.1",
        "postgres_standby_primary_port": primary.port,
        "postgres_standby_replication_user": "postgres",
        "postgres_standby_replication_password": PASSWORD,
        "postgres_standby_slot_name": "db2",
        "postgres_standby_settings": {"port": standby.port},
        "postgres_standby_os_user": owner,
        "postgres_standby_os_group": folder.group_name(),
        "postgres_standby_unix_socket": folder.path(),
        "postgres_standby_port": standby.port,
        "postgres_promotion_login_unix_socket": folder.path(),
        "postgres_promotion_login_port": standby.port,
        "postgres_promotion_data_directory": standby.data,
    })
}

#[test]
fn a_native_standby_is_set_up_and_promoted_on_15() {
    a_native_standby_is_set_up_and_promoted(15);
}

#[test]
fn a_native_standby_is_set_up_and_promoted_on_17() {
    a_native_standby_is_set_up_and_promoted(17);
}

fn a_native_standby_is_set_up_and_promoted(major: u16) {
    let controller = Controller::new();
    let folder = Folder::new();
    let primary = folder.primary(major);
    primary.execute("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 1000)");
    let standby = folder.server(major, "standby");
    let mut variables = variables(&folder, &primary, &standby);

    controller.changed("native_standby.yml", &variables, &["--check", "--diff"]);
    assert!(!standby.data.exists(), "check mode made the data directory");
    assert!(controller.changed("native_standby.yml", &variables, &["--diff"]) > 0);
    standby.wait_for("SELECT count(*) FROM t", "1000");
    assert_eq!(primary.ask("SELECT string_agg(application_name, ' ') FROM pg_stat_replication"), "db2");
    assert_eq!(controller.changed("native_standby.yml", &variables, &["--diff"]), 0);
    assert_eq!(controller.changed("native_standby.yml", &variables, &["--check", "--diff"]), 0);
    let started = standby.ask("pg_postmaster_start_time()");
    variables["postgres_standby_application_name"] = "renamed".into();
    assert!(controller.changed("native_standby.yml", &variables, &[]) > 0);
    primary.wait_for("SELECT string_agg(application_name, ' ') FROM pg_stat_replication", "renamed");
    assert_eq!(standby.ask("pg_postmaster_start_time()"), started, "a reload was enough");

    let refusal = controller.refusal("native_promote.yml", &variables);
    assert!(refusal.contains("Two primaries would both take writes"), "{refusal}");
    assert_eq!(standby.ask("pg_is_in_recovery()"), "true");
    primary.stop();
    variables["postgres_promotion_old_primary_is_stopped"] = true.into();
    assert_eq!(controller.changed("native_promote.yml", &variables, &["--check", "--diff"]), 1);
    assert_eq!(standby.ask("pg_is_in_recovery()"), "true", "check mode promoted");
    assert_eq!(controller.changed("native_promote.yml", &variables, &["--diff"]), 2);
    standby.execute("INSERT INTO t VALUES (0)");
    assert_eq!(controller.changed("native_promote.yml", &variables, &["--diff"]), 0);
    assert_eq!(controller.changed("native_promote.yml", &variables, &["--check", "--diff"]), 0);
}

#[test]
fn data_are_replaced_only_when_told_in_so_many_words_and_never_deleted() {
    let controller = Controller::new();
    let folder = Folder::new();
    let primary = folder.primary(15);
    primary.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (7)");
    // Something of value that is no standby: here, another server's data with a file of its own.
    let standby = primary.base_backup("standby");
    std::fs::write(standby.data.join("of_value"), "").unwrap();
    let mut variables = variables(&folder, &primary, &standby);

    let refusal = controller.refusal("native_standby.yml", &variables);
    assert!(refusal.contains(&format!("say so: -e postgres_standby_replace_data_in={}", standby.data.display())), "{refusal}");
    variables["postgres_standby_replace_data_in"] = "yes".into();
    controller.refusal("native_standby.yml", &variables);
    variables["postgres_standby_replace_data_in"] = standby.data.display().to_string().into();
    standby.start();
    let refusal = controller.refusal("native_standby.yml", &variables);
    assert!(refusal.contains(&format!("A server runs in {}", standby.data.display())), "{refusal}");
    standby.stop();
    assert!(standby.data.join("of_value").exists());

    assert!(controller.changed("native_standby.yml", &variables, &[]) > 0);
    standby.wait_for("SELECT count(*) FROM t", "1");
    assert!(!standby.data.join("of_value").exists());
    let aside: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.display().to_string().starts_with(&format!("{}.replaced-", standby.data.display())))
        .collect();
    assert!(aside.len() == 1 && aside[0].join("of_value").exists(), "{aside:?}");
    assert_eq!(controller.changed("native_standby.yml", &variables, &[]), 0);
}

#[test]
fn a_promotion_without_a_host_is_refused() {
    let refusal = Controller::new().refusal("native_promote.yml", &json!({"ansible_connection": "local"}));
    assert!(refusal.contains("Exactly one standby can become the primary."), "{refusal}");
}
