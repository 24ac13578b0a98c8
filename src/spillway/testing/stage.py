"""A brain in virtual time, with an audit at its side: for tests that tell it a story and look at what it says."""

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.audit import Audit
from spillway.traffic.choice import BY_TIERS, Placement
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Dispatch, Effect
from spillway.traffic.events import Arrived, AttemptFailed, Configured, Ended, Event, Fault, FirstToken, Woke
from spillway.traffic.fleet import Fleet, ModelSpec, PoolSpec


def pool(name: str, limit: int, endpoints: int = 1) -> PoolSpec:
    """Endpoints are called `http://NAME-0`, `http://NAME-1`, …"""
    urls = tuple(EndpointUrl(f"http://{name}-{number}") for number in range(endpoints))
    return PoolSpec(PoolName(name), None, urls, limit)


def model(name: str, *tiers: str) -> ModelSpec:
    """Each tier as words: `model("m", "east west", "hosted")`."""
    return ModelSpec(ModelName(name), tuple(tuple(PoolName(word) for word in tier.split()) for tier in tiers))


def fleet(*parts: PoolSpec | ModelSpec) -> Fleet:
    """Without a model: one called `m` with every pool as a tier of its own."""
    pools = {part.name: part for part in parts if isinstance(part, PoolSpec)}
    models = {part.name: part for part in parts if isinstance(part, ModelSpec)}
    return Fleet(pools=pools, models=models or {ModelName("m"): model("m", *pools)})


class Stage:
    """`now` moves only by `advance`. Every event goes to the brain and to the audit; `history` holds all of them."""

    def __init__(
        self,
        world: Fleet,
        placement: Placement = BY_TIERS,
        *,
        even: frozenset[ModelName] = frozenset(),
        brain: Controller | None = None,
    ) -> None:
        """`even`: models whose turns the audit watches (`Audit`)."""
        self.brain = Controller(placement) if brain is None else brain
        self.audit = Audit(even)
        self.now: Seconds = 0.0
        self.history: list[tuple[Seconds, Event]] = []
        self.tell(Configured(world))

    def tell(self, event: Event) -> list[Effect]:
        self.history.append((self.now, event))
        effects = list(self.brain.handle(event, self.now))
        self.audit.observe(event, self.now, effects)
        return effects

    def advance(self, seconds: Seconds) -> list[Effect]:
        """Lets time pass, waking the brain whenever it asked for it. Everything it did meanwhile."""
        until, effects = self.now + seconds, list[Effect]()
        while self.audit.wake_at <= until:
            self.now = max(self.now, self.audit.wake_at)
            effects += self.tell(Woke())
        self.now = until
        self.audit.check(self.brain.snapshot(), self.now)
        return effects

    def arrive(
        self,
        request: str,
        priority: Priority = Priority.INTERACTIVE,
        tenant: str = "t",
        model: str = "m",
        body_bytes: int = 100,
        tokens: tuple[int, int] = (0, 0),
    ) -> list[Effect]:
        """`tokens`: estimates of (input, output)."""
        return self.tell(
            Arrived(RequestId(request), ModelName(model), TenantId(tenant), priority, *tokens, body_bytes=body_bytes)
        )

    def end(self, request: str, outcome: Outcome = Outcome.OK) -> list[Effect]:
        return self.tell(Ended(RequestId(request), outcome))

    def begin(self, request: str) -> list[Effect]:
        return self.tell(FirstToken(RequestId(request)))

    def fail(
        self, request: str, fault: Fault = Fault.SERVER_ERROR, retry_after_s: Seconds | None = None
    ) -> list[Effect]:
        return self.tell(AttemptFailed(RequestId(request), fault, retry_after_s))


def sent_to(effects: list[Effect]) -> list[tuple[str, str]]:
    """(request, pool) of every Dispatch."""
    return [(effect.request, effect.pool) for effect in effects if isinstance(effect, Dispatch)]
