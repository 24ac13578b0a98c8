"""An endpoint in the simulated world: its engine, the network before it, and who has what in flight there."""

from collections.abc import Callable

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, PoolName
from spillway.planner.engine import NEVER, Engine, Job
from spillway.traffic.events import Scraped


class Site:
    """`sent`: requests in flight by gateway, on the way included. `dark`: regions whose network to it is cut; what it would say to
    them is kept as `mail` until it is whole again. `planned`: when its one valid entry in the heap falls due."""

    __slots__ = ("dark", "down", "engine", "factor", "mail", "planned", "pool", "sent", "stalled", "url")

    def __init__(self, pool: PoolName, url: EndpointUrl, engine: Engine, gateways: int) -> None:
        self.pool = pool
        self.url = url
        self.engine = engine
        self.sent = [0] * gateways
        self.down = False
        self.stalled = False
        self.factor = 1.0
        self.dark: frozenset[str] = frozenset()
        self.mail: list[tuple[Callable[[Site, Job], None], Job]] = []
        self.planned: Seconds = NEVER

    def answers(self, region: str) -> bool:
        """Whether it answers a probe."""
        return not self.down and not self.stalled and region not in self.dark

    def gauge(self, gateway: int, age_s: Seconds) -> Scraped:
        """What its metrics say now, as a gateway will hear it `age_s` later."""
        foreign = max(0, self.engine.holds - self.sent[gateway])
        return Scraped(self.url, float(foreign), self.engine.kv_usage(), age_s)

    def pace(self, now: Seconds) -> None:
        """Tells the engine how slow it is now."""
        self.engine.slow(NEVER if self.stalled else self.factor, now)
