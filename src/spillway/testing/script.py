"""Which fault strikes which request: rules on a time line, and failures by chance."""

import msgspec

from spillway.core.clock import Seconds
from spillway.testing.faults import Fault, FaultKind, Rule
from spillway.testing.rng import SeededRng

FAILURE_TYPES: dict[str, FaultKind] = {
    "rate_limit": FaultKind.RATE_LIMITED,
    "invalid_api_key": FaultKind.BAD_KEY,
    "context_length": FaultKind.CONTEXT_LENGTH_EXCEEDED,
    "server_error": FaultKind.UNAVAILABLE,
    "invalid_request": FaultKind.REJECT_SHAPE,
    "model_not_found": FaultKind.MODEL_NOT_FOUND,
}
"""The names of llm-d-inference-sim."""


class Failures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`failure_injection_rate`: per cent of the requests, 0–100. `failure_types`: names of `FAILURE_TYPES`; empty means all."""

    failure_injection_rate: float = 0.0
    failure_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.failure_types) - FAILURE_TYPES.keys()
        if unknown or not 0.0 <= self.failure_injection_rate <= 100.0:
            raise ValueError(f"rate must be 0-100 and types among {', '.join(FAILURE_TYPES)}")


class Script:
    """The first rule that fits strikes; without one, chance. Rules may be replaced while requests run."""

    def __init__(self, rng: SeededRng) -> None:
        self._rng = rng
        self._rules: list[Rule] = []
        self._struck: list[int] = []
        self._started_s: Seconds = 0.0
        self.failures = Failures()

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(self._rules)

    @property
    def struck(self) -> tuple[int, ...]:
        """How many requests each rule has struck."""
        return tuple(self._struck)

    def replace(self, rules: list[Rule], now_s: Seconds) -> None:
        """The time line starts anew at `now_s`; nothing has struck yet."""
        self._rules = list(rules)
        self._struck = [0] * len(rules)
        self._started_s = now_s

    def pick(self, path: str, model: str, now_s: Seconds, *, generates: bool) -> Fault | None:
        """`generates`: the path is one of those that use the engine; rules without a path mean these."""
        elapsed_s = now_s - self._started_s
        for index, rule in enumerate(self._rules):
            meant = generates if rule.path is None else rule.path == path
            if (
                meant
                and rule.active(elapsed_s)
                and rule.model in (None, model)
                and (rule.count is None or self._struck[index] < rule.count)
                and (rule.share >= 1.0 or self._rng.random() < rule.share)
            ):
                self._struck[index] += 1
                return rule
        return self._by_chance() if generates else None

    def _by_chance(self) -> Fault | None:
        failures = self.failures
        if not failures.failure_injection_rate or self._rng.random() * 100.0 >= failures.failure_injection_rate:
            return None
        names = failures.failure_types or tuple(FAILURE_TYPES)
        return Fault(kind=FAILURE_TYPES[names[int(self._rng.random() * len(names))]])
