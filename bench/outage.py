"""Our own pair: from the fault to the next acknowledged write, and where the time goes."""

import contextlib
import datetime
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

from measure import CLIENT, Failed, Results, Writer, now, quantile, run, say, table, trials

PREFIX = "understudy-bench"
INSTALLATION = "bench/installation.yml"
SETTINGS = f"/etc/{PREFIX}/failover-check.toml"
STATE = Path(f"/var/lib/{PREFIX}")
SECRETS = f"/etc/{PREFIX}/secrets/app"

# The steps, as the history names them, with the words of the table. The first is the Engine's own, which nobody waits for: the kernel has told of the end.
STEPS = {
    "die": "the Engine tells of the container's end",
    "failover_begun": "decided",
    "switchover_begun": "begun",
    "fenced": "fenced",
    "replayed": "replayed",
    "promote_requested": "promotion asked for",
    "writable": "seen writable",
    "recorded": "recorded",
}

FAULTS = {
    "dead": "dead container (kill -9 of its first process, which is the postmaster)",
    "switchover": "planned switchover",
    "frozen": "frozen container (docker pause)",
    "postmaster_frozen": "postmaster alone stopped (SIGSTOP)",
}

# How often each fault is made, unless TRIALS says otherwise.
TRIALS = {"dead": 10, "switchover": 5, "frozen": 5, "postmaster_frozen": 2}


def playbook(name, *more):
    return [".venv/bin/ansible-playbook", "-i", "inventory/local.yml", "-e", "@variables/target.yml", "-e", f"@{INSTALLATION}",
            f"playbooks/{name}.yml", *more]


def lay_down():
    run(*playbook("run_containers", "-e", "understudy_generate_passwords=true", "-e", "understudy_database_password=",
                  "-e", "understudy_replication_password="), limit=900)


def take_away():
    run(*playbook("remove_containers", "-e", "understudy_remove_data=yes-delete-all-data"), limit=300)


@contextlib.contextmanager
def installation():
    """A pair of its own, without what an interrupted run left, and taken away whatever comes."""
    say(f"laying the installation '{PREFIX}' down")
    take_away()
    try:
        lay_down()
        yield
    finally:
        say(f"removing the installation '{PREFIX}'")
        take_away()


def failover_check(*arguments, **more):
    return run("/usr/local/sbin/failover-check", "--settings", SETTINGS, *arguments, **more)


def roles():
    primary = json.loads((STATE / "cluster.json").read_text())["primary"]
    return primary, {"pg-a": "pg-b", "pg-b": "pg-a"}[primary]


def wait_healthy():
    failover_check("wait-healthy", "--for", "120s", limit=150)


def history(since):
    """The events after a time of day, oldest first."""
    events = [json.loads(line) for line in (STATE / "events.jsonl").read_text().splitlines()]
    return [{**event, "at": datetime.datetime.fromisoformat(event["at"]).timestamp()} for event in events
            if datetime.datetime.fromisoformat(event["at"]).timestamp() >= since]


class Endings:
    """When the Engine says that a container has ended, by the Engine's own clock reading."""

    def __enter__(self):
        self.seen = []
        self.process = subprocess.Popen(
            ["docker", "events", "--filter", "type=container", "--filter", "event=die", "--format", "{{.Actor.Attributes.name}} {{.TimeNano}}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        os.set_blocking(self.process.stdout.fileno(), False)
        return self

    def first(self, container, since):
        for line in self.process.stdout.readlines():
            name, nanoseconds = line.split()
            self.seen.append((name, int(nanoseconds) / 1e9))
        return next((at for name, at in self.seen if name == container and at >= since), None)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def address(node):
    return run("docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", f"{PREFIX}-{node}")


def login():
    """As the app logs in."""
    listed = run("docker", "inspect", "--format", "{{range .Config.Env}}{{println .}}{{end}}", f"{PREFIX}-app").splitlines()
    environment = dict(line.split("=", 1) for line in listed if "=" in line)
    return ["--database", environment["UNDERSTUDY_DATABASE"], "--user", environment["UNDERSTUDY_DATABASE_USER"]]


def in_the_network(name, *arguments):
    """The client in a container on the pair's network, where nodes have names, as the app is."""
    image = run("docker", "inspect", "--format", "{{.Config.Image}}", f"{PREFIX}-app")
    command = ["docker", "run", "--rm", "--interactive", "--log-driver", "none", "--network", PREFIX, "--read-only", "--cap-drop", "ALL",
               "--volume", f"{CLIENT}:/write_client:ro", "--volume", f"{STATE}:/var/lib/understudy:ro",
               "--volume", f"{SECRETS}:/run/secrets/understudy:ro", "--entrypoint", "/write_client", image, *login(), "--password-file",
               "/run/secrets/understudy/database_password", *arguments]
    return Writer(name, command)


def on_the_host(name, *arguments):
    """The client on the host, which reaches the nodes by their addresses."""
    return Writer(name, [CLIENT, *login(), "--password-file", f"{SECRETS}/database_password", *arguments])


def by_names(order, *more):
    return ["--follow", "list", "--hosts", ",".join(f"{node}:5432" for node in order), *more]


def by_addresses(order, *more):
    return ["--follow", "list", "--hosts", ",".join(f"{address(node)}:5432" for node in order), *more]


# How each client finds the primary; the old primary comes first in a list unless its name says otherwise, which is the worst order.
CLIENTS = {
    "record": lambda old, new: in_the_network("record", "--follow", "record"),
    "list": lambda old, new: in_the_network("list", *by_names([old, new])),
    "list, standby first": lambda old, new: in_the_network("list, standby first", *by_names([new, old])),
    "list of addresses": lambda old, new: on_the_host("list of addresses", *by_addresses([old, new])),
    "list of addresses, connect_timeout=5": lambda old, new: on_the_host(
        "list of addresses, connect_timeout=5", *by_addresses([old, new], "--connect-timeout", "5s")),
    "list of addresses, connect_timeout=200ms": lambda old, new: on_the_host(
        "list of addresses, connect_timeout=200ms", *by_addresses([old, new], "--connect-timeout", "200ms")),
    "list of addresses, tcp_user_timeout=300ms": lambda old, new: on_the_host(
        "list of addresses, tcp_user_timeout=300ms", *by_addresses([old, new], "--connect-timeout", "5s", "--tcp-user-timeout", "300ms")),
}


def postmaster(node):
    return int(run("docker", "inspect", "--format", "{{.State.Pid}}", f"{PREFIX}-{node}"))


def cause(fault, old):
    """Prepares a fault, so that nothing but the fault itself lies behind the begin; and how to undo what is left of it."""
    container = f"{PREFIX}-{old}"
    nothing = lambda: None
    if fault == "dead":
        process = postmaster(old)
        return lambda: os.kill(process, signal.SIGKILL), nothing
    if fault == "postmaster_frozen":
        process = postmaster(old)
        return lambda: os.kill(process, signal.SIGSTOP), lambda: run("docker", "kill", "--signal", "CONT", container, check=False)
    if fault == "frozen":
        return lambda: run("docker", "pause", container), nothing
    return lambda: failover_check("switchover", limit=180), nothing


def trial(fault, clients, endings):
    """One fault; what each client saw of it, and when each step was done, in seconds from the fault."""
    wait_healthy()
    old, new = roles()
    writers = [CLIENTS[name](old, new) for name in clients]
    try:
        for writer in writers:
            writer.wait_writing()
        # At no fixed distance from the last pass, which comes once a second.
        time.sleep(1 + random.random())
        make, undo = cause(fault, old)
        hosts = {new, f"{new}:5432", f"{address(new)}:5432"}
        day, begun = time.time(), now()
        make()
        seen = {}
        for writer in writers:
            try:
                # A frozen primary may acknowledge a last row when the fence thaws it to kill it; what counts is the new one's first.
                written = writer.wait_writing(since=begun, limit=30 if fault == "postmaster_frozen" else 90, hosts=hosts)
            except Failed:
                if fault != "postmaster_frozen":
                    raise
                seen[writer.name] = {"outage": None, "failed": []}
                continue
            last = writer.last_before(begun)
            tried = [(event["host"], event["why"], round(event["seconds"], 3)) for event in writer.failed_attempts(begun, written["at"])]
            seen[writer.name] = {"outage": round(written["at"] - last, 4), "since_fault": round(written["at"] - begun, 4), "failed": tried}
        undo()
        wait_healthy()
        for writer in writers:
            counted = writer.stop()
            seen[writer.name].update(acknowledged=counted["acknowledged"], lost=counted["lost"])
            if seen[writer.name]["outage"] is None:
                # Nothing moved: the connections that were open went on.
                seen[writer.name]["outage"] = round(counted["longest_gap"], 4)
    finally:
        for writer in writers:
            writer.kill()
    moved = roles()[0] == new
    if not moved and fault != "postmaster_frozen":
        raise Failed(f"the primary is {roles()[0]} after {fault}, not {new}")
    times = {event["event"]: event["at"] - day for event in reversed(history(day))}
    ended = endings.first(f"{PREFIX}-{old}", day)
    if ended is not None:
        times["die"] = ended - day
    return {"from": old, "to": new, "what": "failover" if moved else "no failover: open connections went on writing", "seen": seen, "steps": {name: round(times[name], 4) for name in STEPS if name in times}}


def measure(faults=tuple(FAULTS), clients=("record", "list"), name="outage"):
    results = Results(name).begin()
    with installation(), Endings() as endings:
        for fault in faults:
            count = trials(TRIALS[fault])
            for number in range(1, count + 1):
                found = trial(fault, clients, endings)
                results.add(tool="understudy", settings="default", fault=fault, trial=number, **found)
                said = f"{found['what']}, " + ", ".join(f"{client} {seen['outage']:.3f} s ({seen['lost']} lost)" for client, seen in found["seen"].items())
                say(f"{fault} {number}/{count}: {said}")
    return results


def in_seconds(values):
    """Median, 95th percentile and range of a list of seconds."""
    return [f"**{quantile(values, 0.5):.3f}**", f"{quantile(values, 0.95):.3f}", f"{min(values):.3f}–{max(values):.3f}"]


def describe_clients(lines):
    """What each client saw of each fault."""
    rows = []
    for fault, words in FAULTS.items():
        found = [line for line in lines if line["fault"] == fault]
        for client in dict.fromkeys(client for line in found for client in line["seen"]):
            seen = [line["seen"][client] for line in found if client in line["seen"]]
            what = " / ".join(dict.fromkeys(line["what"] for line in found))
            rows.append([words, client, what, len(seen), *in_seconds([one["outage"] for one in seen]), sum(one["acknowledged"] for one in seen),
                         sum(one["lost"] for one in seen)])
    return table(["fault", "client", "what happened", "n", "median, s", "p95, s", "min–max, s", "rows acknowledged", "rows lost"], rows)


def describe_steps(lines):
    """When each step was done, and how much of the time was its own."""
    parts = []
    for fault, words in FAULTS.items():
        found = [line for line in lines if line["fault"] == fault and line["what"] == "failover"]
        if not found:
            continue
        steps = []
        for step, step_words in [*STEPS.items(), ("write", "first write (client that follows the record)")]:
            times = [line["seen"].get("record", {}).get("since_fault") if step == "write" else line["steps"].get(step) for line in found]
            if None not in times:
                steps.append((quantile(times, 0.5), step_words, times))
        rows = []
        before = [0.0] * len(found)
        # In the order in which they came: a fence ends the container of a frozen primary, while a dead one's end is the first that is heard of it.
        for middle, step_words, times in sorted(steps):
            shares = [time - last for time, last in zip(times, before)]
            rows.append([step_words, f"{middle:.3f}", f"{quantile(shares, 0.5):.3f}", f"{max(shares):.3f}"])
            before = times
        parts.append(f"{words}: when each step was done\n\n"
                     + table(["step", "since the fault, median, s", "of which this step, median, s", "longest, s"], rows))
    return "\n\n".join(parts)


def describe(lines):
    return f"{describe_clients(lines)}\n\n{describe_steps(lines)}"
