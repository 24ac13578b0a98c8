"""A tenant with 100,000 tokens a minute, 64 clients, three gateways: are the tokens that its upstream served within the stated bound?

    python -m tests.soak.limits [--windows 20] [--window-s 20] [--output FILE]

`spillway serve` on three hosts in network namespaces against one PostgreSQL and one Valkey, with the times that they have in earnest. First
`windows` windows of calm load; then a quarter as many with each trouble: a gateway killed with -9, the Valkey paused for 10 s, one
host cut off from it for 10 s. The bound: in every window, of all lengths and wherever it begins, tokens ≤ limit / 60 · seconds +
limit / 6 + one request. Beside it load at 90 % of the limit, of which nothing may be refused; and 200 requests at once against
a budget in dollars for 50.
"""

import argparse
import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from spillway.testing.seen import Seen
from spillway.testing.windows import excess
from tests.e2e.talking import Talk, request
from tests.hosts.cluster import PORT, Cluster, GatewayHost, cluster
from tests.soak.results import write

PER_MINUTE = 100_000
CLIENTS = 64
OUTPUT = 20
CUT_S = 10.0
KEY, STEADY, DOLLARS = "sk-soak-0123456789-crowd", "sk-soak-0123456789-steady", "sk-soak-0123456789-usd"
TIMES: dict[str, Any] = {"learn_s": 50.0}
SECTIONS: dict[str, Any] = {
    "keys": [{"secret": KEY, "tenant": "t"}, {"secret": STEADY, "tenant": "s"}, {"secret": DOLLARS, "tenant": "usd"}],
    "tenants": {
        "t": {"quota": {"tokens_per_minute": PER_MINUTE}},
        "s": {"quota": {"tokens_per_minute": PER_MINUTE}},
        "usd": {"quota": {"usd_per_day": 50 * OUTPUT / 1000}},
    },
}
BODY = {"model": "m", "max_tokens": OUTPUT, "messages": [{"role": "user", "content": "one two three"}]}


def tokens(seen: list[Seen]) -> list[tuple[float, int]]:
    return [(one.arrived_s, one.prompt_tokens + one.sent_tokens) for one in seen]


async def crowd(hosts: Cluster, seconds: float, statuses: Counter[int]) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def client(gateway: GatewayHost) -> None:
        while loop.time() < until:
            try:
                async with Talk(PORT, host=gateway.host.address) as talk:
                    while loop.time() < until:
                        talk.send(request(BODY, key=KEY))
                        answer = await asyncio.wait_for(talk.answer(), 10.0)
                        statuses[answer.status] += 1
                        if answer.status != 200:
                            await asyncio.sleep(0.02)
            except (OSError, AssertionError, TimeoutError):
                statuses[0] += 1
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client(hosts.gateways[number % 3]) for number in range(CLIENTS)))


async def phase(hosts: Cluster, upstream: Any, seconds: float, windows: int, trouble: str) -> dict[str, object]:
    statuses, before = Counter[int](), upstream.log.arrived
    asking = asyncio.create_task(crowd(hosts, seconds, statuses))
    await asyncio.sleep(seconds / 3)
    match trouble:
        case "gateway killed":
            hosts.gateways[2].process.kill_session()
        case "valkey paused":
            hosts.redis.pause()
            await asyncio.sleep(CUT_S)
            hosts.redis.resume()
        case "host cut off":
            hosts.network.hosts[0].cut(hosts.redis.port)
            await asyncio.sleep(CUT_S)
            hosts.network.hosts[0].mend()
        case _:
            pass
    await asking
    await upstream.quiet()
    served = tokens(upstream.log.since(before))
    begin, length = served[0][0], seconds / windows
    sums = Counter[int]()
    for at, amount in served:
        sums[int((at - begin) // length)] += amount
    largest = max(amount for _, amount in served)
    worst = excess(served, PER_MINUTE / 60)
    most = PER_MINUTE / 60 * length + PER_MINUTE / 6 + largest
    return {
        "trouble": trouble,
        "seconds": seconds,
        "answers": {str(status): count for status, count in sorted(statuses.items())},
        "served_of_rate": round(sum(sums.values()) / (PER_MINUTE / 60 * seconds), 3),
        "tokens_in_windows": [sums[number] for number in sorted(sums)],
        "bound_of_a_window": round(most),
        "worst_excess": round(worst),
        "bound_of_the_excess": round(PER_MINUTE / 6 + largest),
        "passed": worst <= PER_MINUTE / 6 + largest and max(sums.values()) <= most,
    }


async def steady(hosts: Cluster, upstream: Any, seconds: float) -> dict[str, object]:
    """At 90 % of the limit, unevenly over the hosts, in bursts of ten."""
    before = upstream.log.arrived
    await hosts.gateways[0].ask(STEADY, BODY)
    size = tokens(upstream.log.since(before))[0][1]
    loop, statuses = asyncio.get_running_loop(), Counter[int]()
    begin, per_s = loop.time(), 0.9 * PER_MINUTE / 60 / size

    async def one(number: int) -> None:
        await asyncio.sleep(begin + number // 10 * 10 / per_s - loop.time())
        statuses[(await hosts.gateways[0 if number % 4 else 1 + number % 2].ask(STEADY, BODY)).status] += 1

    await asyncio.gather(*(one(number) for number in range(int(per_s * seconds))))
    return {"answers": {str(status): count for status, count in statuses.items()}, "passed": set(statuses) == {200}}


async def dollars(hosts: Cluster, upstream: Any) -> dict[str, object]:
    before = upstream.log.arrived
    answers = await asyncio.gather(*(hosts.gateways[number % 3].ask(DOLLARS, BODY) for number in range(200)))
    await upstream.quiet()
    served = sum(answer.status == 200 for answer in answers)
    spent = sum(seen.sent_tokens for seen in upstream.log.since(before)) / OUTPUT
    return {
        "budget_for": 50,
        "served": served,
        "spent_of_the_budget": spent / 50,
        "passed": served >= 45 and spent <= 50,
    }


async def measure(windows: int, window_s: float) -> tuple[dict[str, object], bool]:
    with cluster(TIMES, SECTIONS) as hosts:
        async with hosts.upstream(within_s=120.0) as upstream:
            budget = await dollars(hosts, upstream)
            calm = await steady(hosts, upstream, 3 * window_s)
            phases = [await phase(hosts, upstream, windows * window_s, windows, "none")]
            fewer = max(1, windows // 4)
            phases += [
                await phase(hosts, upstream, max(30.0, fewer * window_s), fewer, trouble)
                for trouble in ("valkey paused", "host cut off", "gateway killed")
            ]
    passed = all(one["passed"] for one in (budget, calm, *phases))
    figures: dict[str, object] = {
        "limit_tokens_per_minute": PER_MINUTE, "clients": CLIENTS, "gateways": 3, "dollars": budget, "ninety_percent": calm,
        "phases": phases,
    }  # fmt: skip
    return figures, passed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--window-s", type=float, default=20.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    figures, passed = asyncio.run(measure(arguments.windows, arguments.window_s))
    return write("limits", figures, passed=passed, output=arguments.output)


if __name__ == "__main__":
    sys.exit(main())
