"""The fake engine without its wire: what it is like, what runs in it, what it saw, and how it is told to misbehave."""

from spillway.core.clock import Seconds, Timers
from spillway.testing.gauges import EngineTotals, metrics_text
from spillway.testing.latency import latency_of
from spillway.testing.rng import SeededRng
from spillway.testing.script import Script
from spillway.testing.seen import Ending, Seen, UpstreamLog
from spillway.testing.sequences import Sequences
from spillway.testing.spec import UpstreamSpec


class FakeEngine:
    def __init__(self, spec: UpstreamSpec, script: Script, log: UpstreamLog, timers: Timers) -> None:
        self.spec = spec
        self.script = script
        self.log = log
        self.timers = timers
        self.totals = EngineTotals()
        self.sequences = Sequences(spec, latency_of(spec, SeededRng(spec.seed)), timers)

    def now(self) -> Seconds:
        return self.timers.time()

    def reconfigure(self, spec: UpstreamSpec) -> None:
        """Speed and room change at once, also for what runs."""
        self.spec = spec
        self.sequences.reconfigure(spec, latency_of(spec, SeededRng(spec.seed)))

    def end(self, seen: Seen, ending: Ending) -> None:
        self.log.end(seen, ending, self.now())

    def metrics(self) -> bytes:
        sequences = self.sequences
        return metrics_text(
            self.spec.models[0],
            self.totals,
            running=sequences.running,
            waiting=sequences.waiting,
            kv_usage=sequences.kv_usage,
            preemptions=sequences.preemptions,
        )
