"""The playbooks on this machine, in an installation of their own, and what they leave."""

import json
import os
import re
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from support import ROOT, Play, Suite, expect, run

PREFIX = "understudy-playbooks"
PORT = 5066
# Characters that a shell, YAML, SQL or a connection string would trip over.
DATABASE_PASSWORD = "Tr0ub4dor&3$x;#%=:@|~"
REPLICATION_PASSWORD = "c0rrect-h0rse!*?<>[]"
DELETE = "understudy_remove_data=yes-delete-all-data"


def play(playbook, *arguments):
    return Play(playbook, "-i", "inventory/local.yml", *arguments, variables=["tests/playbooks/installation.yml"])


def remove_everything():
    play("remove_containers", "-e", DELETE).succeeded()


def latest_history():
    return failover_check("history", "--limit", "30", may_fail=True) if Path("/usr/local/sbin/failover-check").exists() else ""


suite = Suite(before=remove_everything, after=remove_everything, explain=latest_history)


def lay_down(*arguments, **values):
    """run_containers.yml with values that a file holds, as secrets should be given: not on the command line."""
    given = {"understudy_database_password": DATABASE_PASSWORD, "understudy_replication_password": REPLICATION_PASSWORD, **values}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({name: value for name, value in given.items() if value is not None}, file)
        file.flush()
        return play("run_containers", "-e", f"@{file.name}", *arguments)


def failover_check(*arguments, may_fail=False):
    return run("/usr/local/sbin/failover-check", "--settings", f"/etc/{PREFIX}/failover-check.toml", *arguments, may_fail=may_fail)


def primary():
    return json.loads(Path(f"/var/lib/{PREFIX}/cluster.json").read_text())["primary"]


def sql(statement):
    node = f"{PREFIX}-{primary()}"
    return run("docker", "exec", node, "psql", "-XAtq", "-h", "/run/postgresql", "-U", "postgres", "-d", "shop", "-c", statement)


def inspect(name):
    return json.loads(run("docker", "inspect", f"{PREFIX}-{name}"))[0]


def traces():
    """Everything of this installation that exists on the machine."""
    # With their times, except where failover-check writes all the time.
    found = [f"{path}" for path in map(Path, (f"/var/lib/{PREFIX}", f"/var/log/{PREFIX}")) if path.exists()]
    for path in map(Path, (f"/etc/{PREFIX}", f"/etc/cron.d/{PREFIX}", f"/etc/logrotate.d/{PREFIX}")):
        if path.exists():
            found += [f"{path} {path.stat().st_mtime_ns}" for path in [path, *path.rglob("*")]]
    for kind, form in (("container", "{{.Names}}"), ("volume", "{{.Name}}"), ("network", "{{.Name}}"), ("image", "{{.Repository}}:{{.Tag}}")):
        listed = run("docker", kind, "ls", *(["--all"] if kind == "container" else []), "--format", form)
        found += [f"{kind} {name}" for name in listed.splitlines() if name.startswith(PREFIX)]
    return sorted(found)


# --- The files of the roles -------------------------------------------------------------------------------------------


@suite.check
def every_role_has_its_files_and_names():
    for role in sorted((ROOT / "roles").iterdir()):
        for file in ("README.md", "defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"):
            expect((role / file).is_file(), f"{role.name} has no {file}")
        defaults = re.findall(r"^(\w+):", (role / "defaults/main.yml").read_text(), re.M)
        specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
        for name in defaults:
            expect(name.startswith(f"{role.name}_"), f"{role.name}: the default '{name}' lacks the role's prefix")
        expect(set(defaults) <= set(specs), f"{role.name}: a default is not in the argument_specs", sorted(set(defaults) - set(specs)))
        readme = (role / "README.md").read_text()
        for name in specs:
            expect(f"`{name}`" in readme or "meta/argument_specs.yml" in readme, f"{role.name}: README.md neither names `{name}` nor links its specs")


@suite.check
def the_file_that_operators_edit_says_the_true_defaults():
    target, defaults = (ROOT / "variables/target.yml").read_text(), (ROOT / "playbooks/group_vars/all.yml").read_text()
    for name, value in re.findall(r"^(\w+): (.*)$", target, re.M):
        if name in ("understudy_database", "understudy_database_user"):  # asked for; the prompt has the default
            expect(f"default: {value}" in (ROOT / "playbooks/run_containers.yml").read_text(), f"{name} differs from the prompt's default")
        else:
            expect(f"\n{name}: {value}\n" in defaults, f"{name}: {value} is not the default")


@suite.check
def make_is_about_this_machine_in_a_shell_for_ec2_too():
    for target in ("up", "down", "status", "engine"):
        said = run("make", "--dry-run", target, environment={"ANSIBLE_INVENTORY": "inventory/aws_ec2.yml"})
        for line in said.splitlines():
            expect("ansible-playbook" not in line or "-i inventory/local.yml" in line, f"make {target} should name this machine's inventory", line)


# --- On a machine that has none of it ---------------------------------------------------------------------------------


@suite.check(always=True)
def a_check_on_a_fresh_installation_changes_nothing():
    lay_down("--check", "--diff").succeeded()
    expect(traces() == [], "nothing should exist after --check", traces())


@suite.check
def preflight_refuses_anyone_but_root():
    script = (ROOT / "scripts/preflight").read_text()
    done = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "sh", "-s", "x"], input=script, text=True, capture_output=True)
    expect(done.returncode == 1 and done.stderr.startswith("make up: not root: "), "expected the refusal of root", done.stderr)


REFUSALS = {
    "an empty database name": ({"understudy_database": ""}, "impossible database name: ''; try: "),
    "a database of PostgreSQL's own": ({"understudy_database": "template1"}, "impossible database name: 'template1'; try: "),
    "a database name with a quote": ({"understudy_database": "shop'x"}, "impossible database name: 'shop'x'; try: "),
    "a database name of 64 characters": ({"understudy_database": "d" * 64}, "impossible database name: '"),
    "a database name with a line break": ({"understudy_database": "shop\n"}, "impossible database name: '"),
    "an empty database user": ({"understudy_database_user": ""}, "impossible database user: ''; try: "),
    "the superuser as database user": ({"understudy_database_user": "postgres"}, "impossible database user: 'postgres'; try: "),
    "a database user of PostgreSQL's own": ({"understudy_database_user": "pg_monitor"}, "impossible database user: 'pg_monitor'; try: "),
    "an empty password": ({"understudy_database_password": ""}, "empty password: understudy_database_password; try: "),
    "an empty replication password": ({"understudy_replication_password": ""}, "empty password: understudy_replication_password; try: "),
    "no password and no terminal": ({"understudy_database_password": None}, "empty password: understudy_database_password; try: "),
    "a short password": ({"understudy_database_password": "short-7"}, "impossible password: understudy_database_password has 7 characters"),
    "a password with a line break": ({"understudy_database_password": "long-enough\n"}, "impossible password: understudy_database_password"),
    "a password with a quote": ({"understudy_replication_password": "long'enough"}, "impossible password: understudy_replication_password"),
    "equal passwords": ({"understudy_replication_password": DATABASE_PASSWORD}, "equal passwords: "),
    "the user's name as password": ({"understudy_database_user": "longname", "understudy_database_password": "longname"}, "equal passwords: "),
    "an impossible prefix": ({"understudy_prefix": "Under.study"}, "impossible prefix: 'Under.study'; try: "),
    "an unknown threshold": ({"understudy_thresholds": {"suspicion": 1}}, "suspicion"),
    "an unknown mode": ({"understudy_mode": "watch"}, "impossible mode: understudy_mode 'watch'; try: "),
    "an impossible size": ({"understudy_node_shm_size": "much"}, "impossible size: understudy_node_shm_size 'much'; try: "),
    "an impossible setting": ({"understudy_postgresql_settings": {"a b": 1}}, "impossible setting: understudy_postgresql_settings"),
    "a setting on which the pair rests": ({"understudy_postgresql_settings": {"synchronous_commit": "off"}}, "holds synchronous_commit; the pair rests on it"),
    "an impossible port": ({"understudy_app_port": 70000}, "impossible port: 70000; try: "),
    "too little disk": ({"pre_checks_free_disk_mebibytes": 999999999}, "too little disk: "),
    "programs that were not built": ({"understudy_binaries_directory": "/nowhere"}, "program not built: '/nowhere/failover-check'; try: make build"),
}


@suite.check
def bad_input_is_refused_before_anything_changes():
    def refuse(item):
        name, (values, message) = item
        refusal = lay_down(**values).refused(message)
        for secret in (DATABASE_PASSWORD, REPLICATION_PASSWORD, "short-7", "long'enough", "long-enough"):
            expect(secret not in refusal.output, f"{name}: the output shows a password", refusal.output)
        print(f"    {name}", flush=True)

    # Side by side, since a refusal touches nothing; one after the other they take minutes.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(refuse, REFUSALS.items()))
    expect(traces() == [], "nothing should exist after a refusal", traces())


@suite.check
def a_port_that_something_else_uses_is_refused():
    with socket.create_server(("127.0.0.1", PORT)):
        lay_down().refused(f"port in use: {PORT}, by something that is not this installation; try: ")
        said = run("scripts/preflight", "tests/playbooks/installation.yml", may_fail=True)
        expect(said.startswith(f"make up: port in use: {PORT}; try: "), "preflight should refuse, too", said)
    expect(traces() == [], "nothing should exist after a refusal", traces())


# --- Laid down --------------------------------------------------------------------------------------------------------


@suite.check(always=True)
def everything_is_laid_down():
    lay_down().succeeded()
    state = json.loads(failover_check("status", "--json"))
    expect(state["healthy"] is True, "the pair should be healthy", state)


@suite.check
def a_check_of_what_is_laid_down_changes_nothing():
    lay_down("--check", "--diff").succeeded(changed=0)


@suite.check
def a_second_run_changes_nothing_and_without_passwords_keeps_the_stored_ones():
    lay_down(understudy_database_password=None, understudy_replication_password=None).succeeded(changed=0)


@suite.check
def the_containers_are_hardened():
    for name in ("pg-a", "pg-b", "app"):
        seen = inspect(name)
        host = seen["HostConfig"]
        expect(host["ReadonlyRootfs"], f"{name}: the root should be read-only")
        expect(host["CapDrop"] == ["ALL"] and not host["CapAdd"], f"{name}: no capability should be left", host["CapDrop"])
        expect("no-new-privileges" in host["SecurityOpt"], f"{name}: new privileges should be ruled out", host["SecurityOpt"])
        expect(not host["Privileged"], f"{name} should not be privileged")
        expect(seen["Config"]["User"] not in ("", "0", "root"), f"{name} should not run as root", seen["Config"]["User"])
        expect(host["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}, f"{name}: the log should rotate", host["LogConfig"])
        for mount in seen["Mounts"]:
            expect(mount["Type"] == "volume" or not mount["RW"], f"{name}: a folder of the host is writable", mount)
    for name in ("pg-a", "pg-b"):
        host = inspect(name)["HostConfig"]
        expect(host["RestartPolicy"]["Name"] in ("no", ""), f"{name}: only failover-check starts a node", host["RestartPolicy"])
        expect(not host["PortBindings"], f"{name}: no port should be published", host["PortBindings"])


@suite.check
def the_secrets_are_files_and_nothing_else():
    folder = Path(f"/etc/{PREFIX}/secrets")
    failover = (folder / "failover_password").read_text().strip()
    owners = {"failover_password": 0, "postgres/database_password": 5432, "postgres/replication_password": 5432,
              "postgres/failover_password": 5432, "app/database_password": 5000}
    for name, owner in owners.items():
        state = (folder / name).stat()
        expect((state.st_uid, state.st_gid, state.st_mode & 0o777) == (owner, owner, 0o400), f"{name}: owner or mode", state)
    expect(re.fullmatch(r"[A-Za-z0-9]{24,}", failover), "a password that is made has 24 letters and digits or more")

    places = {"the output of a run": lay_down("-vvv", "--diff").succeeded(changed=0).output}
    for name in ("pg-a", "pg-b", "app"):
        places[f"docker inspect {name}"] = json.dumps(inspect(name))
        places[f"the log of {name}"] = run("docker", "logs", f"{PREFIX}-{name}")
        places[f"the image of {name}"] = run("docker", "history", "--no-trunc", inspect(name)["Image"])
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "environ"):
            try:
                places[f"{process}/{file}"] = (process / file).read_bytes().decode(errors="replace")
            except OSError:
                pass  # a process that has ended, or a thread of the kernel
    for file in [*Path(f"/var/log/{PREFIX}").rglob("*"), *Path(f"/var/lib/{PREFIX}").rglob("*")]:
        places[str(file)] = file.read_text(errors="replace")
    for secret in (DATABASE_PASSWORD, REPLICATION_PASSWORD, failover):
        for place, text in places.items():
            expect(secret not in text, f"{place} shows a password")


@suite.check
def what_does_not_fit_to_the_installation_is_refused():
    before = traces()
    lay_down(understudy_database_password="another-password").refused(
        "password differs from the stored one: understudy_database_password; try: ")
    lay_down(understudy_database="another").refused("names differ from those of the data: database 'another'")
    expect(traces() == before, "a refusal should change nothing", sorted(set(before) ^ set(traces())))


@suite.check
def data_without_their_record_or_secrets_are_refused():
    for file, message in (
        (Path(f"/var/lib/{PREFIX}/cluster.json"), f"record missing: '/var/lib/{PREFIX}/cluster.json', while the volumes"),
        (Path(f"/etc/{PREFIX}/secrets/postgres/failover_password"), "stored password missing: failover_password"),
    ):
        aside = file.with_suffix(".aside")
        file.rename(aside)
        try:
            lay_down().refused(message)
            expect(not file.exists(), f"{file} should not have been made anew")
        finally:
            aside.rename(file)
    failover_check("wait-healthy", "--for", "60s")


@suite.check
def a_record_that_cannot_be_read_is_refused():
    record = Path(f"/var/lib/{PREFIX}/cluster.json")
    good = record.read_text()
    try:
        record.write_text("{")
        lay_down().refused(f"record not understood: '{record}'; try: ")
    finally:
        record.write_text(good)
    failover_check("wait-healthy", "--for", "60s")


@suite.check
def the_status_playbook_names_the_primary():
    status = play("status").succeeded(changed=0)
    expect(primary() in status.output, "the status should name the primary", status.output)


@suite.check
def a_persons_failover_moves_the_primary():
    before = primary()
    play("database_failover", "--check").succeeded(changed=0)
    expect(primary() == before, "--check should move nothing")
    play("database_failover", "-e", "understudy_accept_data_loss=yes").refused("not understood: understudy_accept_data_loss='yes'; try: ")
    play("database_failover").succeeded(changed=1)
    expect(primary() != before, "the primary should have moved")
    lay_down().succeeded(changed=0)


@suite.check
def a_switchover_moves_the_primary_where_it_is_told_and_nothing_is_guessed_or_killed_unasked():
    before = primary()
    play("switchover", "-e", f"understudy_switchover_to={before}").succeeded(changed=0)
    play("switchover").succeeded(changed=1)
    expect(primary() != before, "the primary should have moved")
    play("rejoin").refused("no node given: understudy_rejoin_node; try: ")
    play("rejoin", "-e", f"understudy_rejoin_node={before}").succeeded(changed=0)
    play("drill").refused("not understood: understudy_drill=''; try: ")


@suite.check
def a_changed_definition_replaces_both_nodes_without_losing_a_row_and_a_changed_setting_is_reloaded():
    sql("create table if not exists kept (x int); insert into kept values (1)")
    identities = {name: inspect(name)["Id"] for name in ("pg-a", "pg-b")}
    changed = {"understudy_node_shm_size": "192m", "understudy_postgresql_settings": {"work_mem": "7MB"}}
    lay_down(**changed).succeeded()
    for name, identity in identities.items():
        expect(inspect(name)["Id"] != identity, f"{name} should have been replaced")
    expect(sql("select count(*) from kept") == "1", "the row should still be there")
    expect(sql("show work_mem") == "7MB", "work_mem should be 7MB", sql("show work_mem"))
    # The definition as it is, so that no node is replaced; what is left of it goes with the removal.
    changed["understudy_postgresql_settings"] = {"work_mem": "9MB"}
    replaced = {name: inspect(name)["Id"] for name in ("pg-a", "pg-b")}
    lay_down(**changed).succeeded()
    deadline = time.monotonic() + 10
    while sql("show work_mem") != "9MB":
        expect(time.monotonic() < deadline, "work_mem should be 9MB by now", sql("show work_mem"))
        time.sleep(0.2)
    expect({name: inspect(name)["Id"] for name in replaced} == replaced, "a changed setting should replace no node")
    lay_down(**changed).succeeded(changed=0)


# --- Taken away -------------------------------------------------------------------------------------------------------


@suite.check
def a_removal_keeps_the_data():
    sql("create table if not exists stays (x int); insert into stays values (1)")
    before = traces()
    play("remove_containers", "--check", "--diff").succeeded()
    play("remove_containers", "-e", "understudy_remove_data=yes").refused("not understood: understudy_remove_data='yes'; try: ")
    expect(traces() == before, "neither --check nor a refusal should remove anything", sorted(set(before) ^ set(traces())))
    play("remove_containers").succeeded()
    left = [line for line in traces() if not line.startswith("/")]
    expect(left == [f"volume {PREFIX}-pg-a", f"volume {PREFIX}-pg-b"], "only the volumes should be left", left)
    expect(Path(f"/var/lib/{PREFIX}/cluster.json").exists(), "the record should be left")
    play("remove_containers").succeeded(changed=0)
    lay_down().succeeded()
    expect(sql("select count(*) from stays") == "1", "the row should be there again")


@suite.check(always=True)
def a_removal_with_the_data_leaves_nothing():
    play("remove_containers", "-e", DELETE).succeeded()
    expect(traces() == [], "nothing should be left", traces())
    play("remove_containers", "-e", DELETE).succeeded(changed=0)
