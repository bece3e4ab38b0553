"""The two Ansible modules beside the nearest of community.postgresql: a task's time through ansible-playbook, the program's own, and what is copied."""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from measure import RELEASE, ROOT, Failed, Results, now, quantile, run, say, table, trials
from server import PASSWORD, server

PORT = 6092

# Two plays that differ only in how often the task runs: their difference is what the tasks cost, without Ansible's own start.
FEW, MANY = 2, 22


def tasks(database):
    login = {"login_host": "127.0.0.1", "login_port": PORT, "login_user": "postgres", "login_password": PASSWORD}
    return {
        "postgres_promote": {"postgres_promote": {**login, "login_db": "postgres"}},
        "community.postgresql.postgresql_ping": {"community.postgresql.postgresql_ping": {**login, "login_db": "postgres"}},
        "postgres_recovery_conf": {"postgres_recovery_conf": {
            "data_directory": f"{database.folder}/settings", "primary_conninfo": {"host": "127.0.0.1", "user": "replicator"}}},
        "community.postgresql.postgresql_set": {"community.postgresql.postgresql_set": {**login, "name": "work_mem", "value": "4MB"}},
        "ansible.builtin.ping": {"ansible.builtin.ping": {}},
    }


# Each of ours with the Python module whose work is nearest.
NEAREST = {"postgres_promote": "community.postgresql.postgresql_ping", "postgres_recovery_conf": "community.postgresql.postgresql_set"}


def play(task, count, folder, pipelining, keep=False):
    """Seconds of one playbook with `count` runs of a task that changes nothing."""
    name, arguments = next(iter(task.items()))
    book = Path(folder) / "play.json"
    book.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [
        {"name": "Measured", name: arguments, "loop": list(range(count)), "register": "done", "failed_when": "done is failed or done is changed"}]}]))
    environment = {**os.environ, "ANSIBLE_LIBRARY": str(ROOT / "library"), "ANSIBLE_PIPELINING": str(pipelining), "ANSIBLE_LOCAL_TEMP": f"{folder}/local",
                   "ANSIBLE_REMOTE_TEMP": f"{folder}/remote", "ANSIBLE_KEEP_REMOTE_FILES": str(keep), "ANSIBLE_NOCOLOR": "1"}
    begun = now()
    run(".venv/bin/ansible-playbook", "-i", "localhost,", "-e", "ansible_python_interpreter=/var/cache/understudy-bench/bin/python", book, limit=300,
        env=environment)
    return now() - begun


def copied(task):
    """What lies on the other side when Ansible leaves it there: the bytes, and the command that runs it."""
    with tempfile.TemporaryDirectory() as folder:
        play(task, 1, folder, pipelining=False, keep=True)
        files = [path for path in Path(folder, "remote").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        program = max(files, key=lambda path: path.stat().st_size)
        arguments = [path for path in files if path != program]
        if program.suffix == ".py":
            command = ["/var/cache/understudy-bench/bin/python", str(program)]
        else:
            command = [str(program), *map(str, arguments)]
        times = []
        for _ in range(trials(20)):
            begun = now()
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            times.append(now() - begun)
            answer = re.search(r"\{.*\}", done.stdout, re.S)
            if done.returncode or not answer or json.loads(answer[0]).get("failed"):
                raise Failed(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return size, quantile(times, 0.5)


def measure():
    results = Results("modules").begin()
    run("bench/prepare", "app", limit=600)
    with server(PORT) as database, tempfile.TemporaryDirectory() as folder:
        # A data directory that is no server's: what is measured writes it once, and finds it so ever after.
        settings = database.folder / "settings"
        settings.mkdir()
        (settings / "PG_VERSION").write_text("15\n")
        (settings / "postgresql.auto.conf").write_text("")
        few = tasks(database)
        run(".venv/bin/ansible", "localhost", "-i", "localhost,", "-c", "local", "-m", "postgres_recovery_conf", "-a",
            json.dumps(few["postgres_recovery_conf"]["postgres_recovery_conf"]), env={**os.environ, "ANSIBLE_LIBRARY": str(ROOT / "library")})
        for name, task in few.items():
            size, own = copied(task)
            results.add(module=name, bytes=size, own=own)
            # Off it costs more, and is not how this repository runs: once is enough to see that.
            for pipelining, count in ((True, trials(3)), (False, 1)):
                for number in range(1, count + 1):
                    short, long = play(task, FEW, folder, pipelining), play(task, MANY, folder, pipelining)
                    each = (long - short) / (MANY - FEW)
                    results.add(module=name, pipelining=pipelining, trial=number, each=each)
                say(f"{name}, pipelining {pipelining}: {each:.3f} s a task; by itself {own:.3f} s, {size} bytes")


def describe(lines):
    rows = []
    for name in dict.fromkeys(line["module"] for line in lines):
        found = [line for line in lines if line["module"] == name]
        fixed = next(line for line in found if "bytes" in line)
        each = {pipelining: [line["each"] for line in found if line.get("pipelining") is pipelining] for pipelining in (True, False)}
        rows.append([name, *(f"{quantile(each[one], 0.5):.3f}" if each[one] else "-" for one in (True, False)), f"{fixed['own']:.4f}",
                     f"{fixed['bytes']:,}"])
    parts = [table(["module", "a task, pipelining on, s", "a task, pipelining off, s", "its program alone, s", "bytes copied"], rows)]
    median = lambda name, chosen: quantile([line[chosen] if chosen == "own" else line["each"] for line in lines if line["module"] == name
                                            and (chosen in line if chosen == "own" else line.get("pipelining") is True)], 0.5)
    for ours, theirs in NEAREST.items():
        if any(line["module"] == theirs and "each" in line for line in lines):
            parts.append(f"`{ours}` against `{theirs}`: {median(theirs, 'each') / median(ours, 'each'):.1f} times as fast through Ansible, "
                         f"{median(theirs, 'own') / median(ours, 'own'):.0f} times by itself.")
    return "\n\n".join(parts)
