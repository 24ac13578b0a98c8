"""`spillway up` for a measurement: two real, paced engines and the gateway, ended with the block; and `spillway bench` against it."""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Generator
from pathlib import Path

import msgspec

from spillway.load.record import RequestRecord
from spillway.testing.processes import started

READY_S = 60.0
SLO = "ttft_ms=1000,tpot_ms=60"


class Paced:
    """One that is ready. `home` holds its keys, its configuration and its store."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port = port
        self.key = (home / "demo.key").read_text().strip()
        self._token = (home / "admin.token").read_text().strip()

    def admin(self, method: str, path: str, body: object = None) -> dict[str, object]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port + 1}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self._token}", "content-type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def new_key(self, tenant: str, priority: str = "interactive") -> str:
        """A key of this tenant; its secret."""
        return str(self.admin("POST", "/admin/v1/keys", {"tenant": tenant, "priority": priority})["secret"])

    def bench(self, *words: str) -> tuple[dict[str, object], list[RequestRecord]]:
        """The result of `spillway bench` with these words, and its request log."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log.jsonl"
            keys = () if "--keys-file" in words else ("--key", self.key)
            ended = subprocess.run(
                [
                    sys.executable, "-m", "spillway", "bench", "--url", f"http://127.0.0.1:{self.port}", *keys,
                    "--model", "npc", "--slo", SLO, "--json", "--log", str(log), *words,
                ],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if ended.returncode:
                raise SystemExit(f"bench ended with {ended.returncode}:\n{ended.stderr}")
            records = [msgspec.json.decode(line, type=RequestRecord) for line in log.read_bytes().splitlines()]
            return json.loads(ended.stdout), records


@contextlib.contextmanager
def brought_up() -> Generator[Paced]:
    with tempfile.TemporaryDirectory() as name:
        home, port = Path(name), _two_free_ports()
        with started("up", "--home", str(home), "--port", str(port)) as process:
            process.wait_for(r"Spillway is ready", deadline_s=READY_S)
            yield Paced(home, port)


def _two_free_ports() -> int:
    """A free port with a free one above it."""
    while True:
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError, OverflowError):
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            other.bind(("127.0.0.1", port + 1))
            return port
