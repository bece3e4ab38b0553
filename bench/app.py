"""The app's /health and /ready beside the same routes in Flask under gunicorn, and beside the least that a server can do: the same load from loopback."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from measure import RELEASE, ROOT, Failed, Results, quantile, run, say, table, trials, wait_until
from peers import tree
from server import PASSWORD, server

GUNICORN = "/var/cache/understudy-bench/bin/gunicorn"
DATABASE_PORT, PORT = 6090, 6091

# One core is the server's and one is for who sends: unpinned, a server that is slow has both of them nearly to itself, and one that is quick has not.
SERVER_CORE, SENDER_CORE = (str(core) for core in (min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))))
# As many connections as a load balancer with some probes may hold.
CONNECTIONS, SECONDS = 16, 5

# What is asked for: a path, and how many requests a connection sends before it reads answers. One is what probes do, and then most of the time is the kernel's, in
# carrying a hundred bytes to and fro; with 16 at once, as in TechEmpower's plaintext test, it is the server's own.
LOADS = {"/health": ("/health", 1), "/health, 16 at once": ("/health", 16), "/ready": ("/ready", 1)}

# It knows no routes and asks no database: what sockets and loopback take for one request at a time, and nothing else.
BARE = "the least: bench/bare_server.rs"
# The usual ways to run Flask: gunicorn as it comes has one worker, its own advice is two a core and one more; with threads and with gevent fewer do.
WAYS = {
    "app": None,
    BARE: None,
    "Flask, gunicorn, 1 sync worker": [],
    "Flask, gunicorn, 2 sync workers": ["--workers", "2"],
    "Flask, gunicorn, 4 sync workers": ["--workers", "4"],
    "Flask, gunicorn, 2 workers of 4 threads": ["--workers", "2", "--threads", "4"],
    "Flask, gunicorn, 2 gevent workers": ["--workers", "2", "--worker-class", "gevent"],
}


def command(way, database, folder):
    if way == BARE:
        return [RELEASE / "examples/bare_server", f"127.0.0.1:{PORT}"]
    if way == "app":
        record = Path(folder) / "cluster.json"
        record.write_text(json.dumps({"version": 1, "epoch": 1, "primary": "127.0.0.1"}))
        return [RELEASE / "app", "--listen", f"127.0.0.1:{PORT}", "--record", record, "--password-file", database.password_file, "--database", "postgres",
                "--database-user", "postgres", "--database-port", str(DATABASE_PORT)]
    return [GUNICORN, "--bind", f"127.0.0.1:{PORT}", "--log-level", "error", "--chdir", ROOT / "bench", *WAYS[way], "flask_app:app"]


@contextlib.contextmanager
def serving(way, database):
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "RUST_LOG": "error",
                       "BENCH_DATABASE": f"host=127.0.0.1 port={DATABASE_PORT} user=postgres password={PASSWORD} dbname=postgres"}
        pinned = ["taskset", "--cpu-list", SERVER_CORE, *command(way, database, folder)]
        process = subprocess.Popen([str(word) for word in pinned], env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_until(f"{way} to be ready", 30, lambda: answers("/ready"))
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def cpu(root):
    """What a process and all below it have used so far, in seconds."""
    fields = [Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split() for process in tree(root)]
    return sum(int(user) + int(system) for *_, user, system in (one[:13] for one in fields)) / os.sysconf("SC_CLK_TCK")


def load(name, process):
    """Requests per second, the same for each second of the server's CPU, and the 99th percentile in milliseconds; every answer has to be a 200."""
    path, at_once = LOADS[name]
    used = cpu(process)
    # A script costs wrk time for each request, so that it has one only where it needs it.
    script, arguments = (["--script", "bench/at_once.lua"], ["--", at_once]) if at_once > 1 else ([], [])
    said = run("taskset", "--cpu-list", SENDER_CORE, "wrk", "--threads", "1", "--connections", CONNECTIONS, "--duration", f"{SECONDS}s", "--latency", *script,
               f"http://127.0.0.1:{PORT}{path}", *arguments)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
    requests = int(re.search(r"(\d+) requests in", said)[1])
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", said)
    return {"rate": rate, "by_cpu": round(requests / (cpu(process) - used)), "p99": float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit],
            "wrong": wrong[0] if wrong else ""}


def memory(root):
    """Resident memory of a process and all below it, in MiB: shared pages once (PSS) and once a process (RSS)."""
    sums = {"Pss": 0, "Rss": 0}
    for process in tree(root):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += int(rest.split()[0])
    return sums["Pss"] / 1024, sums["Rss"] / 1024


def measure():
    results = Results("app").begin()
    run("bench/prepare", "app", limit=600)
    with server(DATABASE_PORT) as database:
        for number in range(1, trials(3) + 1):
            for way in WAYS:
                with serving(way, database) as process:
                    found = {}
                    for name in LOADS if way != BARE else ("/health",):
                        load(name, process)
                        found[name] = load(name, process)
                    pss, rss = memory(process)
                    if not answers("/health"):
                        raise Failed(f"{way} does not answer after the load")
                results.add(way=way, trial=number, pss=round(pss, 1), rss=round(rss, 1), **found)
                say(f"{way} {number}: " + ", ".join(f"{name}: {one['rate']:.0f}/s, {one['by_cpu']} a second of CPU, p99 {one['p99']:.2f} ms {one['wrong']}" for name, one in found.items())
                    + f", {pss:.1f} MiB (PSS), {rss:.1f} MiB (RSS)")


def describe(lines):
    median = lambda values: quantile(list(values), 0.5)
    middle = lambda way, name, what: median(line[name][what] for line in lines if line["way"] == way)
    measured = [way for way in WAYS if any(line["way"] == way for line in lines)]
    parts = []
    for name in LOADS:
        rows = []
        for way in measured:
            found = [line for line in lines if line["way"] == way and name in line]
            if not found:
                continue
            cells = [way]
            for what in ("rate", "by_cpu"):
                ratio = middle(way, name, what) / middle("app", name, what)
                cells += [f"{middle(way, name, what):,.0f}", f"{ratio:.2f}" if ratio > 0.5 else f"1/{1 / ratio:.0f}"]
            # Of requests that are sent at once wrk tells no latency that means anything.
            rows.append([*cells, f"{middle(way, name, 'p99'):.2f}" if LOADS[name][1] == 1 else "-", sum(bool(line[name]["wrong"]) for line in found)])
        parts.append(f"{name}\n\n" + table(["", "requests/s", "of the app's", "requests/s of the server's CPU", "of the app's", "p99, ms", "runs with errors"], rows))
    memories = [[way, *(f"{median(line[kind] for line in lines if line['way'] == way):.1f}" for kind in ("rss", "pss"))] for way in measured]
    return "\n\n".join([*parts, "Memory after the load\n\n" + table(["", "RSS, MiB", "PSS, MiB"], memories)])
