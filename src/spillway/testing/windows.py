"""Whether a limit held: not in windows that somebody chose, but in all of them."""

from collections.abc import Iterable

from spillway.core.clock import Seconds


def excess(served: Iterable[tuple[Seconds, int]], per_s: float) -> float:
    """The most, over all moments a ≤ b, that was served from a to b beyond `per_s` · (b − a). `served`: when, and how much.

    By Lindley's recursion: what a queue holds at most that is emptied at `per_s`.
    """
    level, most, before = 0.0, 0.0, None
    for at, amount in sorted(served):
        if before is not None:
            level = max(0.0, level - per_s * (at - before))
        level += amount
        most = max(most, level)
        before = at
    return most
