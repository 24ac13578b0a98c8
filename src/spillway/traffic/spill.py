"""The share of an ESTIMATED pool's load that goes elsewhere, and which sessions those are.

Rate feed-forward with a slow trim: r = EWMA of the offered work / λ*, want = max(0, 1 − (ρ* − trim) / r), and the share follows
`want`, fast up and slowly down; trim integrates the error of the (late) load index.
"""

from math import exp, isfinite
from zlib import crc32

from spillway.core.clock import Seconds
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import SpillRules

_WHOLE = float(1 << 32)


class SpillShare:
    __slots__ = ("_offered", "_rate", "_salt", "_ticked_at", "_trim", "rules", "share")

    def __init__(self, pool: str, rules: SpillRules) -> None:
        self.rules = rules
        self.share = 0.0
        self._salt = crc32(pool.encode())
        self._offered = 0.0
        self._rate = 0.0  # work tokens a second
        self._trim = 0.0
        self._ticked_at: Seconds | None = None

    def offered(self, work: float) -> None:
        """An arrival wants this pool."""
        self._offered += work

    def tick(self, now: Seconds, load_index: float, capacity_work_per_s: float) -> None:
        if self._ticked_at is None or now <= self._ticked_at:
            self._ticked_at = now
            return
        rules, step_s = self.rules, now - self._ticked_at
        self._ticked_at = now
        self._rate += (1.0 - exp(-step_s / rules.memory_s)) * (self._offered / step_s - self._rate)
        self._offered = 0.0
        error = load_index - rules.target if isfinite(load_index) else 0.0
        if self.share > 0.0 or error > 0.0:  # at rest below the target nothing is to be trimmed
            self._trim = min(rules.trim_bound, max(-rules.trim_bound, self._trim + rules.trim_gain * error * step_s))
        ratio = self._rate / capacity_work_per_s if capacity_work_per_s > 0.0 else 0.0
        want = max(0.0, 1.0 - (rules.target - self._trim) / ratio) if ratio > 0.0 else 0.0
        move = min(rules.rise_per_s * step_s, max(-rules.fall_per_s * step_s, want - self.share))
        self.share = min(1.0, max(0.0, self.share + move))

    def spills(self, arrived: Arrived) -> bool:
        """Whether it is one of those that go elsewhere. A larger share only adds sessions."""
        if self.share <= 0.0:
            return False
        return crc32((arrived.session or arrived.request).encode(), self._salt) < self.share * _WHOLE
