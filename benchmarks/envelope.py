"""CPU microseconds of reading and rewriting request bodies: `python benchmarks/envelope.py`. Best of 7 rounds.

Targets: 6 µs for a body of 1 KB, 20 µs for a prompt of 33 kB, 110 µs for one of 262 kB.
"""

import json
import time
from collections.abc import Callable
from functools import partial

from spillway.wire import envelope
from spillway.wire.envelope import Kind

SIZES = (("1 KB", 900), ("33 kB", 33_000), ("262 kB", 262_000))
STYLES = (("compact", (",", ":")), ("spaced", (", ", ": ")))


def cost_us(work: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(7):
        started = time.process_time()
        for _ in range(rounds):
            work()
        best = min(best, time.process_time() - started)
    return best / rounds * 1e6


def main() -> None:
    for style, separators in STYLES:
        for size, characters in SIZES:
            request = {
                "model": "npc",
                "messages": [{"role": "user", "content": "x" * characters}],
                "max_tokens": 80,
                "temperature": 0.7,
                "stream": True,
                "user": "someone",
            }
            body = json.dumps(request, separators=separators).encode()
            rounds = max(200, 20_000_000 // (len(body) + 1000) // 4)
            read = envelope.read(body, Kind.CHAT)
            reading = cost_us(partial(envelope.read, body, Kind.CHAT), rounds)
            rewrite = partial(envelope.rewrite, body, read, model="upstream-name", ask_for_usage=True)
            writing = cost_us(rewrite, rounds)
            print(f"{style:8} {size:>7}: read {reading:6.2f} µs, rewrite {writing:6.2f} µs")


if __name__ == "__main__":
    main()
