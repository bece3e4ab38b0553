"""What looking costs: one pass of failover-check and a minute of them, beside a shell script with curl, docker and psql that looks at the same."""

import os
import subprocess
import time
from pathlib import Path

import outage
from measure import Failed, Results, now, quantile, run, say, table, trials
from peers import tree

PORT = 5057
CRON = Path(f"/etc/cron.d/{outage.PREFIX}")
PASSWORD = f"/etc/{outage.PREFIX}/secrets/failover_password"


def resident(process):
    """The most that a process has held since it became the program that it is, in KiB."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    if "Name:\tpython" in status:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def measured(*command):
    """Wall time, CPU time of the command and all it started, and the largest resident memory of one process of them."""
    with open(os.devnull, "w") as nowhere:
        begun = now()
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=nowhere, stderr=nowhere)
        largest, ended = 0, 0
        # Looked at while it runs: what the kernel tells at the end also counts this program, of which the other began as a copy.
        while not ended:
            largest = max([largest, *map(resident, tree(process.pid))])
            time.sleep(0.005)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
        wall = now() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"{command[0]} ended with {process.returncode}")
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "memory": largest / 1024}


def failover_check(*arguments):
    return ["/usr/local/sbin/failover-check", "--settings", outage.SETTINGS, *arguments]


def password_file():
    found = next((line.split('"')[1] for line in Path(outage.SETTINGS).read_text().splitlines() if line.startswith("failover_password_file")), None)
    return found or PASSWORD


def measure():
    results = Results("look").begin()
    with outage.installation():
        outage.wait_healthy()
        # Cron's own call would take over from the one that is measured, each minute.
        aside = CRON.with_suffix(".set-aside")
        CRON.rename(aside)
        try:
            script = ["bench/look.sh", outage.PREFIX, str(PORT), password_file()]
            said = run(*script)
            if said.count("role=") != 2 or "app 200" not in said or "streaming" not in said:
                raise Failed(f"the shell script did not see a whole pair: {said}")
            say(f"one loop for a minute: {run(*failover_check('run'))}")
            for what, command in {"failover-check run": failover_check("run"), "shell script": script}.items():
                for number in range(1, trials(20) + 1):
                    results.add(what=what, trial=number, **measured(*command))
                    time.sleep(0.2)
            found = measured(*failover_check("run", "--for", "60s"))
            results.add(what="failover-check run --for 60s", trial=1, **found)
            say(f"run --for 60s: {found['cpu']:.3f} s of CPU in {found['wall']:.1f} s, {found['memory']:.1f} MiB")
        finally:
            aside.rename(CRON)


def describe(lines):
    rows = []
    for what in dict.fromkeys(line["what"] for line in lines):
        found = [line for line in lines if line["what"] == what]
        middle = {name: quantile([line[name] for line in found], 0.5) for name in ("wall", "cpu", "memory")}
        rows.append([what, len(found), f"{middle['wall']:.3f}", f"{middle['cpu']:.3f}", f"{100 * middle['cpu'] / middle['wall']:.2f} %",
                     f"{max(line['memory'] for line in found):.1f}"])
    return table(["", "n", "wall, median, s", "CPU, median, s", "of one core", "largest resident process, MiB"], rows)
