"""What every suite of the playbooks' tests needs: checks with names, and runs of ansible-playbook without a terminal."""

import os
import re
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Failed(Exception):
    """A check that did not hold."""


class Suite:
    """Checks in the order in which they are written; the first that fails ends the run."""

    def __init__(self, before, after, explain=lambda: ""):
        """`before` removes what an interrupted run left, `after` what this one made; `explain` is asked after a failure."""
        self.checks, self.before, self.after, self.explain = [], before, after, explain

    def check(self, function=None, *, always=False):
        """Registers a check; its name is the function's, in words. Others build on one that is marked `always`."""

        def register(function):
            self.checks.append((function.__name__.replace("_", " "), function, always))
            return function

        return register(function) if function else register


def expect(holds, what, seen=""):
    if not holds:
        raise Failed(f"{what}\n{seen}")


def run(*command, may_fail=False, environment=None):
    """Standard output and errors of a command in the repository's folder."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode and not may_fail:
        raise Failed(f"{shlex.join(command)} ended with {done.returncode}\n{done.stdout}")
    return done.stdout.strip()


class Play:
    """One run of ansible-playbook, without a terminal."""

    def __init__(self, playbook, *arguments, variables=(), environment=None, program=".venv/bin/ansible-playbook"):
        """`variables` are files beside variables/target.yml, `environment` what differs from this process's own."""
        command = [program, "-e", "@variables/target.yml"]
        for file in variables:
            command += ["-e", f"@{file}"]
        command += [f"playbooks/{playbook}.yml", *shlex.split(os.environ.get("ARGS", "")), *arguments]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.code, self.output = done.returncode, done.stdout
        # One line a host; a playbook may have plays for this machine and for others.
        recap = re.findall(r"changed=(\d+)", self.output)
        self.changed = sum(map(int, recap)) if recap else None

    def succeeded(self, changed=None):
        expect(self.code == 0, f"the playbook should have succeeded, it ended with {self.code}", self.output)
        expect(changed in (None, self.changed), f"expected changed={changed}, got changed={self.changed}", self.output)
        return self

    def refused(self, message):
        # The words are wrapped in the output; the message is one line.
        said = re.sub(r"\s+", " ", self.output)
        expect(self.code != 0, "the playbook should have refused", self.output)
        expect(message in said, f"the refusal should say '{message}'", self.output)
        expect(self.changed in (0, None), f"a refusal changes nothing, got changed={self.changed}", self.output)
        return self
