"""What is written down while a simulation runs: a row for each request that ended, and a sample of every pool each so often."""

from array import array

from spillway.core.clock import Seconds
from spillway.core.ids import PoolName, TenantId
from spillway.core.outcome import Outcome
from spillway.core.usage import Price, Usage
from spillway.planner.arrival import Arrival
from spillway.planner.engine import Job
from spillway.planner.scenario import Scenario
from spillway.traffic.fleet import Accounting
from spillway.traffic.requests import RANK_OF

OUTCOMES = tuple(Outcome)
_NUMBER = {outcome: number for number, outcome in enumerate(OUTCOMES)}
UNFINISHED = len(OUTCOMES)  # still waiting or running at the end of the simulation
NOWHERE = -1  # no pool
FREE = Price()
_NONE = float("nan")


class _Column:
    """One of `width` numbers that a table has for each request; reading it copies it out."""

    def __init__(self, table: str, place: int, width: int) -> None:
        self._table, self._place, self._width = table, place, width

    def __get__(self, books: "Books", owner: type["Books"]) -> "array[float]":
        table: array[float] = getattr(books, self._table)
        return table[self._place :: self._width]


def _columns(table: str, width: int) -> tuple[_Column, ...]:
    return tuple(_Column(table, place, width) for place in range(width))


class Books:
    """Columns, one entry for each request in the order of their ends: `at_s`, `ttft_s` and `e2e_s` (NaN where there is none), `rank`,
    `tenant` and `pool` (numbers into `tenants` and `pools`), `outcome` (into OUTCOMES), tokens, `spilled`, `usd`. They lie side by side in two tables, one call for a request: half the cost of fourteen columns."""

    at_s, ttft_s, e2e_s, usd = _columns("reals", 4)
    rank, model, region, tenant, outcome, input_tokens, output_tokens, pool, spilled, warm_tokens = _columns(
        "counts", 10
    )

    def __init__(self, scenario: Scenario) -> None:
        specs = scenario.pools
        self.pools: tuple[PoolName, ...] = tuple(specs)
        self.hosted = tuple(specs[name].hosted for name in self.pools)
        self.limits = tuple(_limit(scenario, name) for name in self.pools)
        self.models = {name: model for seen in scenario.gateways for name, model in seen.fleet.models.items()}
        self.model_names = tuple(self.models)
        self.regions = tuple(dict.fromkeys(seen.region for seen in scenario.gateways))
        self.sample_s = scenario.sample_s
        self._price = {name: spec.price if spec.price != FREE else None for name, spec in specs.items()}
        self._pool_number = {name: number for number, name in enumerate(self.pools)}
        self._model_number = {name: number for number, name in enumerate(self.model_names)}
        self._region_number = {name: number for number, name in enumerate(self.regions)}
        self.tenants: dict[TenantId, int] = {}
        self.arrivals = 0
        self.yielded = 0  # attempts
        self.reals: array[float] = array("d")
        self.counts: array[int] = array("i")
        self.sampled_at: list[Seconds] = []
        self.loads: list[list[float]] = [[] for _ in self.pools]  # in flight in the engines over the limit
        self.dispatched: list[list[int]] = [[] for _ in self.regions]  # attempts since the sample before
        self.moved: list[list[int]] = [[] for _ in self.regions]  # of these, spilled
        self.waiting: list[list[int]] = [[] for _ in self.regions]
        self._dispatched = [0 for _ in self.regions]
        self._moved = [0 for _ in self.regions]

    def sent(self, region: str, job: Job) -> None:
        number = self._region_number[region]
        self._dispatched[number] += 1
        self._moved[number] += job.spilled

    def ended(self, arrival: Arrival, outcome: Outcome | None, job: Job | None, now: Seconds) -> None:
        """`outcome` None: unfinished. `job`: its last attempt."""
        arrived, output_tokens = arrival.arrived, arrival.output_tokens
        usd, ttft_s, e2e_s, pool, spilled, warm_tokens = 0.0, _NONE, _NONE, NOWHERE, False, 0
        if job is not None:
            pool, spilled, warm_tokens = self._pool_number[job.pool], job.spilled, job.warm
            if outcome is Outcome.OK:
                ttft_s, e2e_s = job.first_at - arrival.at_s, now - arrival.at_s
                if (price := self._price[job.pool]) is not None:
                    usd = price.cost_usd(Usage(arrived.input_tokens, output_tokens))
        self.reals.extend((arrival.at_s, ttft_s, e2e_s, usd))
        self.counts.extend((
            RANK_OF[arrived.priority],
            self._model_number.get(arrived.model, NOWHERE),
            self._region_number[arrival.region],
            self.tenants.setdefault(arrived.tenant, len(self.tenants)),
            UNFINISHED if outcome is None else _NUMBER[outcome],
            arrived.input_tokens,
            output_tokens,
            pool,
            spilled,
            warm_tokens,
        ))  # fmt: skip

    def sample(self, now: Seconds, holds: list[int], waiting: list[int]) -> None:
        """`holds`: what the engines of each pool hold; `waiting`: who waits in each region."""
        self.sampled_at.append(now)
        for series, held, limit in zip(self.loads, holds, self.limits, strict=True):
            series.append(held / limit if limit else 0.0)
        for number in range(len(self.regions)):
            self.dispatched[number].append(self._dispatched[number])
            self.moved[number].append(self._moved[number])
            self.waiting[number].append(waiting[number])
            self._dispatched[number] = self._moved[number] = 0


def _limit(scenario: Scenario, pool: PoolName) -> int:
    """All gateways' slots of it together; what one counts on of an ESTIMATED pool is a part of the whole that they all see."""
    specs = [seen.fleet.pools[pool] for seen in scenario.gateways if pool in seen.fleet.pools]
    if specs[0].accounting is Accounting.ESTIMATED:
        return max(spec.limit for spec in specs)
    return sum(spec.limit for spec in specs)
