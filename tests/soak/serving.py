"""`spillway serve` under a soak: a folder of its own, one worker, killed and started again at will."""

import contextlib
import json
import socket
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from spillway.testing.processes import SpawnedProcess, descendants
from tests.soak.client import Answer, ask, request

START_S = 60.0
STOP_S = 40.0
SPILLWAY = (sys.executable, "-m", "spillway")
LOCAL = "127.0.0.1"


class Gateway:
    """`config`: top-level keys of the configuration; `gateway` and `store` get what is needed here."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.port = free_port()
        self.admin_port = free_port()
        own = {"listen": f"{LOCAL}:{self.port}", "admin": f"{LOCAL}:{self.admin_port}", "home": str(self.home)}
        document = {
            "batch": {"workers": 0},
            **config,
            "gateway": {"workers": 1, "drain_s": 10.0, **config.get("gateway", {}), **own},
        }
        self.path = folder / "spillway.yaml"
        self.path.write_text(json.dumps(document, indent=1))  # JSON is YAML too
        self._lives = 0
        self._process: SpawnedProcess | None = None

    @property
    def process(self) -> SpawnedProcess:
        if self._process is None:
            raise RuntimeError("the gateway was not started")
        return self._process

    @property
    def worker_pid(self) -> int:
        """The newest worker's. Raises LookupError while there is none."""
        workers = [pid for pid in descendants(self.process.pid) if _runs(pid, b"spillway.app.worker")]
        if not workers:
            raise LookupError("no worker runs")
        return max(workers)

    def start(self) -> None:
        """Returns when every worker accepts connections. Raises ProcessError."""
        self._lives += 1
        output = self.folder / f"output-{self._lives}"
        output.mkdir()
        self._process = SpawnedProcess([*SPILLWAY, "serve", "--config", str(self.path)], output)
        self._process.wait_for(r"ready: http://", deadline_s=START_S)

    def stop(self) -> int:
        """Drains it; its exit status. Raises AssertionError where its log has a traceback."""
        status = self.process.stop(deadline_s=STOP_S)
        self.process.kill_session()
        for output in sorted(self.folder.glob("output-*/stderr")):
            text = output.read_text(errors="replace")
            assert "Traceback" not in text, text[-6000:]
        return status

    def end(self) -> None:
        """At once, with everything that it started."""
        self.process.kill_session()
        self.process.kill()

    async def admin(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        token = (self.home / "admin.token").read_text().strip()
        return await ask(self.admin_port, request(body or b"", key=token, path=path, method=method))


@contextlib.contextmanager
def serving(config: Mapping[str, Any]) -> Generator[Gateway]:
    """A gateway that serves; when the block is left it has drained, and nothing of its session is left over."""
    with TemporaryDirectory() as name:
        gateway = Gateway(Path(name), config)
        gateway.start()
        try:
            yield gateway
            gateway.stop()
        finally:
            gateway.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


def _runs(pid: int, word: bytes) -> bool:
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def decoded(answer: Answer) -> Any:
    assert answer.status in (200, 201), (answer.status, answer.body)
    return msgspec.json.decode(answer.body)
