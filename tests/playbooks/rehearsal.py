"""The rehearsal: `vagrant up --provider=docker` with Debian's Vagrant, and what the Vagrantfile and scripts/rehearse promise.

The machine has names and ports of its own, so that an operator's rehearsal on the same machine stays as it is.
"""

import json
import re
import shlex
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import yaml
from support import ROOT, Play, Suite, expect, run

NAME = "understudy-test-rehearsal"
SSH_PORT, APP_PORT = 2245, 5081
FOLDER = ROOT / ".cache/test-rehearsal"
VARIABLES = FOLDER / "variables.yml"
ENVIRONMENT = {"REHEARSAL_VARIABLES": str(VARIABLES), "VAGRANT_DOTFILE_PATH": str(FOLDER / "vagrant"), "VAGRANT_CHECKPOINT_DISABLE": "1"}


def vagrant(*arguments, may_fail=False, **environment):
    return run("vagrant", *arguments, may_fail=may_fail, environment={**ENVIRONMENT, **environment})


def up(may_fail=False, **environment):
    return vagrant("up", "--provider=docker", may_fail=may_fail, **environment)


def on_machine(command, may_fail=False):
    return vagrant("ssh", "--no-tty", "--command", f"sudo sh -c {shlex.quote(command)}", may_fail=may_fail)


def status():
    said = on_machine("failover-check status --json", may_fail=True)
    return json.loads(next(line for line in said.splitlines() if line.startswith("{")))


def answers(path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{APP_PORT}{path}", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def write_variables(**values):
    """What differs from variables/rehearsal.yml."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    values = {"rehearsal_name": NAME, "rehearsal_ssh_port": SSH_PORT, "rehearsal_app_port": APP_PORT, **values}
    VARIABLES.write_text(yaml.safe_dump(values))


def traces():
    """What of the machine exists in the Engine."""
    found = []
    for kind, form in (("container", "{{.Names}}"), ("volume", "{{.Name}}"), ("network", "{{.Name}}")):
        listed = run("docker", kind, "ls", *(["--all"] if kind == "container" else []), "--format", form)
        found += [f"{kind} {name}" for name in listed.splitlines() if NAME in name]
    return found


def volumes():
    return set(run("docker", "volume", "ls", "--quiet").splitlines())


volumes_before = set()


def begin():
    run("scripts/rehearse", "install")
    remove()


def remove():
    write_variables()
    run("scripts/rehearse", "down", environment=ENVIRONMENT)


def explain():
    return on_machine("failover-check history --limit 40; systemctl --failed; journalctl --no-pager --lines 40", may_fail=True)


suite = Suite(before=begin, after=remove, explain=explain)


@contextmanager
def clone_without(missing):
    """This repository, as Vagrant sees it, without one of its folders."""
    with tempfile.TemporaryDirectory() as folder:
        for entry in ("scripts", "variables", "playbooks", ".venv", "target"):
            if entry != missing:
                Path(folder, entry).symlink_to(ROOT / entry)
        shutil.copy(ROOT / "Vagrantfile", folder)
        yield folder


def refused(message, **environment):
    said = re.sub(r"\s+", " ", up(may_fail=True, **environment))
    expect(message in said, f"the refusal should say '{message}'", said)
    expect(traces() == [], "nothing should exist after a refusal", traces())


# --- What cannot work -------------------------------------------------------------------------------------------------


@suite.check
def what_is_missing_is_said_before_anything_is_made():
    write_variables(rehearsal_image="understudy-rehearsal:nowhere")
    refused("image missing: 'understudy-rehearsal:nowhere'; try: make rehearsal-image")
    write_variables(rehearsal_key=".cache/test-rehearsal/no-key")
    refused("key of the rehearsal machine missing: '.cache/test-rehearsal/no-key'; try: make rehearsal-image")
    write_variables(rehearsal_key=str(ROOT / ".cache/rehearsal/key"))
    with clone_without(".venv") as folder:
        refused("ansible-playbook missing: '.venv/bin'; try: make setup", VAGRANT_CWD=folder)
    with clone_without("target") as folder:
        refused("program not built: 'target/x86_64-unknown-linux-gnu/release/failover-check'; try: make build", VAGRANT_CWD=folder)
    write_variables()


@suite.check
def a_port_or_a_name_in_use_is_refused():
    for port, variable in ((SSH_PORT, "rehearsal_ssh_port"), (APP_PORT, "rehearsal_app_port")):
        with socket.create_server(("127.0.0.1", port)):
            refused(f"port in use: {port} on 127.0.0.1; try: another {variable} in variables/rehearsal.yml")
    run("docker", "create", "--name", NAME, "understudy-rehearsal:trixie")
    try:
        said = up(may_fail=True)
        expect(f"name in use: container '{NAME}' is there, and is not this folder's machine; try: " in said, "the name should be refused", said)
    finally:
        run("docker", "rm", NAME)


@suite.check
def without_a_machine_the_inventory_says_so():
    for playbook in ("status", "configure_instance"):
        Play(playbook, "-i", "inventory/vagrant.yml", environment=ENVIRONMENT).refused("no host: Vagrant has made no machine; try: make rehearse")


@suite.check
def there_is_nothing_to_take_away_twice():
    said = run("scripts/rehearse", "down", environment=ENVIRONMENT)
    expect("there is nothing to take away" in said, "a second removal should do nothing", said)


@suite.check
def the_vagrantfile_is_valid():
    # Without VirtualBox on this machine its own settings cannot be validated, the rest can.
    for provider in ("virtualbox", "docker"):
        said = vagrant("validate", "--ignore-provider", VAGRANT_DEFAULT_PROVIDER=provider)
        expect("validated successfully" in said, f"the Vagrantfile should be valid for {provider}", said)


# --- Up ---------------------------------------------------------------------------------------------------------------


@suite.check(always=True)
def vagrant_up_lays_everything_down():
    volumes_before.update(volumes())
    # As with a virtual environment that is not active.
    said = up(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    expect(f"http://127.0.0.1:{APP_PORT}/ready" in said, "the end should say where the app is", said)
    on_machine("failover-check wait-healthy --for 60s")
    expect((answers("/health"), answers("/ready")) == (200, 200), "the app should answer through the forwarded port")


@suite.check
def the_inventory_leads_to_the_machine():
    said = Play("status", "-i", "inventory/vagrant.yml", environment=ENVIRONMENT).succeeded(changed=0)
    expect("healthy: the primary is writable" in said.output, "the status should come from the machine", said.output)


@suite.check
def a_second_provision_changes_nothing():
    said = vagrant("provision")
    changed = re.findall(rf"^{NAME} .*changed=(\d+)", said, re.M)
    expect(changed == ["0", "0"], f"both playbooks should change nothing, got {changed}", said)


@suite.check
def the_memory_is_what_the_variables_say():
    limit = int(run("docker", "inspect", "--format", "{{.HostConfig.Memory}}", NAME))
    wanted = yaml.safe_load((ROOT / "variables/rehearsal.yml").read_text())["rehearsal_memory_mebibytes"]
    expect(limit == wanted * 2**20, f"expected a limit of {wanted} MiB, got {limit} bytes")


@suite.check
def rehearse_kills_the_primary_and_reports():
    before = status()
    said = run("scripts/rehearse", environment=ENVIRONMENT)
    for line in ("primary before", "not ready, seen from here", "failover_finished", "everything held"):
        expect(line in said, f"the report should hold '{line}'", said)
    after = status()
    expect((after["primary"], after["epoch"]) == (before["standby"], before["epoch"] + 1), "the primary should have moved once", after)
    print("  " + re.search(r"  not ready, seen from here.*", said).group())


@suite.check
def a_reload_and_a_halt_keep_the_recorded_roles():
    # The first primary is pg-a; here the other one is it, so that beginning anew would be seen.
    if status()["primary"] == "pg-a":
        on_machine("failover-check switchover")
    before = status()
    for how in (("reload",), ("halt", "up")):
        began = time.monotonic()
        for word in how:
            vagrant(word)
        on_machine("failover-check wait-healthy --for 180s")
        after = status()
        expect((after["primary"], after["epoch"]) == (before["primary"], before["epoch"]), f"the roles should outlive {how}", after)
        expect(answers("/ready") == 200, "the app should be ready")
        print(f"    {' and '.join(how)}: healthy again after {time.monotonic() - began:.0f} s")


# --- Taken away -------------------------------------------------------------------------------------------------------


@suite.check
def destroy_leaves_nothing():
    vagrant("destroy", "--force")
    expect(traces() == [], "nothing should be left", traces())
    expect(volumes() <= volumes_before, "no volume should be left", volumes() - volumes_before)
    Play("status", "-i", "inventory/vagrant.yml", environment=ENVIRONMENT).refused("no host: Vagrant has made no machine")
