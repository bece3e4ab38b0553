"""`fetch` beside curl, aria2c, wget2 and s5cmd: the same files from the same nginx, over loopback and over a link with latency."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import slow_link
from look import resident
from measure import RELEASE, ROOT, Failed, Results, now, quantile, run, say, table, trials, wait_until

NAMESPACE = "understudy-bench-fetch"
# The same number of files at a time for everybody, and of ranges of the large file for those that fetch ranges.
JOBS, CONNECTIONS = 16, 4
TOOLS = ("fetch", "curl", "aria2c", "wget2", "s5cmd")
# Of those that are not in the usual places.
PROGRAMS = {"fetch": RELEASE / "fetch", "s5cmd": ROOT / ".cache/s5cmd/bin/s5cmd"}
# SMALLER=100 makes every case a hundred times smaller, which measures nothing and shows that all of it works.
SMALLER = int(os.environ.get("SMALLER") or 1)
# The name of a case, what it is, the number of files and the size of each.
CASES = {"small": ("1,000 files of 10 KiB", 1000, 10 << 10), "middling": ("20 files of 20 MiB", 20, 20 << 20), "large": ("1 file of 1 GiB", 1, 1 << 30)}
# The server's address over each link, by the latency that it adds to a round trip.
LATENCIES = {"none": "10.213.77.2", "20 ms": "10.213.78.2"}
MILLISECONDS = 20
# Nobody's proxy, and nobody's account.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy") and not name.startswith("AWS_")}
BLOCK = 1 << 20
LARGEST_KEPT = 1 << 20
# Whoever takes longer has not brought the files. In seconds.
LONGEST = 300


def commands(addresses, folder, size):
    """The command of each tool, with its words for the same settings."""
    listed = folder.parent / "list"
    listed.write_text("".join(f"{address}\n" for address in addresses))
    curl_list = folder.parent / "curl-list"
    curl_list.write_text("".join(f'url = "{address}"\noutput = "{folder / address.rpartition("/")[2]}"\n' for address in addresses))
    s5cmd_list = folder.parent / "s5cmd-list"
    s5cmd_list.write_text("".join(f"cp --concurrency {CONNECTIONS} s3://files/{address.rpartition('/')[2]} {folder}/\n" for address in addresses))
    endpoint = addresses[0].rpartition("/")[0].rpartition("/")[0]
    # It splits nothing unless it is told to, and then everything.
    chunks = [f"--chunk-size={size // CONNECTIONS}"] if size >= 1 << 30 else []
    return {
        "fetch": [PROGRAMS["fetch"], "--quiet", "-j", JOBS, "--connections", CONNECTIONS, "-d", folder, "-i", listed],
        "curl": ["curl", "--silent", "--parallel", "--parallel-immediate", "--parallel-max", JOBS, "--config", curl_list],
        "aria2c": ["aria2c", "--quiet", "-j", JOBS, "-x", CONNECTIONS, "-s", CONNECTIONS, "--file-allocation=none", "-d", folder, "-i", listed],
        "wget2": ["wget2", "--quiet", f"--max-threads={JOBS}", *chunks, "-P", folder, "-i", listed],
        "s5cmd": [PROGRAMS["s5cmd"], "--log", "error", "--no-sign-request", "--endpoint-url", endpoint, "--numworkers", JOBS, "run", s5cmd_list],
    }


def there(tool):
    return shutil.which(str(PROGRAMS.get(tool, tool)))


def in_turn(number, tools):
    """Nobody is always the first."""
    first = number % len(tools)
    return tools[first:] + tools[:first]


def make(path, size):
    with path.open("wb") as file:
        for begin in range(0, size, BLOCK):
            file.write(os.urandom(min(BLOCK, size - begin)))


@contextlib.contextmanager
def server(files):
    """nginx in a network of its own, joined to this one by a quick link and by a slow one: latency there slows nobody else down."""
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as folder:
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(
            f"daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error; user root root; events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;\n"
            f"fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n"
            # s5cmd asks a bucket for its region first.
            f"server {{ listen 80; location = /files {{ add_header x-amz-bucket-region us-east-1; return 200; }} location /files/ {{ alias {files}/; }} }} }}\n")
        # One that an interrupted run left; its half of the link goes with it.
        run("ip", "netns", "delete", NAMESPACE, check=False)
        run("ip", "netns", "add", NAMESPACE)
        process = None
        try:
            run("ip", "link", "add", "us-bench0", "type", "veth", "peer", "name", "us-bench1", "netns", NAMESPACE)
            run("ip", "address", "add", "10.213.77.1/30", "dev", "us-bench0")
            run("ip", "link", "set", "us-bench0", "up")
            run("ip", "-n", NAMESPACE, "address", "add", "10.213.77.2/30", "dev", "us-bench1")
            run("ip", "-n", NAMESPACE, "link", "set", "us-bench1", "up")
            process = subprocess.Popen(["ip", "netns", "exec", NAMESPACE, "nginx", "-p", folder, "-c", configuration], stdin=subprocess.DEVNULL)
            wait_until("nginx", 20, lambda: subprocess.run(["curl", "-s", "-o", "/dev/null", "http://10.213.77.2/"], check=False, env=ENVIRONMENT).returncode == 0)
            with slow_way():
                yield
        finally:
            if process:
                process.terminate()
                process.wait()
            run("ip", "netns", "delete", NAMESPACE, check=False)


@contextlib.contextmanager
def slow_way():
    """The link with latency."""
    near = slow_link.interface("us-bench2")
    program = ["ip", "netns", "exec", NAMESPACE, sys.executable, ROOT / "bench/slow_link.py", near, "us-bench3", MILLISECONDS]
    process = subprocess.Popen([str(word) for word in program], stdin=subprocess.DEVNULL, pass_fds=[near])
    try:
        inside = ["ip", "-n", NAMESPACE]
        wait_until("the slow link", 20, lambda: subprocess.run([*inside, "link", "show", "us-bench3"], check=False, capture_output=True).returncode == 0)
        for command, name, address in ((["ip"], "us-bench2", "10.213.78.1/30"), (inside, "us-bench3", "10.213.78.2/30")):
            run(*command, "address", "add", address, "dev", name)
            run(*command, "link", "set", name, "mtu", slow_link.MTU, "txqueuelen", 10_000, "up")
        yield
    finally:
        # It only carries packets: nothing of it is to be ended in order.
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(near)


def measured(command):
    """Wall and CPU time and largest memory; beside them the wall time until what was written is on the disk."""
    begun = now()
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=ENVIRONMENT)
    ended, largest = threading.Event(), [0]

    def look():
        # Each is one process, so nothing below it has to be looked for, which would cost more than what is measured.
        while not ended.wait(0.01):
            largest.append(resident(process.pid))

    looking = threading.Thread(target=look)
    looking.start()
    given_up = threading.Timer(LONGEST, process.kill)
    given_up.start()
    try:
        _, status, used = os.wait4(process.pid, 0)
        wall = now() - begun
    except BaseException:
        # Whoever interrupts this does not want it to go on.
        process.kill()
        process.wait()
        raise
    finally:
        given_up.cancel()
        ended.set()
        looking.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    os.sync()
    return {"wall": wall, "durable": now() - begun, "cpu": used.ru_utime + used.ru_stime, "memory": max(largest) / 1024,
            "exit_code": process.returncode}


def measure():
    results = Results("fetch").begin()
    # Small files stay to the end: ext4 without a journal gives no inode away that was freed minutes ago, and looks at each of them before it finds another, in
    # the time of whoever comes next.
    with (tempfile.TemporaryDirectory(prefix="understudy-bench-files-") as files, server(files),
          tempfile.TemporaryDirectory(prefix="understudy-bench-into-") as place):
        for case, (_, count, size) in CASES.items():
            count, size = max(1, count // SMALLER), size // (SMALLER if count == 1 else 1)
            names = [f"{case}-{number}" for number in range(count)]
            for name in names:
                make(Path(files) / name, size)
            for latency, address in LATENCIES.items():
                # In turns, so that what else runs on the machine meets all of them.
                for number in range(1, trials(5) + 1):
                    for name in in_turn(number, [tool for tool in TOOLS if there(tool)]):
                        folder = Path(place) / f"{case}-{latency.replace(' ', '')}-{name}-{number}"
                        folder.mkdir()
                        command = commands([f"http://{address}/files/{name}" for name in names], folder, size)[name]
                        os.sync()
                        found = measured(command)
                        whole = sum(1 for entry in names if (folder / entry).exists() and (folder / entry).stat().st_size == size)
                        results.add(what=name, case=case, latency=latency, trial=number, whole=whole, of=count, **found)
                        if name == "fetch" and whole != count:
                            raise Failed(f"fetch brought {whole} of {count} files")
                        if size > LARGEST_KEPT:
                            shutil.rmtree(folder)
            say(f"{case}: done")


def describe(lines):
    parts = []
    for case, (words, _, _) in CASES.items():
        rows, absent = [], [name for name in TOOLS if not any(line["what"] == name for line in lines)]
        for latency in LATENCIES:
            here = [line for line in lines if line["case"] == case and line["latency"] == latency]
            middle = lambda name, field: quantile([line[field] for line in here if line["what"] == name], 0.5)
            names = list(dict.fromkeys(line["what"] for line in here))
            # Who did not bring everything was not fast.
            complete = [name for name in names if all(line["whole"] == line["of"] for line in here if line["what"] == name)]
            best = {field: min((middle(name, field) for name in complete), default=0) for field in ("wall", "durable")}
            for name in [name for name in TOOLS if name in names]:
                of_it = [line for line in here if line["what"] == name]
                whole = "yes" if all(line["whole"] == line["of"] for line in of_it) else "no"
                rows.append([latency, name, len(of_it), *(word for field in best for word in (f"{middle(name, field):.3f}", f"{middle(name, field) / best[field]:.2f}")),
                             f"{middle(name, 'cpu'):.3f}", f"{max(line['memory'] for line in of_it):.1f}", whole])
        if rows:
            parts.append(f"{words}{'; not there: ' + ', '.join(absent) if absent else ''}\n\n" + table(
                ["latency", "", "n", "wall, median, s", "of the fastest", "until durable, median, s", "of the fastest", "CPU, median, s",
                 "largest resident process, MiB", "all whole"], rows))
    return "\n\n".join(parts)
