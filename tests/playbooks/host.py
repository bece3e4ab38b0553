"""The whole road to a host over SSH: launched on moto's EC2, configured, rebooted, laid down, broken, terminated.

The host is a container with systemd and sshd, at the private address that the launch asks for; it has 1 GiB of memory, as a t3.micro.
"""

import json
import os
import re
import shlex
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from moto import REGION, Moto
from support import ROOT, Failed, Play, Suite, expect, run

NAME = "understudy-host"  # of the container, its network and its volume
SUBNET, ADDRESS = "172.28.77.0/24", "172.28.77.10"
REHEARSAL = yaml.safe_load((ROOT / "variables/rehearsal.yml").read_text())  # what scripts/make-rehearsal-image makes
KEY = ROOT / REHEARSAL["rehearsal_key"]
OLDEST = str(ROOT / ".cache/oldest-ansible/bin/ansible-playbook")  # the oldest ansible-core that the README names
MEMORY = "1g"


class World:
    """moto's account, and the host that answers where the instance should be."""

    moto = None
    variables = None  # the file beside variables/target.yml
    environment = {}
    killed = 0  # processes that the kernel killed for want of memory
    peak_memory = 0  # bytes that processes and tmpfs of the host took at most; pages of files not counted

    def start(self):
        self.moto = Moto().start()
        ec2 = self.moto.client()
        vpc = ec2.create_vpc(CidrBlock=SUBNET)["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=SUBNET)["Subnet"]["SubnetId"]
        ec2.import_key_pair(KeyName="rehearsal", PublicKeyMaterial=KEY.with_suffix(".pub").read_bytes())
        values = {
            "understudy_ec2_name": NAME, "understudy_ec2_subnet_id": subnet, "understudy_ec2_private_address": ADDRESS,
            "understudy_ec2_public_address": False, "understudy_ec2_key_pair": "rehearsal", "understudy_ec2_private_key_file": str(KEY),
            "understudy_ec2_ssh_from": [SUBNET], "understudy_ec2_app_from": [SUBNET], "understudy_ec2_region": REGION,
            "understudy_ec2_ssh_seconds": 180,  # a limit only: a container boots slowly beside two other suites
        }
        self.variables = tempfile.NamedTemporaryFile("w", suffix=".yml")
        yaml.safe_dump(values, self.variables)
        self.variables.flush()
        self.environment = {**self.moto.environment, "ANSIBLE_INVENTORY": str(ROOT / "inventory/aws_ec2.yml")}
        run("docker", "network", "create", "--subnet", SUBNET, NAME)
        threading.Thread(target=self.watch_memory, daemon=True).start()

    def start_host(self):
        options = run("scripts/rehearsal-host-options").splitlines()
        run("docker", "run", "--detach", *options, f"--name={NAME}", f"--hostname={NAME}", f"--network={NAME}", f"--ip={ADDRESS}",
            f"--memory={MEMORY}", f"--memory-swap={MEMORY}", f"--volume={NAME}:/var/lib/docker",
            f"--env=REHEARSAL_AUTHORIZED_KEY={KEY.with_suffix('.pub').read_text().strip()}", REHEARSAL["rehearsal_image"])

    def cgroup(self, file):
        """The first cgroup of the host that has this file: the Engine's cgroup driver decides where it lies."""
        identity = run("docker", "inspect", "--format", "{{.Id}}", NAME, may_fail=True)
        if not re.fullmatch(r"[0-9a-f]{64}", identity):
            return None
        roots = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
        places = [root / form for root in roots for form in (f"docker/{identity}", f"system.slice/docker-{identity}.scope")]
        return next((place / file for place in places if (place / file).exists()), None)

    def watch_memory(self):
        """Each second, since a reboot gives the host a new cgroup, whose counters begin at 0."""
        counted = 0
        while self.moto:
            counter = self.cgroup("memory.oom_control") or self.cgroup("memory.events")
            try:
                found = re.search(r"^oom_kill (\d+)$", counter.read_text(), re.M) if counter else None
            except OSError:
                found = None
            if found:
                self.killed += max(0, int(found.group(1)) - counted)
                counted = int(found.group(1))
            file = self.cgroup("memory.stat")
            try:
                values = dict(line.split() for line in file.read_text().splitlines()) if file else {}
            except OSError:
                values = {}  # the host reboots at this moment
            # Version 1 counts shared memory as a part of the cache, version 2 calls processes' memory `anon`.
            used = sum(int(values.get(name, 0)) for name in ("total_rss", "total_shmem", "anon", "shmem"))
            self.peak_memory = max(self.peak_memory, used)
            time.sleep(1)

    def remove(self):
        if self.moto:
            self.moto.stop()
            self.moto = None
        run("docker", "rm", "--force", NAME, may_fail=True)
        for kind in ("volume", "network"):
            if NAME in run("docker", kind, "ls", "--format", "{{.Name}}").splitlines():
                run("docker", kind, "rm", NAME)


world = World()


def begin():
    world.remove()
    world.start()


def explain():
    return on_host("failover-check history --limit 40; journalctl --no-pager --lines 40", may_fail=True)


suite = Suite(before=begin, after=world.remove, explain=explain)


def play(playbook, *arguments, program=".venv/bin/ansible-playbook", key=KEY):
    environment = dict(world.environment)
    if program == OLDEST:
        # The collections are those of .venv.
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(next((ROOT / ".venv/lib").glob("python3*")) / "site-packages")
    return Play(playbook, *(["--private-key", str(key)] if key else []), *arguments, variables=[world.variables.name],
                environment=environment, program=program)


def lay_down(*arguments, **options):
    given = ["-e", "understudy_database=shop", "-e", "understudy_database_user=shop_app", "-e", "understudy_generate_passwords=true",
             "-e", "understudy_database_password=", "-e", "understudy_replication_password="]
    return play("run_containers", *given, *arguments, **options)


def on_host(command, may_fail=False):
    """Runs a command line on the host as root; over SSH, as an operator would."""
    return run("ssh", "-i", str(KEY), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
               "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5", f"admin@{ADDRESS}", f"sudo sh -c {shlex.quote(command)}", may_fail=may_fail)


def until(what, seconds, question):
    """The first answer that is true, within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = question()
        except (Failed, OSError, ValueError):
            answer = None
        if answer:
            return answer
        expect(time.monotonic() < deadline, f"{what} within {seconds} s")
        time.sleep(0.5)


def boot():
    return on_host("cat /proc/sys/kernel/random/boot_id")


def record():
    return json.loads(on_host("cat /var/lib/understudy/cluster.json"))


def healthy():
    return json.loads(on_host("failover-check status --json", may_fail=True))["healthy"]


def answers(path, method="GET"):
    """The HTTP status of the app, asked from outside the host."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{ADDRESS}:5000{path}", method=method), timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


WRITER = """
trap "exit 0" TERM
while :; do
    row=$(date +%s%N)
    if [ "$(psql 'host=pg-a,pg-b user=shop_app dbname=shop connect_timeout=2 target_session_attrs=read-write' -XAtqc "insert into written values ($row) returning row" 2>>/written/errors)" = "$row" ]; then
        echo "$row" >> /written/rows
    fi
done
"""


def start_writer():
    """A client on the host that writes row after row, each over a new connection, and notes those that were acknowledged."""
    script = f"""
        set -e
        install -d -o 5432 -g 5432 /var/lib/writer
        echo PGPASSWORD=$(cat /etc/understudy/secrets/app/database_password) > /var/lib/writer.env
        image=$(docker inspect --format '{{{{.Config.Image}}}}' understudy-pg-a)
        docker exec understudy-$(grep -o '"primary": *"[a-z-]*' /var/lib/understudy/cluster.json | grep -o 'pg-.$') psql -XAtq -h /run/postgresql -U postgres -d shop \
            -c 'create table written (row bigint primary key)' -c 'alter table written owner to shop_app'
        docker run --detach --name writer --network understudy --restart unless-stopped --env-file /var/lib/writer.env \
            --volume /var/lib/writer:/written --volume /root/write:/write:ro --entrypoint sh $image /write
    """
    for name, text in (("write", WRITER), ("start-writer", script)):
        done = subprocess.run(["docker", "exec", "--interactive", NAME, "sh", "-c", f"cat > /root/{name}"], input=text, text=True, capture_output=True)
        expect(done.returncode == 0, f"{name} should be on the host", done.stderr)
    on_host("sh /root/start-writer")


def expect_nothing_lost(since):
    """Every acknowledged row is there, and rows were acknowledged after `since`, a time in nanoseconds. Returns how many in all."""
    until("the writer should write again", 60, lambda: int(on_host("tail -n 1 /var/lib/writer/rows")) > since)
    acknowledged = on_host("cat /var/lib/writer/rows").split()
    node = f"understudy-{record()['primary']}"
    there = set(on_host(f"docker exec {node} psql -XAtq -h /run/postgresql -U postgres -d shop -c 'select row from written'").split())
    lost = [row for row in acknowledged if row not in there]
    expect(not lost, f"{len(lost)} of {len(acknowledged)} acknowledged rows are lost", lost[:5])
    return len(acknowledged)


def state_of_the_host():
    """What a check must not change: packages, and files of the configuration."""
    return on_host("dpkg-query --show; find /etc -type f -newer /etc/machine-id -printf '%p %T@\\n' | sort; ls /usr/local/sbin /var/lib")


# --- Launched ---------------------------------------------------------------------------------------------------------


@suite.check(always=True)
def a_launch_waits_for_the_hosts_ssh():
    def boot_when_launched():
        ec2 = world.moto.client()
        until("an instance", 300, lambda: ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])["Reservations"])
        time.sleep(15)  # longer than the launch needs to its first look at the port
        world.start_host()
        return time.monotonic()

    with ThreadPoolExecutor() as pool:
        booted = pool.submit(boot_when_launched)
        launch = play("launch_ec2_instance")
        ended = time.monotonic()
        # First: where the host was never started, this says why.
        began = booted.result()
    launch.succeeded()
    expect(began < ended, "the launch should have waited for the host", launch.output)
    expect("configure_instance.yml" in launch.output, "the launch should say what comes next", launch.output)
    play("launch_ec2_instance").succeeded(changed=0)


# --- Configured -------------------------------------------------------------------------------------------------------


@suite.check
def a_key_that_others_can_read_is_refused():
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(KEY.read_bytes())
        copy.flush()
        os.chmod(copy.name, 0o644)
        play("configure_instance", key=copy.name).refused(f"private key readable by others: '{copy.name}' has mode 0644; try: chmod 600")
    play("configure_instance", key="/nowhere/key").refused("private key missing: '/nowhere/key'; try: ")


@suite.check
def an_inventory_without_the_host_is_refused():
    play("configure_instance", "-e", "understudy_ec2_name=another").refused("no host: group 'understudy' is empty in ")


@suite.check
def a_key_that_the_host_does_not_know_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/key")
        play("configure_instance", key=f"{folder}/key").refused(f"' at '{ADDRESS}' does not take the key for the user 'admin'; try: --private-key")


@suite.check
def a_host_that_does_not_answer_is_reported():
    run("docker", "pause", NAME)
    try:
        play("configure_instance", "-e", "target_hosts_ssh_seconds=3").refused(f"' at '{ADDRESS}' did not let Ansible in within 3 s")
    finally:
        run("docker", "unpause", NAME)


@suite.check
def a_host_that_is_not_debian_is_refused():
    before = state_of_the_host()
    on_host("cp /etc/os-release /root/os-release && cp /etc/debian_version /root/debian_version && rm /etc/os-release /etc/debian_version && "
            "printf 'NAME=Fedora Linux\\nID=fedora\\nVERSION_ID=43\\nPRETTY_NAME=Fedora\\n' > /etc/os-release && cp /etc/os-release /etc/fedora-release")
    try:
        play("configure_instance").refused("unsupported system: '")
    finally:
        on_host("rm /etc/fedora-release && cp --preserve /root/debian_version /etc/debian_version && rm /etc/os-release && ln -s ../usr/lib/os-release /etc/os-release")
    expect([line for line in state_of_the_host().splitlines() if "debian_version" not in line]
           == [line for line in before.splitlines() if "debian_version" not in line], "a refusal should change nothing")


@suite.check
def run_containers_before_configure_instance_is_refused():
    before = state_of_the_host()
    refusal = lay_down().refused(f"host not configured: no Docker Engine answers on '{NAME}-i-")
    expect("try: playbooks/configure_instance.yml" in re.sub(r"\s+", " ", refusal.output), "it should say what to do", refusal.output)
    expect(state_of_the_host() == before, "a refusal should change nothing")


@suite.check
def a_check_of_a_fresh_host_changes_nothing():
    before = state_of_the_host()
    play("configure_instance", "--check", "--diff").succeeded()
    expect(state_of_the_host() == before, "--check should change nothing")


@suite.check(always=True)
def the_host_is_configured_and_rebooted():
    named = re.search(r"ansible-core (2\.\d+)", (ROOT / "README.md").read_text()).group(1)
    expect(f"core {named}." in run(OLDEST, "--version"), f"{OLDEST} should be ansible-core {named}")
    before = boot()
    # What comes first comes by the oldest ansible-core, the second runs are both's: an older one differs most where most is to be done.
    play("configure_instance", "-e", "understudy_reboot=always", program=OLDEST).succeeded()
    expect(boot() != before, "the host should have been rebooted")
    settings = json.loads(on_host("cat /etc/docker/daemon.json"))
    expect(settings["log-opts"] == {"max-size": "10m", "max-file": "3"}, "the logs should rotate", settings)
    on_host("docker compose version")
    expect(on_host("systemctl is-enabled docker cron").split() == ["enabled", "enabled"], "Engine and cron should start at boot")
    expect('Unattended-Upgrade "1"' in on_host("apt-config dump APT::Periodic"), "security updates should be on")


@suite.check
def a_second_configuration_changes_nothing():
    before = boot()
    play("configure_instance").succeeded(changed=0)
    play("configure_instance", "--check", "--diff").succeeded(changed=0)
    expect(boot() == before, "the host should not have been rebooted")


@suite.check
def a_disk_that_fills_up_while_an_image_is_built_is_reported():
    on_host("systemctl stop docker.socket docker && mount -t tmpfs -o size=192m tmpfs /var/lib/docker && systemctl start docker")
    try:
        refusal = lay_down("-e", "pre_checks_free_disk_mebibytes=1")
        expect(refusal.code != 0 and "No space left" in refusal.output.replace("no space", "No space"), "it should say that the disk is full", refusal.output)
        expect("; try: " in refusal.output and "run this again" in re.sub(r"\s+", " ", refusal.output), "it should say what to do", refusal.output)
        expect(on_host("docker ps --all --quiet --filter name=understudy") == "", "no container should have been made")
    finally:
        on_host("systemctl stop docker.socket docker && umount /var/lib/docker && systemctl start docker")


# --- Laid down --------------------------------------------------------------------------------------------------------


@suite.check
def a_check_of_a_configured_host_changes_nothing():
    before = state_of_the_host()
    lay_down("--check", "--diff").succeeded()
    expect(state_of_the_host() == before, "--check should change nothing")


@suite.check(always=True)
def everything_is_laid_down_and_answers_from_outside():
    lay_down(program=OLDEST).succeeded()
    expect(healthy(), "the pair should be healthy")
    for path in ("/health", "/ready"):
        for method in ("GET", "HEAD"):
            expect(answers(path, method) == 200, f"{method} {path} should be 200 from outside", answers(path, method))
    start_writer()


@suite.check
def a_second_run_changes_nothing():
    lay_down().succeeded(changed=0)
    lay_down("--check", "--diff").succeeded(changed=0)


@suite.check
def a_second_run_by_the_oldest_ansible_that_the_readme_names_changes_nothing():
    play("launch_ec2_instance", program=OLDEST).succeeded(changed=0)
    play("configure_instance", program=OLDEST).succeeded(changed=0)
    lay_down(program=OLDEST).succeeded(changed=0)


# --- Broken -----------------------------------------------------------------------------------------------------------


@suite.check
def a_restarted_engine_comes_back_with_everything():
    before = record()
    restarted = time.time_ns()
    on_host("systemctl restart docker")
    until("the pair should be healthy", 180, healthy)
    until("the app should be ready", 90, lambda: answers("/ready") == 200)
    expect(record()["epoch"] == before["epoch"], "the primary should not have moved", on_host("failover-check history --limit 20"))
    expect_nothing_lost(restarted)


@suite.check
def cron_on_the_host_heals_a_killed_primary():
    before = record()
    killed = time.time_ns()
    on_host(f"docker kill understudy-{before['primary']}")
    until("another primary", 120, lambda: record()["primary"] != before["primary"])
    until("the pair should be healthy", 180, healthy)
    until("the app should be ready", 90, lambda: answers("/ready") == 200)
    expect_nothing_lost(killed)


@suite.check
def a_reboot_of_the_host_brings_everything_back_in_the_recorded_roles():
    before, first = record(), boot()
    rebooted = time.time_ns()
    on_host("systemctl reboot", may_fail=True)
    until("the host should be back", 180, lambda: boot() != first)
    until("the pair should be healthy", 180, healthy)
    until("the app should be ready", 90, lambda: answers("/ready") == 200)
    after = record()
    expect((after["primary"], after["epoch"]) == (before["primary"], before["epoch"]), "the roles should be the recorded ones", after)
    expect_nothing_lost(rebooted)


@suite.check
def a_power_cut_in_the_middle_of_a_failover_loses_nothing():
    before, first = record(), boot()
    other = {"pg-a": "pg-b", "pg-b": "pg-a"}[before["primary"]]
    cut = time.time_ns()
    # As soon as the record names a failover the host is gone, with everything that runs on it. The failover is over before `docker kill` comes back, so the
    # record is watched meanwhile, and by the shell alone: a program started for each look would be too slow.
    on_host(f"""
        docker kill understudy-{before['primary']} &
        while :; do
            while read -r line; do
                case $line in
                    *'"transition": {{'*) systemctl reboot --force --force ;;
                    *'"primary": "{other}"'*) echo "the failover was over before it was seen" >&2; exit 1 ;;
                esac
            done < /var/lib/understudy/cluster.json
        done""", may_fail=True)
    until("the host should be back", 180, lambda: boot() != first)
    until("the pair should be healthy", 180, healthy)
    until("the app should be ready", 90, lambda: answers("/ready") == 200)
    after = record()
    expect(after["transition"] is None, "no transition should be left", after)
    history = on_host("failover-check history --limit 60")
    expect(f"failover_begun  from {before['primary']}" in history, "the failover should have begun before the cut", history)
    rows = expect_nothing_lost(cut)
    print(f"    primary {before['primary']} before, {after['primary']} after; none of {rows} acknowledged rows lost")


@suite.check
def one_gibibyte_of_memory_is_enough():
    expect(world.killed == 0, f"{world.killed} processes were killed for want of memory")
    expect(world.peak_memory > 0, "the memory should have been measured")
    print(f"    at most {world.peak_memory / 2**20:.0f} MiB of 1024 MiB by processes and tmpfs, images built there included")


# --- Taken away -------------------------------------------------------------------------------------------------------


@suite.check
def a_removal_with_the_data_leaves_nothing_on_the_host():
    on_host("docker rm --force writer")
    play("remove_containers", "-e", "understudy_remove_data=yes-delete-all-data").succeeded()
    left = on_host("docker ps --all --quiet; docker volume ls --quiet; docker images --quiet 'understudy-*'; ls -d /etc/understudy /var/lib/understudy", may_fail=True)
    expect("No such file" in left and len(left.splitlines()) == 2, "nothing should be left", left)


@suite.check
def the_instance_is_terminated():
    play("terminate_ec2_instance", "-e", f"understudy_ec2_confirm_name={NAME}", key=None).succeeded()
    states = [i["State"]["Name"] for r in world.moto.client().describe_instances()["Reservations"] for i in r["Instances"]]
    expect(set(states) <= {"terminated"}, "the instance should be terminated", states)
    play("configure_instance").refused("no host: group 'understudy' is empty in ")
