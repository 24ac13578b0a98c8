"""Does the memory of a gateway stand still? Thirty minutes of mixed load on `spillway serve` with one worker.

    python -m tests.soak.memory [--minutes 30] [--output FILE]

Figure: the median resident size (/proc, each 5 s) of the last sixth of the time over that of the third sixth, which with 30
minutes is 25–30 over 10–15. At most 1.02, of the worker and of the parent. Meanwhile keys are renewed, the metrics are read,
the configuration is read again. Two scripted upstreams run in this process, one of which fails at times.
"""

import argparse
import asyncio
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from spillway.core.clock import Seconds
from spillway.testing.rng import SeededRng
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble
from tests.soak.crowd import Crowd
from tests.soak.mixed import MODEL, MixedLoad
from tests.soak.proc import cpu_s, resident_bytes
from tests.soak.results import write
from tests.soak.serving import LOCAL, Gateway, free_port, serving

MOST_GROWTH = 1.02
POINTS = 60  # of the series, in the result
QUIET_S = 30.0
CLUSTERS = ("east", "west")
SPEC = UpstreamSpec(
    models=("npc",), time_to_first_token_s=0.05, inter_token_latency_s=0.02, embedding_dimensions=16, max_num_seqs=64,
    output_tokens=2000, kept_requests=0,
)  # fmt: skip
FAULTS = (
    "500:share=0.04",
    "503:share=0.02,retry_after_s=1",
    "cut:3,share=0.01",
    "reset:share=0.01",
    "stall:2,share=0.002",
)


class Plan(msgspec.Struct, frozen=True):
    seconds: Seconds
    seed: int = 1
    per_s: float = 40.0
    tenants: int = 2000
    sample_s: Seconds = 5.0
    renew_s: Seconds = 1.0
    operate_s: Seconds = 15.0
    patience_s: Seconds = 10.0  # of clients that read slowly


class Sample(msgspec.Struct, frozen=True):
    at_s: Seconds
    worker_bytes: int
    parent_bytes: int


class Verdict(msgspec.Struct, frozen=True):
    """Medians in bytes, and the later over the earlier."""

    worker_early_bytes: float
    worker_late_bytes: float
    parent_early_bytes: float
    parent_late_bytes: float

    @property
    def worker_growth(self) -> float:
        return self.worker_late_bytes / self.worker_early_bytes

    @property
    def parent_growth(self) -> float:
        return self.parent_late_bytes / self.parent_early_bytes

    @property
    def passed(self) -> bool:
        return max(self.worker_growth, self.parent_growth) <= MOST_GROWTH


def verdict_of(samples: list[Sample], seconds: Seconds) -> Verdict:
    """Raises StatisticsError where a window holds no sample."""
    early = [sample for sample in samples if seconds / 3 <= sample.at_s < seconds / 2]
    late = [sample for sample in samples if seconds * 5 / 6 <= sample.at_s]
    worker = [statistics.median(sample.worker_bytes for sample in part) for part in (early, late)]
    parent = [statistics.median(sample.parent_bytes for sample in part) for part in (early, late)]
    return Verdict(*worker, *parent)


async def watch(worker: int, parent: int, samples: list[Sample], every_s: Seconds) -> None:
    """Until cancelled. Raises OSError when one of them is gone: a worker that was replaced proves nothing."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while True:
        samples.append(Sample(loop.time() - began_s, resident_bytes(worker), resident_bytes(parent)))
        await asyncio.sleep(every_s)


async def renew(crowd: Crowd, every_s: Seconds) -> None:
    while True:
        await asyncio.sleep(every_s)
        await crowd.renew()


async def operate(gateway: Gateway, every_s: Seconds) -> None:
    """What a monitoring system and operators do."""
    paths = ("/metrics", "/admin/v1/pools", "/admin/v1/usage?limit=100", "/admin/v1/keys?limit=100")
    while True:
        for path in paths:
            assert (await gateway.admin("GET", path)).status == 200, path
        assert (await gateway.admin("POST", "/admin/v1/reload")).status == 200
        await asyncio.sleep(every_s)


async def soak(gateway: Gateway, ports: list[int], plan: Plan) -> tuple[dict[str, Any], bool]:
    """The figures of one run, and whether they are good enough."""
    upstreams = [UpstreamDouble(SPEC) for _ in ports]
    for upstream, port in zip(upstreams, ports, strict=True):
        await upstream.start(port=port)
    upstreams[0].misbehave(*FAULTS)
    crowd = Crowd(gateway, SeededRng(plan.seed), plan.tenants)
    await crowd.gather()
    load = MixedLoad(gateway.port, crowd, SeededRng(plan.seed + 1), per_s=plan.per_s, patience_s=plan.patience_s)
    pids = {"worker": gateway.worker_pid, "parent": gateway.process.pid, "load": os.getpid()}
    before_s = {name: cpu_s(pid) for name, pid in pids.items()}
    samples: list[Sample] = []
    async with asyncio.TaskGroup() as tasks:
        always = [
            tasks.create_task(watch(pids["worker"], pids["parent"], samples, plan.sample_s)),
            tasks.create_task(renew(crowd, plan.renew_s)),
            tasks.create_task(operate(gateway, plan.operate_s)),
        ]
        await load.run(plan.seconds)
        for task in always:
            task.cancel()
    cores = {name: round((cpu_s(pid) - before_s[name]) / plan.seconds, 3) for name, pid in pids.items()}
    for upstream in upstreams:
        await upstream.quiet(deadline_s=QUIET_S)
        await upstream.stop()
    verdict = verdict_of(samples, plan.seconds)
    figures = {
        "minutes": round(plan.seconds / 60, 2),
        "growth": {"worker": round(verdict.worker_growth, 4), "parent": round(verdict.parent_growth, 4)},
        "most_growth": MOST_GROWTH,
        "medians_mb": {
            "worker": [verdict.worker_early_bytes / 1e6, verdict.worker_late_bytes / 1e6],
            "parent": [verdict.parent_early_bytes / 1e6, verdict.parent_late_bytes / 1e6],
        },
        "requests": load.endings.total(),
        "skipped": load.skipped,
        "unexpected": dict(load.unexpected),
        "endings": dict(sorted(load.endings.items())),
        "upstreams": [{ending.value: count for ending, count in one.log.endings.items()} for one in upstreams],
        "keys": {"live": plan.tenants, "created": crowd.created, "revoked": crowd.revoked},
        "cores": cores,
        "series": [
            {"s": round(one.at_s), "worker_mb": one.worker_bytes / 1e6, "parent_mb": one.parent_bytes / 1e6}
            for one in samples[:: max(1, len(samples) // POINTS)]
        ],
    }
    return figures, verdict.passed and not load.unexpected


def config_of(ports: list[int]) -> dict[str, Any]:
    """A small pool in front of a large one, so that there is spill and at times a queue."""
    limits = (8, 24)
    pools = {
        f"npc@{name}": {"cluster": name, "endpoints": [f"http://{LOCAL}:{port}"], "model": "npc", "limit": limit}
        for name, port, limit in zip(CLUSTERS, ports, limits, strict=True)
    }
    return {
        "gateway": {"timeouts": {"first_content_s": 5.0, "between_chunks_s": 5.0, "whole_s": 20.0}},
        "clusters": {name: {} for name in CLUSTERS},
        "pools": pools,
        "models": {MODEL: {"tiers": [[pool] for pool in pools]}},
    }


def run(plan: Plan) -> tuple[dict[str, Any], bool]:
    ports = [free_port() for _ in CLUSTERS]
    with serving(config_of(ports)) as gateway:
        return uvloop.run(soak(gateway, ports, plan))


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="instead of docs/results/memory.json")
    arguments = parser.parse_args(words)
    figures, passed = run(Plan(arguments.minutes * 60.0, seed=arguments.seed))
    return write("memory", figures, passed=passed, output=arguments.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
