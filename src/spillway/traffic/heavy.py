"""Which keys make more than a given part of the work, in bounded memory.

A frequent-items sketch (Misra and Gries 1982, with the purge of Anderson et al. 2017): at most MOST counters; when they are full
the median is taken from all, and those that reach nothing are dropped. What was taken adds up to less than 2 / MOST of all work, so a
key above the threshold is never missed, and one that is named has at least the threshold less that. Work is forgotten with
HALF_LIFE_S. O(1) a request, amortized.
"""

from math import exp, log

from spillway.core.clock import Seconds

MOST = 256  # counters, of about 150 bytes each
HALF_LIFE_S: Seconds = 60.0
ENOUGH = 2.0  # times 1 / share requests before anybody is called heavy: of three requests each makes a third
STAYS = 0.5  # who is heavy stays so down to this part of the threshold: a session must not move back and forth


class HeavyKeys:
    """`named` is what `judge` found."""

    __slots__ = ("_count", "_taken", "_total", "_work", "named")

    def __init__(self) -> None:
        self._work: dict[str, float] = {}
        self._total = 0.0
        self._taken = 0.0  # at most so much is missing from each counter
        self._count = 0.0  # requests, forgotten as work is
        self.named: frozenset[str] = frozenset()

    def add(self, key: str, work: float) -> None:
        """`work` finite and ≥ 0."""
        self._total += work
        self._count += 1.0
        works = self._work
        works[key] = works.get(key, 0.0) + work
        if len(works) > MOST:
            self._purge()

    def judge(self, passed_s: Seconds, share: float) -> None:
        """`passed_s` since the last time: forgets as much, and names the keys above `share` of all work. O(MOST)."""
        kept = exp(-log(2.0) * max(0.0, passed_s) / HALF_LIFE_S)
        self._work = {key: work * kept for key, work in self._work.items()}
        self._total *= kept
        self._taken *= kept
        self._count *= kept
        if self._count * share < ENOUGH:
            self.named = frozenset()
            return
        least, named = share * self._total - self._taken, self.named
        self.named = frozenset(
            key for key, work in self._work.items() if work > (STAYS * least if key in named else least)
        )

    def _purge(self) -> None:
        median = sorted(self._work.values())[len(self._work) // 2]
        self._taken += median
        self._work = {key: work - median for key, work in self._work.items() if work > median}
