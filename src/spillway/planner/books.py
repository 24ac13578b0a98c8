"""What is written down while a simulation runs: a row for each request that ended, and a sample of every pool each so often."""

from array import array

from spillway.core.clock import Seconds
from spillway.core.ids import PoolName, TenantId
from spillway.core.outcome import Outcome
from spillway.core.usage import Usage
from spillway.planner.arrival import Arrival
from spillway.planner.engine import Job
from spillway.planner.scenario import Scenario
from spillway.traffic.fleet import Accounting

OUTCOMES = tuple(Outcome)
_NUMBER = {outcome: number for number, outcome in enumerate(OUTCOMES)}
UNFINISHED = len(OUTCOMES)  # still waiting or running at the end of the simulation
NOWHERE = -1  # no pool


class Books:
    """Columns, one entry for each request in the order of their ends: `at_s`, `ttft_s` and `e2e_s` (NaN where there is none), `rank`,
    `tenant` and `pool` (numbers into `tenants` and `pools`), `outcome` (into OUTCOMES), tokens, `spilled`, `usd`."""

    def __init__(self, scenario: Scenario) -> None:
        specs = scenario.pools
        self.pools: tuple[PoolName, ...] = tuple(specs)
        self.hosted = tuple(specs[name].hosted for name in self.pools)
        self.limits = tuple(_limit(scenario, name) for name in self.pools)
        self.models = {name: model for seen in scenario.gateways for name, model in seen.fleet.models.items()}
        self.model_names = tuple(self.models)
        self.regions = tuple(dict.fromkeys(seen.region for seen in scenario.gateways))
        self.sample_s = scenario.sample_s
        self._price = {name: spec.price for name, spec in specs.items()}
        self._pool_number = {name: number for number, name in enumerate(self.pools)}
        self._model_number = {name: number for number, name in enumerate(self.model_names)}
        self._region_number = {name: number for number, name in enumerate(self.regions)}
        self.tenants: dict[TenantId, int] = {}
        self.arrivals = 0
        self.at_s, self.ttft_s, self.e2e_s, self.usd = (array("d") for _ in range(4))
        self.rank, self.outcome, self.spilled, self.region = (array("b") for _ in range(4))
        self.pool, self.model, self.tenant, self.input_tokens, self.output_tokens, self.warm_tokens = (
            array("i") for _ in range(6)
        )
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
        arrived = arrival.arrived
        self.at_s.append(arrival.at_s)
        self.rank.append(arrived.priority.rank)
        self.model.append(self._model_number.get(arrived.model, NOWHERE))
        self.region.append(self._region_number[arrival.region])
        self.tenant.append(self.tenants.setdefault(arrived.tenant, len(self.tenants)))
        self.outcome.append(UNFINISHED if outcome is None else _NUMBER[outcome])
        self.input_tokens.append(arrived.input_tokens)
        self.output_tokens.append(arrival.output_tokens)
        if job is None:
            self._unserved()
            return
        self.pool.append(self._pool_number[job.pool])
        self.spilled.append(job.spilled)
        self.warm_tokens.append(job.warm)
        answered = outcome is Outcome.OK
        self.ttft_s.append(job.first_at - arrival.at_s if answered else float("nan"))
        self.e2e_s.append(now - arrival.at_s if answered else float("nan"))
        usage = Usage(arrived.input_tokens, arrival.output_tokens)
        self.usd.append(self._price[job.pool].cost_usd(usage) if answered else 0.0)

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

    def _unserved(self) -> None:
        self.pool.append(NOWHERE)
        self.spilled.append(0)
        self.warm_tokens.append(0)
        self.ttft_s.append(float("nan"))
        self.e2e_s.append(float("nan"))
        self.usd.append(0.0)


def _limit(scenario: Scenario, pool: PoolName) -> int:
    """All gateways' slots of it together; what one counts on of an ESTIMATED pool is a part of the whole that they all see."""
    specs = [seen.fleet.pools[pool] for seen in scenario.gateways if pool in seen.fleet.pools]
    if specs[0].accounting is Accounting.ESTIMATED:
        return max(spec.limit for spec in specs)
    return sum(spec.limit for spec in specs)
