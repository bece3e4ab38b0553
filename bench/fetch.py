"""`fetch` beside curl, aria2c, wget2 and s5cmd: the same files from the same nginx, over loopback and over a link with latency."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from look import resident
from measure import RELEASE, ROOT, Failed, Results, now, quantile, run, say, table, trials, wait_until
from peers import tree

NAMESPACE = "understudy-bench-fetch"
# The same number of files at a time for everybody, and of ranges of the large file for those that fetch ranges.
JOBS, CONNECTIONS = 16, 4
# The name of a case, what it is, the number of files and the size of each.
CASES = {"small": ("1,000 files of 10 KiB", 1000, 10 << 10), "middling": ("20 files of 20 MiB", 20, 20 << 20), "large": ("1 file of 1 GiB", 1, 1 << 30)}
LATENCIES = {"none": 0, "20 ms": 20}


def contenders(addresses, folder):
    """The command of each tool that is there, with its words for the same settings; and whether it has made the files durable when it ends."""
    listed = folder.parent / "list"
    listed.write_text("".join(f"{address}\n" for address in addresses))
    curl_list = folder.parent / "curl-list"
    curl_list.write_text("".join(f'url = "{address}"\noutput = "{folder / address.rpartition("/")[2]}"\n' for address in addresses))
    s5cmd_list = folder.parent / "s5cmd-list"
    s5cmd_list.write_text("".join(f"cp s3://files/{address.rpartition('/')[2]} {folder}/\n" for address in addresses))
    endpoint = addresses[0].rpartition("/")[0].rpartition("/")[0]
    s5cmd = ROOT / ".cache/s5cmd/bin/s5cmd"
    commands = {
        "fetch": [RELEASE / "fetch", "--quiet", "-j", JOBS, "--connections", CONNECTIONS, "-d", folder, "-i", listed],
        "curl": ["curl", "--silent", "--parallel", "--parallel-immediate", "--parallel-max", JOBS, "--config", curl_list],
        "aria2c": ["aria2c", "--quiet", "-j", JOBS, "-x", CONNECTIONS, "-s", CONNECTIONS, "--file-allocation=none", "-d", folder, "-i", listed],
        "wget2": ["wget2", "--quiet", f"--max-threads={JOBS}", "-P", folder, "-i", listed],
        "s5cmd": [s5cmd, "--log", "error", "--no-sign-request", "--endpoint-url", endpoint, "--numworkers", JOBS, "run", s5cmd_list],
    }
    return {name: command for name, command in commands.items() if shutil.which(str(command[0]))}


@contextlib.contextmanager
def server(files):
    """nginx in a network of its own, joined to this one by a pair of interfaces: latency there slows nobody else down."""
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as folder:
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(
            f"daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error; user root root; events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;\n"
            f"fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n"
            f"server {{ listen 10.213.77.2:80; location /files/ {{ alias {files}/; }} }} }}\n")
        run("ip", "netns", "add", NAMESPACE)
        process = None
        try:
            run("ip", "link", "add", "us-bench0", "type", "veth", "peer", "name", "us-bench1", "netns", NAMESPACE)
            run("ip", "address", "add", "10.213.77.1/30", "dev", "us-bench0")
            run("ip", "link", "set", "us-bench0", "up")
            run("ip", "-n", NAMESPACE, "address", "add", "10.213.77.2/30", "dev", "us-bench1")
            run("ip", "-n", NAMESPACE, "link", "set", "us-bench1", "up")
            process = subprocess.Popen(["ip", "netns", "exec", NAMESPACE, "nginx", "-p", folder, "-c", configuration], stdin=subprocess.DEVNULL)
            wait_until("nginx", 20, lambda: subprocess.run(["curl", "-s", "-o", "/dev/null", "http://10.213.77.2/"], check=False).returncode == 0)
            yield "http://10.213.77.2/files"
        finally:
            if process:
                process.terminate()
                process.wait()
            run("ip", "netns", "delete", NAMESPACE, check=False)


def delay(milliseconds):
    """Of each round trip, on the server's side of the link."""
    run("tc", "-n", NAMESPACE, "qdisc", "del", "dev", "us-bench1", "root", check=False)
    if milliseconds:
        run("tc", "-n", NAMESPACE, "qdisc", "add", "dev", "us-bench1", "root", "netem", "delay", f"{milliseconds}ms", "limit", "100000")


def measured(command):
    """Wall and CPU time and largest memory; beside them the wall time until what was written is on the disk."""
    begun = now()
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    largest, ended = 0, 0
    while not ended:
        largest = max([largest, *map(resident, tree(process.pid))])
        time.sleep(0.005)
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
    wall = now() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    os.sync()
    return {"wall": wall, "durable": now() - begun, "cpu": used.ru_utime + used.ru_stime, "memory": largest / 1024, "exit_code": process.returncode}


def measure():
    results = Results("fetch").begin()
    with tempfile.TemporaryDirectory(prefix="understudy-bench-files-") as files, server(files) as base:
        for case, (_, count, size) in CASES.items():
            names = [f"{case}-{number}" for number in range(count)]
            for name in names:
                (Path(files) / name).write_bytes(os.urandom(min(size, 1 << 20)) * max(1, size >> 20))
            for latency, milliseconds in LATENCIES.items():
                delay(milliseconds)
                # In turns, so that what else runs on the machine meets all of them.
                for number in range(1, trials(5) + 1):
                    with tempfile.TemporaryDirectory(prefix="understudy-bench-into-") as place:
                        folder = Path(place) / "into"
                        for name, command in contenders([f"{base}/{name}" for name in names], folder).items():
                            folder.mkdir()
                            os.sync()
                            found = measured(command)
                            whole = sum(1 for entry in names if (folder / entry).exists() and (folder / entry).stat().st_size == size)
                            results.add(what=name, case=case, latency=latency, trial=number, whole=whole, of=count, **found)
                            if name == "fetch" and whole != count:
                                raise Failed(f"fetch brought {whole} of {count} files")
                            shutil.rmtree(folder)
            say(f"{case}: done")


def describe(lines):
    parts = []
    for case, (words, _, _) in CASES.items():
        rows = []
        for latency in LATENCIES:
            here = [line for line in lines if line["case"] == case and line["latency"] == latency]
            middle = lambda name, field: quantile([line[field] for line in here if line["what"] == name], 0.5)
            names = list(dict.fromkeys(line["what"] for line in here))
            best = min((middle(name, "wall") for name in names), default=0)
            for name in names:
                of_it = [line for line in here if line["what"] == name]
                whole = "yes" if all(line["whole"] == line["of"] for line in of_it) else "no"
                rows.append([latency, name, len(of_it), f"{middle(name, 'wall'):.3f}", f"{middle(name, 'wall') / best:.2f}", f"{middle(name, 'durable'):.3f}",
                             f"{middle(name, 'cpu'):.3f}", f"{max(line['memory'] for line in of_it):.1f}", whole])
        if rows:
            parts.append(f"{words}\n\n" + table(["latency", "", "n", "wall, median, s", "of the fastest", "until durable, median, s", "CPU, median, s",
                                                 "largest resident process, MiB", "all whole"], rows))
    return "\n\n".join(parts)
