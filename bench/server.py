"""One PostgreSQL 15 of Debian's packages, by itself, for what needs a server and no pair."""

import contextlib
import shutil
import tempfile
from pathlib import Path

from measure import run

BIN = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "bench-only"


class Server:
    def __init__(self, port):
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix="understudy-bench-server-", dir="/var/tmp"))
        shutil.chown(self.folder, "postgres", "postgres")
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.password_file = self.folder / "password"
        self.password_file.write_text(f"{PASSWORD}\n")
        self.password_file.chmod(0o644)

    def _as_postgres(self, program, *arguments):
        return run(BIN / program, *arguments, cwd=self.folder, user="postgres", group="postgres", extra_groups=[])

    def start(self):
        self._as_postgres("initdb", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256", "--auth-local", "trust", "--pwfile", self.password_file)
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self._as_postgres("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self):
        if self.data.exists():
            with contextlib.suppress(Exception):
                self._as_postgres("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def server(port):
    """A primary that takes writes, gone at the end."""
    one = Server(port)
    try:
        one.start()
        yield one
    finally:
        one.stop()
