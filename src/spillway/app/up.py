"""`spillway up`: two local clusters of one real engine each, and the gateway in front of them, from nothing.

The engines are paced, so that each cluster has a capacity of its own on a machine whose cores they share. Everything that is
started here ends here: Ctrl-C drains the gateway, then ends the engines; a killed parent takes them along (lifeline).
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import msgspec

from spillway import config
from spillway.app.listeners import vacant
from spillway.app.parent import Parent
from spillway.app.system import SystemRng
from spillway.backends.probes import ProbeTarget, probe
from spillway.core.errors import SpillwayError
from spillway.core.ids import EndpointUrl, random_word
from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.settings import ClientLimits

CLUSTERS = ("east", "west")
MODEL = "npc-1.9m"
READY_S = 60.0  # longest time to a healthy engine
PROBE_S = 0.05
RESTART_S = 2.0  # an engine that ended by itself is started again after this
STOP_S = 10.0
DEMO_KEY_ENV = "SPILLWAY_DEMO_KEY"


class Pace(msgspec.Struct, frozen=True):
    """A step of n sequences takes at least step_ms + sequence_ms · n."""

    step_ms: float = 20.0
    sequence_ms: float = 0.2


def bundled_model() -> Path:
    """The bundled model's folder: in the package where it was installed from a wheel, else in the checkout."""
    packaged = Path(str(resources.files("spillway"))) / "bundled" / MODEL
    checkout = Path(__file__).resolve().parents[3] / "models" / MODEL / "openvino"
    for folder in (packaged, checkout):
        if folder.is_dir():
            return folder
    raise SpillwayError(f"the bundled model {MODEL} is not installed; give one with --model DIR")


class Engine:
    """One engine process on a port of its own, started again when it ends by itself."""

    def __init__(self, cluster: str, model: Path, port: int, pace: Pace, log: logging.Logger) -> None:
        self.cluster = cluster
        self.url = EndpointUrl(f"http://127.0.0.1:{port}")
        self._command = [
            sys.executable, "-m", "spillway", "engine", "--model", str(model), "--name", MODEL, "--port", str(port),
            "--pace-ms", str(pace.step_ms), "--pace-per-seq-ms", str(pace.sequence_ms),
        ]  # fmt: skip
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        while True:
            read_end, write_end = os.pipe()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, "--lifeline-fd", str(read_end),
                    pass_fds=(read_end,), stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
                os.close(read_end)
                status = await self._process.wait()
            finally:
                await self._stop()
                os.close(write_end)
            self._log.warning("an engine ended, it is started again", extra={"cluster": self.cluster, "status": status})
            await asyncio.sleep(RESTART_S)

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def healthy(self) -> None:
        host = self.url.removeprefix("http://")
        target = ProbeTarget(
            self.url,
            HttpOrigin(Destination(self.url), ClientLimits()),
            f"GET /health HTTP/1.1\r\nhost: {host}\r\n\r\n".encode(),
        )
        try:
            async with asyncio.timeout(READY_S):
                while not await probe(target, timeout_s=1.0):
                    await asyncio.sleep(PROBE_S)
        except TimeoutError:
            raise SpillwayError(f"the engine of {self.cluster} did not start within {READY_S:.0f} s") from None


async def up(
    home: Path, port: int, workers: int, model: Path, pace: Pace, log: logging.Logger, say: Callable[[str], None]
) -> None:
    """Serves until SIGINT or SIGTERM. `say` gets the lines for whoever started it."""
    for one in (port, port + 1):
        await vacant(f"127.0.0.1:{one}")
    key = demo_key(home)
    engines = [
        Engine(cluster, model, engine_port, pace, log)
        for cluster, engine_port in zip(CLUSTERS, free_ports(len(CLUSTERS)), strict=True)
    ]
    path = home / "up.yaml"
    path.write_text(configuration_text(port, workers, [engine.url for engine in engines], pace))
    environ = {**os.environ, DEMO_KEY_ENV: key}

    def ready(address: str) -> None:
        for line in ready_lines(address, port + 1, home, key, pace):
            say(line)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(engine.run()) for engine in engines]
        await asyncio.gather(*(engine.healthy() for engine in engines))
        parent = Parent(path, config.load(path, environ), home, log, environ)
        await parent.run(ready)
        for task in running:
            task.cancel()


def demo_key(home: Path) -> str:
    """The key in `HOME/demo.key`, made where there is none."""
    path = home / "demo.key"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"sk-{random_word(SystemRng(), 40)}\n")
    return path.read_text().strip()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def configuration_text(port: int, workers: int, urls: list[EndpointUrl], pace: Pace) -> str:
    """The configuration of two paced local clusters; `spillway up` writes it anew at each start."""
    east, west = urls
    return f"""\
# Written by `spillway up` at each start. Copy it to begin a configuration of your own.
# The engines are paced: a step of n sequences takes at least {pace.step_ms} + {pace.sequence_ms} n ms.
gateway: {{listen: "127.0.0.1:{port}", admin: "127.0.0.1:{port + 1}", workers: {workers}}}
store: {{url: "sqlite:spillway.db"}}
clusters:
  east: {{region: us-east, rtt_ms: 1}}
  west: {{region: us-west, rtt_ms: 60}}
pools:
  npc@east: {{cluster: east, endpoints: ["{east}"], model: {MODEL}, limit: 32, continuation: true}}
  npc@west: {{cluster: west, endpoints: ["{west}"], model: {MODEL}, limit: 32, continuation: true}}
models:
  npc:
    tiers: [["npc@east"], ["npc@west"]]
    slo: {{ttft_ms: 1000, tpot_ms: 60}}
keys:
  - {{secret: "${{{DEMO_KEY_ENV}}}", tenant: demo, priority: realtime}}
"""


def ready_lines(address: str, admin_port: int, home: Path, key: str, pace: Pace) -> list[str]:
    question = '{"model": "npc", "messages": [{"role": "user", "content": "Describe the rare golden key."}]}'
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    return [
        f"Spillway is ready: http://{address}/v1   console: http://127.0.0.1:{admin_port}/   (token: {home}/admin.token)",
        f"Two clusters, east and west, paced at {pace.step_ms:g} + {pace.sequence_ms:g} n ms a step; `npc` runs in east and spills to west.",
        f"Demo key: {key}   (also in {home}/demo.key)",
        "Try:",
        f"  curl http://{address}/v1/chat/completions {headers} -d '{question}'",
        "Ctrl-C drains and stops everything.",
    ]
