"""Service level objectives of a run: `ttft_ms=1000,tpot_ms=60`. A request counts as good when it meets all of them."""

import math

import msgspec

from spillway.core.errors import UsageError
from spillway.load.record import RequestRecord


class Slo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Upper bounds in milliseconds; None: no bound."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None

    def met_by(self, record: RequestRecord) -> bool:
        """Whether a request that ended well met every bound. An answer of one token has no TPOT and cannot miss it; a
        stream without any content misses a bound on TTFT."""
        return (
            record.error is None
            and _within(record.ttft_s, self.ttft_ms, where_absent=False)
            and _within(record.tpot_s, self.tpot_ms, where_absent=True)
            and _within(record.e2e_s, self.e2e_ms, where_absent=False)
        )


def parse_slo(text: str) -> Slo:
    """Reads `name=milliseconds` pairs with commas between. Raises UsageError."""
    bounds: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        if name not in Slo.__struct_fields__:
            raise UsageError(f"--slo: {name!r} is none of {', '.join(Slo.__struct_fields__)}")
        try:
            bounds[name] = float(number)
        except ValueError:
            raise UsageError(f"--slo: {number!r} is not a number of milliseconds") from None
        if not (math.isfinite(bounds[name]) and bounds[name] > 0):
            raise UsageError(f"--slo: {name} must be above 0")
    return Slo(**bounds)


def _within(measured_s: float | None, bound_ms: float | None, *, where_absent: bool) -> bool:
    if bound_ms is None:
        return True
    return where_absent if measured_s is None else measured_s * 1000 <= bound_ms
