"""When requests are due: the profiles of a load run, in GuideLLM's words.

Open loop (constant, poisson, replay): the clock decides, whatever the server does. Closed loop (synchronous, concurrent,
throughput): a request is due when a stream is free. A sweep is several runs of both kinds (`bench.py`).
"""

import enum
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from spillway.core.clock import Seconds
from spillway.wire.traces import TraceRecord

_DRAWN_AT_ONCE = 1024


class Profile(enum.StrEnum):
    SYNCHRONOUS = "synchronous"  # one request at a time
    CONCURRENT = "concurrent"  # a fixed number of streams
    THROUGHPUT = "throughput"  # as many streams as allowed
    CONSTANT = "constant"  # evenly spaced arrivals
    POISSON = "poisson"  # random arrivals; with burstiness, gamma-distributed gaps
    SWEEP = "sweep"  # synchronous, throughput, and constant rates between them
    REPLAY = "replay"  # the arrivals of a trace


OPEN_LOOP = frozenset({Profile.CONSTANT, Profile.POISSON, Profile.REPLAY})


def constant_arrivals(rate_rps: float) -> Iterator[Seconds]:
    """0, 1/rate, 2/rate …: without end, without accumulated rounding."""
    return (index / rate_rps for index in count())


def gamma_arrivals(rate_rps: float, burstiness: float, rng: np.random.Generator) -> Iterator[Seconds]:
    """Arrivals whose gaps are gamma-distributed with mean 1/rate and shape `burstiness`, as in `vllm bench serve`: 1 is a
    Poisson process, the coefficient of variation is 1/√burstiness. The first comes after a gap. Without end."""
    at_s = 0.0
    while True:
        gaps = rng.gamma(shape=burstiness, scale=1 / (rate_rps * burstiness), size=_DRAWN_AT_ONCE)
        for gap_s in gaps.tolist():
            at_s += gap_s
            yield at_s


def replay_arrivals(records: Sequence[TraceRecord], speed: float) -> Iterator[Seconds]:
    """The trace's offsets, `speed` times as fast."""
    return (record.offset_s / speed for record in records)
