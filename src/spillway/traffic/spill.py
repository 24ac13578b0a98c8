"""The share of an ESTIMATED pool's load that goes elsewhere, and which sessions those are.

How much: rate feed-forward with a slow trim. Every 0.2 s

    r = offered work / λ* (`offered`),   want = 1 − (ρ* − trim) / r,   s += clamp(want − s, −0.05 · dt, +1.0 · dt)

fast up and slowly down, and not at all within BAND: an average over 2 s, as one would take for a quick r, carries the scatter of
arrivals into s, 40 reversals a minute in `tests/traffic/test_spill`. trim integrates 0.02 · (ρ − ρ*) of the load index as it is
known, late or not, within [−trim_bound / 3, trim_bound]: near its limit a pool answers a little more rate with a lot more in flight,
and late gauges make an oscillator of whoever steers close to that. What is far below its target is late or still filling, and
counts as MOST_BELOW. A pool that is full by our own books takes nothing, whatever s says (`pools.slots`).

Who: a session whose hash is below s, so that a session keeps its prefix cache, and more s only adds sessions. The key of a request
is its session, else its end user, else its leading prefix block, else itself. A key that makes more than `heavy_share` of the pool's
work is divided by request (`heavy`), or one client would move the pool by its own weight. The hash is salted per pool, so that not
the same sessions spill everywhere, and drawn anew each day, at an hour of the pool's own, so that nobody is far from home for good.
"""

from math import exp, isfinite
from zlib import crc32

from spillway.core.clock import Seconds
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import SpillRules
from spillway.traffic.heavy import HeavyKeys
from spillway.traffic.offered import OfferedRate

DAY_S = 86_400
JUDGE_S: Seconds = 2.0
FORGET_S: Seconds = 60.0  # a trim that nothing asks for any more
BAND = 0.03  # the share is right within so much
MOST_BELOW = 0.1  # a load index far below its target is late, or still filling
LOOSE = 1 / 3  # of the trim's bound, downwards: where it lets more in
_WHOLE = 1 << 64
_MIX = 0x9E3779B97F4A7C15


class SpillShare:
    """Of one pool. `wall_offset_s`: Unix time minus `now`; all gateways that are told the truth draw the same sessions on a day."""

    __slots__ = (
        "_heavy", "_judged_at", "_offered", "_pool", "_rate", "_salt", "_ticked_at", "_trim", "rules", "share", "wall_offset_s",
    )  # fmt: skip

    def __init__(self, pool: str, rules: SpillRules, wall_offset_s: Seconds = 0.0) -> None:
        self.rules = rules
        self.wall_offset_s = wall_offset_s
        self.share = 0.0
        self._pool = crc32(pool.encode())
        self._salt = self._salt_of(0)
        self._heavy = HeavyKeys()
        self._judged_at: Seconds = 0.0
        self._offered = 0.0
        self._rate = OfferedRate()
        self._trim = 0.0
        self._ticked_at: Seconds | None = None

    def offered(self, arrived: Arrived, work: float) -> None:
        """An arrival wants this pool. `work` finite and ≥ 0."""
        self._offered += work
        self._heavy.add(key_of(arrived), work)

    def spills(self, arrived: Arrived) -> bool:
        """Whether it is one of those that go elsewhere. A larger share only adds to them."""
        if self.share <= 0.0:
            return False
        key = key_of(arrived)
        if key in self._heavy.named:
            key = arrived.request
        # multiply-shift: of two salts neither order says anything of the other, as it would with checksums alone
        return crc32(key.encode()) * self._salt % _WHOLE < self.share * _WHOLE

    def tick(self, now: Seconds, load_index: float, capacity_work_per_s: float) -> None:
        """`capacity_work_per_s`: λ*, 0 where it is not known; then nothing spills but what finds the pool full."""
        if self._ticked_at is None or now <= self._ticked_at:
            self._ticked_at = self._judged_at = now
            self._salt = self._salt_of(now)
            return
        step_s = now - self._ticked_at
        self._ticked_at = now
        self._steer(step_s, load_index, capacity_work_per_s)
        if now >= self._judged_at + JUDGE_S:
            self._heavy.judge(now - self._judged_at, self.rules.heavy_share)
            self._judged_at = now
            self._salt = self._salt_of(now)

    def _steer(self, step_s: Seconds, load_index: float, capacity_work_per_s: float) -> None:
        rules = self.rules
        self._rate.step(self._offered, step_s, rules.memory_s)
        self._offered = 0.0
        error = max(-MOST_BELOW, load_index - rules.target) if isfinite(load_index) else 0.0
        if self.share > 0.0 or error > 0.0:
            trim = self._trim + rules.trim_gain * error * step_s
            self._trim = min(rules.trim_bound, max(-LOOSE * rules.trim_bound, trim))
        else:  # at rest below the target nothing is to be trimmed
            self._trim *= exp(-step_s / FORGET_S)
        ratio = self._rate.rate / capacity_work_per_s if capacity_work_per_s > 0.0 else 0.0
        want = 1.0 - (rules.target - self._trim) / ratio if ratio > 0.0 else -1.0
        if abs(want - self.share) < BAND:
            return
        move = min(rules.rise_per_s * step_s, max(-rules.fall_per_s * step_s, max(0.0, want) - self.share))
        self.share = min(1.0, max(0.0, self.share + move))

    def _salt_of(self, now: Seconds) -> int:
        wall_s = now + self.wall_offset_s
        day = int(wall_s + self._pool % DAY_S) // DAY_S if isfinite(wall_s) else 0
        return (crc32(str(day).encode(), self._pool) * _MIX % _WHOLE) | 1


def key_of(arrived: Arrived) -> str:
    """What keeps together the requests that should stay together."""
    if arrived.session or arrived.user:
        return arrived.session or arrived.user
    return str(arrived.prefix[0]) if arrived.prefix else arrived.request
