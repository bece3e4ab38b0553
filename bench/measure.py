"""What every benchmark needs: where results go, the client that writes, and what a list of figures comes down to."""

import datetime
import json
import os
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RELEASE = ROOT / "target/x86_64-unknown-linux-gnu/release"
CLIENT = RELEASE / "examples/write_client"
RESULTS = ROOT / "target/bench"


class Failed(Exception):
    """A measurement that could not be made."""


def now():
    """The clock that the client tells its times by."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def say(words):
    print(f"bench: {words}", flush=True)


def wait_until(what, limit, look, pause=0.05):
    """The first true thing that `look` gives."""
    until = now() + limit
    while True:
        found = look()
        if found:
            return found
        if now() > until:
            raise Failed(f"waited {limit} s in vain for {what}")
        time.sleep(pause)


def run(*command, limit=120, check=True, **more):
    """What a command says on its standard output."""
    done = subprocess.run([str(word) for word in command], cwd=more.pop("cwd", ROOT), stdin=subprocess.DEVNULL, text=True, timeout=limit,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    if check and done.returncode:
        raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def trials(default, variable="TRIALS"):
    return int(os.environ.get(variable) or default)


class Results:
    """One JSON object a line, written as it is measured, so that a run that is interrupted is of use."""

    def __init__(self, name):
        RESULTS.mkdir(parents=True, exist_ok=True)
        self.path = RESULTS / f"{name}.jsonl"

    def begin(self):
        """Forgets what an earlier run measured."""
        self.path.unlink(missing_ok=True)
        return self

    def add(self, **fields):
        line = {"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "load": round(os.getloadavg()[0], 1), **fields}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read(self):
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


def quantile(values, share):
    """By nearest rank, so that each figure is one that was measured; for the median of an even number the mean of the two in the middle."""
    ordered = sorted(values)
    if share == 0.5 and len(ordered) % 2 == 0:
        return (ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2]) / 2
    return ordered[max(0, -(-int(share * 1000 * len(ordered)) // 1000) - 1)]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


class Writer:
    """The client, as a process of its own; its lines are read as they come."""

    def __init__(self, name, command):
        self.name, self.events = name, []
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def wait_writing(self, since=0.0, limit=60, hosts=None):
        """The first acknowledged row over a connection made after `since`, to one of `hosts` where they are given."""
        def look():
            if self.process.poll() is not None:
                raise Failed(f"the client '{self.name}' has ended: {self.process.stderr.read()}")
            return next((event for event in list(self.events) if event["event"] == "writing" and event["at"] > since
                         and (hosts is None or event["host"] in hosts)), None)
        try:
            return wait_until(f"the client '{self.name}' to write", limit, look, pause=0.01)
        except Failed as failure:
            raise Failed(f"{failure}; the last it said: {self.events[-3:]}") from None

    def last_before(self, since):
        """The last acknowledged row before the connection was lost, at the fault or as a consequence of it."""
        return next(event["last"] for event in list(self.events) if event["event"] == "lost" and event["at"] > since)

    def failed_attempts(self, since, until):
        """How often and how long it tried a host that did not serve it; only attempts that it told."""
        return [event for event in self.events if event["event"] == "failed" and since < event["at"] <= until]

    def stop(self):
        """How many rows were acknowledged, and how many of those are missing."""
        self.process.stdin.close()
        try:
            self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.reader.join(5)
        counted = next((event for event in self.events if event["event"] == "counted"), None)
        if counted is None:
            raise Failed(f"the client '{self.name}' did not count: {self.process.stderr.read()}")
        return counted

    def kill(self):
        self.process.kill()
        self.process.wait()
