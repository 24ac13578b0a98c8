"""Days and months of the UTC calendar, as budgets name them. Asked of once a request, so it computes once a day."""

import datetime
from collections.abc import Callable

from spillway.core.clock import Seconds
from spillway.quota.rules import Span

DAY_S = 86_400


class Calendar:
    """`calendar(span)` is the period that now is in, such as 2026-11-26 or 2026-11; empty for spans that have none."""

    __slots__ = ("_day", "_ends_at_s", "_month", "_starts_at_s", "_wall")

    def __init__(self, wall: Callable[[], Seconds]) -> None:
        """`wall`: Unix time."""
        self._wall = wall
        self._day = self._month = ""
        self._starts_at_s = self._ends_at_s = 0.0  # of the day

    def __call__(self, span: Span) -> str:
        if span is Span.MINUTE or span is Span.NOW:
            return ""
        now_s = self._wall()
        if not self._starts_at_s <= now_s < self._ends_at_s:
            self._turn_to(now_s)
        return self._day if span is Span.DAY else self._month

    def left_s(self, span: Span) -> Seconds:
        """Until the period that now is in ends; of a minute a minute."""
        now_s = self._wall()
        today = datetime.datetime.fromtimestamp(now_s, datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        match span:
            case Span.DAY:
                return today.timestamp() + DAY_S - now_s
            case Span.MONTH:
                following = (today.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
                return following.timestamp() - now_s
            case _:
                return 60.0

    def _turn_to(self, now_s: Seconds) -> None:
        self._starts_at_s = now_s // DAY_S * DAY_S
        self._ends_at_s = self._starts_at_s + DAY_S
        self._day = datetime.datetime.fromtimestamp(now_s, datetime.UTC).strftime("%Y-%m-%d")
        self._month = self._day[:7]
