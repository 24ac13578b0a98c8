"""Kill -9 of workers, parents and engines under load: is every request that was answered in the ledger, and only once?

    python -m tests.soak.kills [--kills 50] [--seed 1] [--output FILE]

Load in a closed loop, half of it streamed, on `spillway serve` with one worker and two scripted upstreams that have a price.
At seeded moments one of the worker, the parent and the two upstreams is killed; the harness starts the parent and the upstreams
again, the parent its worker. The next kill comes only when answers flow again. At the end `ledger` compares what clients got,
what upstreams finished and what was written down.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import uvloop

from spillway.core.clock import Seconds
from spillway.testing.processes import SpawnedProcess, descendants, wait_gone
from spillway.testing.rng import SeededRng
from spillway.testing.waiting import eventually
from tests.soak.client import Connection, request
from tests.soak.ledger import PRICE, Audit, Delivered, audit, read_books, read_log
from tests.soak.results import write
from tests.soak.serving import LOCAL, SPILLWAY, Gateway, free_port

CLIENTS = 24
KEY = "sk-kills-0123456789abcdef"
MODEL = "kills"
ANSWER_S = 30.0
AGAIN_S = 30.0  # longest time to a flow of answers after a kill
FLOW = 20  # so many answers are a flow
ORPHANS_S = 5.0  # a killed parent's worker is gone within
SHORTEST_GAP_S = 0.3  # between answers that flow and the next kill
TARGETS = ("worker", "parent", "east", "west")
PAUSE_S = 0.02  # of a client that was turned away


class Upstream:
    """A scripted upstream on a port of its own, killed and started again at will."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "log"
        self._folder = folder
        self._lives = 0
        folder.mkdir()

    def start(self) -> None:
        self._lives += 1
        output = self._folder / f"output-{self._lives}"
        output.mkdir()
        words = (
            "upstream",
            "--port",
            str(self.port),
            "--model",
            "npc",
            "--log",
            str(self.log),
            "--output-tokens",
            "1000",
        )
        speed = ("--time-to-first-token", "20ms", "--inter-token-latency", "5ms")
        self.process = SpawnedProcess([*SPILLWAY, *words, *speed], output)
        self.process.wait_for("upstream is ready", deadline_s=20.0)

    def end(self) -> None:
        self.process.kill()


class Clients:
    """`delivered`: answers that were got whole. `statuses`: of everything (0: no answer, or a part of one)."""

    def __init__(self, port: int, rng: SeededRng) -> None:
        self.delivered: list[Delivered] = []
        self.statuses: Counter[int] = Counter()
        self._port = port
        self._rng = rng
        self._ending = False

    def end(self) -> None:
        """Each finishes the answer it is at."""
        self._ending = True

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(self._client())

    async def flow(self) -> None:
        """Until answers are delivered, from now on."""
        goal = len(self.delivered) + FLOW
        await eventually(lambda: len(self.delivered) >= goal, deadline_s=AGAIN_S, what="answers again")

    async def _client(self) -> None:
        connection: Connection | None = None
        while not self._ending:
            try:
                if connection is None or not connection.usable:
                    connection = await Connection.open(self._port)
                async with asyncio.timeout(ANSWER_S):
                    await self._ask(connection)
            except (OSError, EOFError, TimeoutError):
                self.statuses[0] += 1
                if connection is not None:
                    connection.abort()
                await asyncio.sleep(PAUSE_S)
        if connection is not None:
            await connection.close()

    async def _ask(self, connection: Connection) -> None:
        words = " ".join(["word"] * (1 + int(self._rng.random() * 40)))
        tokens = 1 + int(self._rng.random() * 40)
        streamed = self._rng.random() < 0.5
        messages = [{"role": "user", "content": words}]
        body = {"model": MODEL, "stream": streamed, "max_tokens": tokens, "messages": messages}
        connection.send(request(body, key=KEY))
        answer = await connection.answer()
        self.statuses[answer.status] += 1
        if answer.complete:
            self.delivered.append(Delivered(answer.request_id, time.monotonic()))
        elif answer.status != 200:
            await asyncio.sleep(PAUSE_S)


class Kill(msgspec.Struct, frozen=True):
    target: str
    at_s: Seconds
    again_s: Seconds = 0.0  # until answers flowed again


class Killer:
    def __init__(self, gateway: Gateway, upstreams: dict[str, Upstream]) -> None:
        self._gateway = gateway
        self._upstreams = upstreams

    def strike(self, target: str) -> Kill:
        """Kills it and sees to its return. Raises ProcessError where something stays that should be gone, or does not start."""
        if target == "worker":
            pid = self._gateway.worker_pid
            kill = Kill(target, time.monotonic())
            os.kill(pid, signal.SIGKILL)
        elif target == "parent":
            process = self._gateway.process
            children = descendants(process.pid)
            kill = Kill(target, time.monotonic())
            process.kill()
            self._gateway.start()
            wait_gone(children, deadline_s=ORPHANS_S)
        else:
            kill = Kill(target, time.monotonic())
            self._upstreams[target].process.kill()
            self._upstreams[target].start()
        return kill


class Outcome(msgspec.Struct, frozen=True):
    audit: Audit
    kills: tuple[Kill, ...]
    statuses: dict[int, int]
    seconds: Seconds


def run(targets: list[str], *, seed: int, longest_gap_s: Seconds = 3.0) -> Outcome:
    """One kill for each of `targets`, in their order."""
    with TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        upstreams = {site: Upstream(folder / site) for site in ("east", "west")}
        for upstream in upstreams.values():
            upstream.start()
            stack.callback(upstream.end)
        gateway = Gateway(folder, config_of(upstreams))
        gateway.start()
        stack.callback(gateway.end)
        clients = Clients(gateway.port, SeededRng(seed))
        began_s = time.monotonic()
        kills = uvloop.run(
            _killing(clients, Killer(gateway, upstreams), _moments(targets, SeededRng(seed + 1), longest_gap_s))
        )
        seconds = time.monotonic() - began_s
        gateway.stop()
        logs = [read_log(upstream.log) for upstream in upstreams.values()]
        worker_kills_s = [kill.at_s for kill in kills if kill.target == "worker"]
        result = audit(clients.delivered, logs, read_books(gateway.home / "spillway.db"), worker_kills_s)
        return Outcome(result, tuple(kills), dict(clients.statuses), seconds)


def _moments(targets: list[str], rng: SeededRng, longest_gap_s: Seconds) -> list[tuple[str, Seconds]]:
    return [(target, SHORTEST_GAP_S + rng.random() * (longest_gap_s - SHORTEST_GAP_S)) for target in targets]


async def _killing(clients: Clients, killer: Killer, moments: list[tuple[str, Seconds]]) -> list[Kill]:
    kills: list[Kill] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(clients.run())
        try:
            await clients.flow()
            for target, gap_s in moments:
                await asyncio.sleep(gap_s)
                kill = await asyncio.to_thread(killer.strike, target)
                await clients.flow()
                kills.append(msgspec.structs.replace(kill, again_s=time.monotonic() - kill.at_s))
        finally:
            clients.end()
    return kills


def config_of(upstreams: dict[str, Upstream]) -> dict[str, Any]:
    pools = {
        f"npc@{site}": {
            "cluster": site, "endpoints": [f"http://{LOCAL}:{upstream.port}"], "model": "npc", "limit": 16, "price": PRICE,
        }
        for site, upstream in upstreams.items()
    }  # fmt: skip
    return {
        "clusters": {site: {} for site in upstreams},
        "pools": pools,
        "models": {MODEL: {"tiers": [list(pools)]}},
        "keys": [{"secret": KEY, "tenant": "soak"}],
    }


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="instead of docs/results/kills.json")
    arguments = parser.parse_args(words)
    rng = SeededRng(arguments.seed + 2)
    outcome = run([TARGETS[int(rng.random() * len(TARGETS))] for _ in range(arguments.kills)], seed=arguments.seed)
    figures = {
        "audit": msgspec.to_builtins(outcome.audit),
        "seconds": round(outcome.seconds, 1),
        "statuses": {str(status): count for status, count in sorted(outcome.statuses.items())},
        "kills": [{"target": kill.target, "again_s": round(kill.again_s, 2)} for kill in outcome.kills],
    }
    return write("kills", figures, passed=outcome.audit.passed, output=arguments.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
