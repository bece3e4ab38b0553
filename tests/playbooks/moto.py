"""A server that answers like EC2's API, for as long as a suite runs: no AWS, no internet, and everything that was asked of it is known."""

import atexit
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import boto3
from support import ROOT, Failed

REGION = "us-east-1"
DEBIAN = "136693071363"


def image(number, name, created, *, owner=DEBIAN, architecture="x86_64"):
    return {
        "ami_id": f"ami-0deb13{number:011d}", "name": name, "description": name, "owner_id": owner, "public": True, "platform": None,
        "virtualization_type": "hvm", "architecture": architecture, "state": "available", "image_type": "machine", "hypervisor": "xen",
        "root_device_name": "/dev/xvda", "root_device_type": "ebs", "sriov": "simple", "creation_date": f"{created}T00:00:00.000Z",
    }


# More than one that could be taken: older, newer of somebody else, for other machines, of another release.
IMAGES = [
    image(1, "debian-13-amd64-20250915-2237", "2025-09-15"),
    image(2, "debian-13-amd64-20251117-2299", "2025-11-17"),
    image(3, "debian-13-amd64-20251006-2257", "2025-10-06"),
    image(4, "debian-13-amd64-20260101-0001", "2026-01-01", owner="999999999999"),
    image(5, "debian-13-arm64-20251117-2299", "2025-11-17", architecture="arm64"),
    image(6, "debian-12-amd64-20251112-2294", "2025-11-12"),
]
NEWEST_IMAGE, OLDER_IMAGE, ARM_IMAGE = IMAGES[1]["ami_id"], IMAGES[0]["ami_id"], IMAGES[4]["ami_id"]


class Moto:
    """moto_server on a free port of the loopback, with `IMAGES`; `with Moto() as moto:` or `start` and `stop`."""

    # What the playbooks use; a client of the tests has another, so that its calls can be told from theirs.
    KEY = "testing"

    def start(self):
        self._folder = Path(tempfile.mkdtemp(prefix="understudy-moto-"))
        (self._folder / "images.json").write_text(json.dumps(IMAGES))
        self._recording = self._folder / "recording"
        self._recording.touch()
        program = ROOT / ".cache/moto/bin/moto_server"
        if not program.exists():
            raise Failed(f"'{program}' is missing; try: scripts/make-test-environment moto")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        # 127.0.0.1, since boto3 would make host names of buckets from `localhost`.
        self.url = f"http://127.0.0.1:{port}"
        environment = {**os.environ, "MOTO_AMIS_PATH": str(self._folder / "images.json"), "MOTO_ENABLE_RECORDING": "yes",
                       "MOTO_RECORDER_FILEPATH": str(self._recording)}
        atexit.register(self.stop)
        with open(self._folder / "log", "wb") as log:
            self._server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], cwd=self._folder, env=environment,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    return self
            except OSError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"moto did not start\n{self.log()}") from None
                time.sleep(0.1)

    def stop(self):
        """Called at the end of the process as well, however it ends: a second call finds nothing to do."""
        atexit.unregister(self.stop)
        self._server.terminate()
        self._server.wait()
        shutil.rmtree(self._folder)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def log(self):
        """What the server wrote last: an error of moto's own looks like nonsense to the modules."""
        return (self._folder / "log").read_text(errors="replace")[-4000:]

    @property
    def environment(self):
        """What makes every module and the inventory speak to this server, and to no AWS. No file of the machine's user is read."""
        nothing = str(self._folder / "nothing")
        return {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": self.KEY, "AWS_SECRET_ACCESS_KEY": self.KEY, "AWS_REGION": REGION,
                "AWS_DEFAULT_REGION": REGION, "AWS_SHARED_CREDENTIALS_FILE": nothing, "AWS_CONFIG_FILE": nothing,
                "AWS_EC2_METADATA_DISABLED": "true"}

    def client(self, service="ec2", region=REGION):
        return boto3.client(service, endpoint_url=self.url, region_name=region, aws_access_key_id="observer", aws_secret_access_key="observer")

    def reset(self):
        """An account without anything in it; what was asked until now stays known."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")).close()

    def actions(self):
        """Every action that the playbooks and the inventory have asked for since the start, as IAM calls it: {'ec2:RunInstances', …}."""
        found = set()
        for line in self._recording.read_text().splitlines():
            request = json.loads(line)
            headers = {name.lower(): value for name, value in request["headers"].items()}
            signed = re.search(r"Credential=([^/]+)/\d+/[^/]+/(\w+)/", headers.get("authorization", ""))
            if signed is None or signed[1] == "observer":
                continue
            body = base64.b64decode(request["body"]).decode() if request["body_encoded"] else request["body"] or ""
            for action in urllib.parse.parse_qs(body).get("Action", []):
                found.add(f"{signed[2]}:{action}")
        return found
