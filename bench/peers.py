"""The same faults made to repmgr, pg_auto_failover and Patroni: two nodes each, on this machine, with the same client.

Each peer is set up as its own quickstart does, from Debian's packages (Patroni: PyPI), with its default settings and with tight ones. Everything runs
as the user postgres below one folder that is removed at the end; no service of Debian's is started and no cluster of Debian's is touched.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from measure import CLIENT, Failed, Results, Writer, now, quantile, run, say, table, trials, wait_until

BIN = Path("/usr/lib/postgresql/15/bin")
ENVIRONMENT = Path("/var/cache/understudy-bench/bin")

FAULTS = {
    "dead": "host died (SIGKILL of agent and PostgreSQL)",
    "frozen": "host froze (SIGSTOP of agent and PostgreSQL)",
    "postmaster": "postmaster alone killed (SIGKILL)",
    "postmaster_frozen": "postmaster alone stopped (SIGSTOP)",
    "switchover": "planned switchover",
}

# How long a failover is waited for. The slowest that was seen took 70 s.
LIMIT = 150


def tree(root):
    """A process and all below it, the root first."""
    parents = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                status = (process / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(process.name))
    found, left = [], [root]
    while left:
        process = left.pop(0)
        found.append(process)
        left += parents.get(process, [])
    return found


def send(processes, what):
    for process in processes:
        try:
            os.kill(process, what)
        except ProcessLookupError:
            pass


class Peer:
    """Two nodes and whatever looks after them. A subclass says how they are made, what calls them healthy, and what brings a node back."""

    name = version_package = ""
    # The faults that can be made at all.
    faults = tuple(FAULTS)

    def __init__(self, settings, base_port):
        self.settings, self.base = settings, base_port
        self.ports = {"n1": base_port + 1, "n2": base_port + 2}
        self.agents = {}
        self.folder = Path(tempfile.mkdtemp(prefix=f"understudy-bench-{self.name}-", dir="/var/tmp"))
        shutil.chown(self.folder, "postgres", "postgres")
        self.environment = {"PATH": f"{BIN}:{ENVIRONMENT}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8", "PGUSER": "postgres",
                            "XDG_CONFIG_HOME": f"{self.folder}/config", "XDG_DATA_HOME": f"{self.folder}/share",
                            "XDG_RUNTIME_DIR": f"{self.folder}/run", "PG_COLOR": "never"}

    def data(self, node):
        return self.folder / node

    def as_postgres(self, *command, check=True, limit=120):
        return run(*command, check=check, limit=limit, cwd=self.folder, env=self.environment, user="postgres", group="postgres", extra_groups=[])

    def agent(self, name, *command):
        """A program in the foreground of a session of its own, which ends with this one."""
        log = (self.folder / f"{name}.log").open("a")
        self.agents[name] = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)], cwd=self.folder, env=self.environment, user="postgres",
            group="postgres", extra_groups=[], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        shutil.chown(path, "postgres", "postgres")
        return path

    def sql(self, port, statement, database="postgres", check=True):
        try:
            return run("psql", "-XAtq", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-d", database, "-c", statement, check=check, limit=5,
                       env={**self.environment, "PGCONNECT_TIMEOUT": "2"})
        except subprocess.TimeoutExpired:
            return ""

    def postmaster(self, node):
        return int((self.data(node) / "postmaster.pid").read_text().split()[0])

    def processes(self, node):
        """All of a node, the agent first, so that it starts nothing more."""
        found = tree(self.agents[node].pid) if node in self.agents else []
        try:
            found += [process for process in tree(self.postmaster(node)) if process not in found]
        except OSError:
            pass
        return found

    def streaming(self):
        """The primary with the standby that streams from it, where there is such a pair."""
        for primary, standby in (("n1", "n2"), ("n2", "n1")):
            seen = self.sql(self.ports[primary], "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name !~ 'basebackup' "
                            "AND NOT pg_is_in_recovery()", check=False)
            if seen == "1" and self.sql(self.ports[standby], "SELECT pg_is_in_recovery()", check=False) == "t":
                return primary, standby
        return None

    def wait_healthy(self):
        return wait_until(f"{self.name} to be healthy", 180, self.healthy, pause=0.5)

    def healthy(self):
        raise NotImplementedError

    def set_up(self):
        raise NotImplementedError

    def come_back(self, node):
        """What a person or a boot does after the failover, so that the pair is whole again."""
        raise NotImplementedError

    def switch_over(self, old, new):
        raise NotImplementedError

    def fault(self, kind, node):
        """Makes it; what comes back undoes what does not undo itself."""
        if kind == "dead":
            send(self.processes(node), signal.SIGKILL)
            return lambda: self.come_back(node)
        if kind == "frozen":
            frozen = self.processes(node)
            send(frozen, signal.SIGSTOP)
            return lambda: (send(frozen, signal.SIGCONT), self.thawed(node))
        if kind == "postmaster":
            os.kill(self.postmaster(node), signal.SIGKILL)
            return lambda: self.crashed(node)
        process = self.postmaster(node)
        os.kill(process, signal.SIGSTOP)
        return lambda: (send([process], signal.SIGCONT), self.thawed(node))

    def thawed(self, node):
        """After a freeze; most agents see to their node themselves."""

    def crashed(self, node):
        """After the postmaster alone died; most agents see to it."""

    def tear_down(self):
        for agent in self.agents.values():
            send(tree(agent.pid), signal.SIGCONT)
            send(tree(agent.pid), signal.SIGKILL)
            agent.wait()
        for folder in (*self.data("").glob("*/postmaster.pid"),):
            try:
                left = int(folder.read_text().split()[0])
                # The number may be another process's by now.
                if str(folder.parent) in Path(f"/proc/{left}/cmdline").read_text() or Path(f"/proc/{left}/cwd").resolve() == folder.parent:
                    processes = tree(left)
                    send(processes, signal.SIGCONT)
                    send(processes, signal.SIGKILL)
            except (OSError, ValueError, IndexError):
                pass
        # What an agent that ended by itself has left behind is nobody's child any more; its home still says whose it was.
        home = f"HOME={self.folder}".encode()
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and home in (process / "environ").read_bytes().split(b"\0"):
                    send([int(process.name)], signal.SIGKILL)
            except OSError:
                pass
        time.sleep(1)
        shutil.rmtree(self.folder, ignore_errors=True)


class PgAutoFailover(Peer):
    name, version_package = "pg_auto_failover", "pg-auto-failover-cli"

    # A stopped postmaster beside a living keeper is never noticed by the defaults (180 s, three of three): not waited for again.
    @property
    def faults(self):
        return tuple(fault for fault in FAULTS if not (fault == "postmaster_frozen" and self.settings == "default"))

    def set_up(self):
        (self.folder / "run").mkdir()
        shutil.chown(self.folder / "run", "postgres", "postgres")
        self.agent("monitor", "pg_autoctl", "create", "monitor", "--pgdata", self.data("monitor"), "--pgport", self.base, "--hostname", "127.0.0.1",
                   "--auth", "trust", "--no-ssl", "--run")
        wait_until("the monitor", 60, lambda: self.sql(self.base, "SELECT 1 FROM pgautofailover.formation", "pg_auto_failover", check=False))
        monitor = f"postgres://autoctl_node@127.0.0.1:{self.base}/pg_auto_failover"
        if self.settings == "tight":
            for setting, value in {"health_check_period": 1000, "health_check_timeout": 1000, "health_check_retry_delay": 500,
                                   "health_check_max_retries": 1, "node_considered_unhealthy_timeout": 3000, "primary_demote_timeout": 5000}.items():
                self.sql(self.base, f"ALTER SYSTEM SET pgautofailover.{setting} = {value}", "pg_auto_failover")
            self.sql(self.base, "SELECT pg_reload_conf()", "pg_auto_failover")
        for node, port in self.ports.items():
            self.agent(node, "pg_autoctl", "create", "postgres", "--pgdata", self.data(node), "--pgport", port, "--hostname", "127.0.0.1", "--name", node,
                       "--auth", "trust", "--no-ssl", "--monitor", monitor, "--run")
            wait_until(node, 90, lambda: self.state(node) in ("single", "secondary"), pause=0.5)
            if self.settings == "tight":
                self.as_postgres("pg_autoctl", "config", "set", "timeout.network_partition_timeout", "3", "--pgdata", self.data(node))
                self.as_postgres("pg_autoctl", "reload", "--pgdata", self.data(node))
        for node, port in self.ports.items():
            with (self.data(node) / "pg_hba.conf").open("a") as file:
                file.write("host all all 127.0.0.1/32 trust\n")
            send([self.postmaster(node)], signal.SIGHUP)

    def state(self, node):
        return self.sql(self.base, f"SELECT reportedstate FROM pgautofailover.node WHERE nodename = '{node}'", "pg_auto_failover", check=False)

    def healthy(self):
        pair = self.streaming()
        return pair if pair and self.state(pair[0]) == "primary" and self.state(pair[1]) == "secondary" else None

    def come_back(self, node):
        self.agents[node].wait()
        self.agent(node, "pg_autoctl", "run", "--pgdata", self.data(node))

    def switch_over(self, old, new):
        self.as_postgres("pg_autoctl", "perform", "switchover", "--pgdata", self.data("monitor"), limit=LIMIT)


class Repmgr(Peer):
    name, version_package = "repmgr", "repmgr-common"
    # Its switchover logs in to the other node over SSH, which two nodes on one machine do not have.
    faults = ("dead", "frozen", "postmaster", "postmaster_frozen")

    def conninfo(self, node):
        return f"host=127.0.0.1 port={self.ports[node]} user=repmgr dbname=repmgr connect_timeout=2"

    def command(self, node, *words, **more):
        return self.as_postgres("repmgr", "-f", self.folder / f"{node}.conf", *words, **more)

    def start_postgres(self, node):
        self.as_postgres("pg_ctl", "-D", self.data(node), "-w", "-l", self.folder / f"{node}-postgres.log", "start")

    def start_daemon(self, node):
        self.agent(node, "repmgrd", "-f", self.folder / f"{node}.conf", "--daemonize=false", "--no-pid-file")

    def set_up(self):
        watch = {"default": "", "tight": "monitor_interval_secs=1\nreconnect_attempts=2\nreconnect_interval=1\n"}[self.settings]
        for number, node in enumerate(self.ports, 1):
            conf = self.folder / f"{node}.conf"
            self.write(conf.name, f"node_id={number}\nnode_name='{node}'\nconninfo='{self.conninfo(node)}'\ndata_directory='{self.data(node)}'\n"
                       f"pg_bindir='{BIN}'\nfailover=automatic\npromote_command='{BIN}/repmgr standby promote -f {conf} --log-to-file'\n"
                       f"follow_command='{BIN}/repmgr standby follow -f {conf} --log-to-file --upstream-node-id=%n'\n"
                       f"log_file='{self.folder}/{node}-repmgr.log'\n{watch}")
        self.as_postgres("initdb", "-D", self.data("n1"), "-A", "trust", "-U", "postgres")
        with (self.data("n1") / "postgresql.conf").open("a") as file:
            file.write(f"port = {self.ports['n1']}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{self.folder}'\nwal_log_hints = on\n"
                       "shared_preload_libraries = 'repmgr'\nmax_wal_senders = 10\nmax_replication_slots = 10\nwal_keep_size = '256MB'\n")
        self.start_postgres("n1")
        self.sql(self.ports["n1"], "CREATE ROLE repmgr SUPERUSER LOGIN")
        self.sql(self.ports["n1"], "CREATE DATABASE repmgr OWNER repmgr")
        self.command("n1", "primary", "register")
        self.command("n2", "-h", "127.0.0.1", "-p", self.ports["n1"], "-U", "repmgr", "-d", "repmgr", "standby", "clone", "--fast-checkpoint")
        conf = self.data("n2") / "postgresql.conf"
        self.write("n2/postgresql.conf", conf.read_text().replace(f"port = {self.ports['n1']}", f"port = {self.ports['n2']}"))
        self.start_postgres("n2")
        self.command("n2", "standby", "register", "--wait-sync=30")
        for node in self.ports:
            self.start_daemon(node)

    def healthy(self):
        pair = self.streaming()
        if not pair:
            return None
        known = self.sql(self.ports[pair[0]], "SELECT string_agg(node_name || ' ' || type || ' ' || active, ',' ORDER BY type) FROM repmgr.nodes",
                         "repmgr", check=False)
        return pair if known == f"{pair[0]} primary true,{pair[1]} standby true" and all(a.poll() is None for a in self.agents.values()) else None

    def come_back(self, node):
        """It never rejoins by itself: this is the documented way by hand. Its daemons start anew, since one that saw the old primary loops for ever."""
        other = {"n1": "n2", "n2": "n1"}[node]
        for agent in self.agents.values():
            send(tree(agent.pid), signal.SIGCONT)
            send(tree(agent.pid), signal.SIGKILL)
            agent.wait()
        if (self.data(node) / "postmaster.pid").exists():
            self.as_postgres("pg_ctl", "-D", self.data(node), "-m", "fast", "-w", "stop", check=False)
        else:
            self.start_postgres(node)
            self.as_postgres("pg_ctl", "-D", self.data(node), "-m", "fast", "-w", "stop")
        # After a kill -9 the file is still there, and pg_rewind wants a clean end.
        if "shut down" not in self.as_postgres("pg_controldata", self.data(node)).split("cluster state:")[1].split("\n")[0]:
            self.start_postgres(node)
            self.as_postgres("pg_ctl", "-D", self.data(node), "-m", "fast", "-w", "stop")
        # Until the new primary's first checkpoint its control file names the old timeline, and pg_rewind finds nothing to do.
        self.sql(self.ports[other], "CHECKPOINT")
        self.command(node, "node", "rejoin", "-d", self.conninfo(other), "--force-rewind", "--config-files=postgresql.conf")
        for name in self.ports:
            self.start_daemon(name)

    thawed = crashed = come_back


class Patroni(Peer):
    name, version_package = "Patroni", None

    def set_up(self):
        etcd, peer = self.base + 3, self.base + 4
        self.agent("etcd", "etcd", "--data-dir", self.folder / "etcd", "--listen-client-urls", f"http://127.0.0.1:{etcd}", "--advertise-client-urls",
                   f"http://127.0.0.1:{etcd}", "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls",
                   f"http://127.0.0.1:{peer}", "--initial-cluster", f"default=http://127.0.0.1:{peer}")
        watch = {"default": {"ttl": 30, "loop_wait": 10, "retry_timeout": 10},
                 "tight": {"ttl": 20, "loop_wait": 1, "retry_timeout": 3, "primary_start_timeout": 0}}[self.settings]
        for node, port in self.ports.items():
            hba = ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
            # JSON is YAML.
            self.write(f"{node}.yml", json.dumps({
                "scope": "bench", "name": node,
                "restapi": {"listen": f"127.0.0.1:{self.rest(node)}", "connect_address": f"127.0.0.1:{self.rest(node)}"},
                "etcd3": {"hosts": f"127.0.0.1:{etcd}"},
                "bootstrap": {"dcs": {**watch, "maximum_lag_on_failover": 1048576, "postgresql": {"use_pg_rewind": True}},
                              "initdb": [{"encoding": "UTF8"}, "data-checksums"]},
                "postgresql": {"listen": f"127.0.0.1:{port}", "connect_address": f"127.0.0.1:{port}", "data_dir": str(self.data(node)), "bin_dir": str(BIN),
                               "pgpass": str(self.folder / f"{node}.pgpass"), "pg_hba": hba, "basebackup": {"checkpoint": "fast"},
                               "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "replicator"},
                                                  "rewind": {"username": "rewinder"}},
                               "parameters": {"unix_socket_directories": str(self.folder)}}}))
        self.come_back("n1")
        wait_until("the leader", 90, lambda: "running" in self.members(), pause=0.5)
        self.come_back("n2")

    def rest(self, node):
        return self.ports[node] + 10

    def members(self):
        """The state of each member by its role and name, as either REST interface tells it."""
        for node in self.ports:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.rest(node)}/cluster", timeout=2) as answer:
                    members = json.load(answer)["members"]
                    return {(one["role"], one["name"]): one["state"] for one in members} | {one["state"]: one["name"] for one in members}
            except (OSError, ValueError, KeyError):
                continue
        return {}

    def healthy(self):
        pair, members = self.streaming(), self.members()
        return pair if pair and members.get(("leader", pair[0])) == "running" and members.get(("replica", pair[1])) == "streaming" else None

    def come_back(self, node):
        if node in self.agents:
            self.agents[node].wait()
        self.agent(node, ENVIRONMENT / "patroni", self.folder / f"{node}.yml")

    def switch_over(self, old, new):
        self.as_postgres(ENVIRONMENT / "patronictl", "-c", self.folder / f"{new}.yml", "switchover", "bench", "--leader", old, "--candidate", new, "--force",
                         limit=LIMIT)


PEERS = {"pg_auto_failover": PgAutoFailover, "repmgr": Repmgr, "Patroni": Patroni}


def trial(peer, fault):
    old, new = peer.wait_healthy()
    hosts = f"127.0.0.1:{peer.ports[old]},127.0.0.1:{peer.ports[new]}"
    writer = Writer("list", [CLIENT, "--follow", "list", "--hosts", hosts, "--database", "postgres", "--user", "postgres"])
    undo = None
    try:
        writer.wait_writing()
        # At no fixed distance from the peer's own loop.
        time.sleep(2 + random.random() * 5)
        begun = now()
        if fault == "switchover":
            peer.switch_over(old, new)
        else:
            undo = peer.fault(fault, old)
        def told():
            return next((event for event in reversed(writer.events) if event["event"] == "writing" and event["at"] > begun), None)

        promoted = lambda: peer.sql(peer.ports[new], "SELECT pg_is_in_recovery()", check=False) == "f"
        try:
            if fault == "postmaster_frozen":
                # Connections that nobody cuts go on: then the standby's promotion is all that there is to see.
                wait_until("a promotion", 90, lambda: told() or promoted(), pause=0.2)
            writer.wait_writing(since=begun, limit=15 if fault == "postmaster_frozen" else LIMIT)
        except Failed:
            if fault != "postmaster_frozen":
                raise
        # What was begun by then is on the way to being finished.
        time.sleep(3)
        written = told()
        if written:
            what = "failover" if written["host"].endswith(str(peer.ports[new])) else "restart in place"
            outage = written["at"] - writer.last_before(begun)
        elif not promoted():
            what, outage = "no failover within 90 s: open connections went on writing", None
        else:
            what, outage = "promotion, while the old primary went on acknowledging writes", None
            send(peer.processes(old), signal.SIGKILL)
            undo = lambda: peer.come_back(old)
            writer.wait_writing(since=begun)
        if undo:
            undo()
            undo = None
        peer.wait_healthy()
        counted = writer.stop()
        return {"outage": outage and round(outage, 4), "what": what, "acknowledged": counted["acknowledged"], "lost": counted["lost"]}
    finally:
        writer.kill()
        if undo:
            undo()


def version(name):
    if name == "Patroni":
        return run(ENVIRONMENT / "patroni", "--version").split()[-1]
    return run("dpkg-query", "-W", "-f", "${Version}", PEERS[name].version_package)


def measure():
    """PEERS, SETTINGS and FAULTS in the environment choose some of them; TRIALS says how often."""
    chosen = lambda variable, known: [name for name in known if name in (os.environ.get(variable) or ",".join(known)).split(",")]
    results = Results("peers")
    if not os.environ.get("KEEP"):
        results.begin()
    for name in chosen("PEERS", PEERS):
        try:
            found_version = version(name)
        except (Failed, OSError) as failure:
            say(f"{name} cannot be measured: {failure}")
            results.add(tool=name, missing=str(failure))
            continue
        for settings in chosen("SETTINGS", ["tight", "default"]):
            peer = PEERS[name](settings, 6100 + 100 * list(PEERS).index(name) + (50 if settings == "tight" else 0))
            try:
                say(f"{name}, {settings}: setting it up in {peer.folder}")
                peer.set_up()
                for fault in chosen("FAULTS", peer.faults):
                    count = trials(3)
                    for one in range(1, count + 1):
                        try:
                            found = trial(peer, fault)
                        except (Failed, OSError, subprocess.TimeoutExpired) as failure:
                            say(f"{name}, {settings}, {fault} {one}/{count}: no figure: {failure}")
                            results.add(tool=name, version=found_version, settings=settings, fault=fault, trial=one, failure=str(failure)[:500])
                            break
                        results.add(tool=name, version=found_version, settings=settings, fault=fault, trial=one, **found)
                        say(f"{name}, {settings}, {fault} {one}/{count}: {found['outage'] or 0:.3f} s, {found['what']}, {found['lost']} lost")
            except (Failed, OSError, subprocess.TimeoutExpired) as failure:
                say(f"{name}, {settings}: FAILED: {failure}")
                results.add(tool=name, version=found_version, settings=settings, missing=str(failure)[:500])
            finally:
                if os.environ.get("KEEP_LOGS"):
                    shutil.copytree(peer.folder, f"/tmp/bench-logs-{name}-{settings}", dirs_exist_ok=True,
                                    ignore=lambda folder, names: [n for n in names if not n.endswith((".log", ".conf", ".yml"))])
                peer.tear_down()


def describe(lines):
    rows = []
    for name in PEERS:
        for settings in ("default", "tight"):
            of = [line for line in lines if line["tool"] == name and line.get("settings", settings) == settings]
            for line in of:
                if "missing" in line:
                    rows.append([name, settings, "-", 0, f"not measured: {line['missing'].splitlines()[-1]}", "-", "-", "-"])
            for fault, words in FAULTS.items():
                tried = [line for line in of if line.get("fault") == fault]
                found = [line for line in tried if "outage" in line]
                if found:
                    outages = [line["outage"] for line in found if line["outage"] is not None]
                    what = " / ".join(dict.fromkeys(line["what"] for line in found))
                    figures = [f"**{quantile(outages, 0.5):.2f}**", f"{min(outages):.2f}–{max(outages):.2f}"] if outages else ["-", "-"]
                    rows.append([name, settings, words, len(found), *figures, what, sum(line["lost"] for line in found)])
                elif tried:
                    rows.append([name, settings, words, 0, "none", "-", tried[0]["failure"].splitlines()[0][:120], "-"])
    return table(["peer", "settings", "fault", "n", "write outage, median, s", "min–max, s", "what happened", "rows lost"], rows)
