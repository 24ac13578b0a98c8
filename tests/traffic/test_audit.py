"""The audit can fail: brains that break one promise each, in storms that the sound brain comes through, and it objects to all."""

import re
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, OrganizationId, PolicyName, PoolName, TenantId
from spillway.core.priority import Priority
from spillway.testing.storm import Storm
from spillway.traffic.controller import Controller
from spillway.traffic.effects import BreakerChanged, BreakerState, Dispatch, Effect, Refuse, WakeAt
from spillway.traffic.events import Arrived, AttemptFailed, Configured, DrainSet, Event, LimitSet, QuotaSeen
from spillway.traffic.fleet import PoolSpec, PrioritySpec, RetryRules, WaitingRoom, default_priorities

EVENTS = 40_000


class Altered(Controller):
    """Says something else than it decided, from the first time on that `alter` gives another effect than it was given."""

    def __init__(self, alter: Callable[[Event, Effect], Effect | None]) -> None:
        super().__init__()
        self.alter = alter

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        altered = (self.alter(event, effect) for effect in super().handle(event, now))
        return [effect for effect in altered if effect is not None]


class Deaf(Controller):
    """Does not hear some events, or hears others in their place."""

    def __init__(self, hear: Callable[[Event], Event | None]) -> None:
        super().__init__()
        self.hear = hear

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        heard = self.hear(event)
        return [] if heard is None else list(super().handle(heard, now))


def objection(brain: Callable[[], Controller]) -> str:
    """Of the first of a few storms in which there is one."""
    for seed in range(3, 7):
        try:
            Storm(seed, brain()).run(EVENTS)
        except AssertionError as raised:
            return str(raised)
    return "none"


def configured_with(change: Callable[[PoolSpec], PoolSpec], **rest: object) -> Callable[[Event], Event]:
    def hear(event: Event) -> Event:
        if not isinstance(event, Configured):
            return event
        pools = {name: change(spec) for name, spec in event.fleet.pools.items()}
        return Configured(replace(event.fleet, pools=pools, **rest))

    return hear


def same(spec: PoolSpec) -> PoolSpec:
    return spec


def arrived_with(**change: object) -> Callable[[Event], Event]:
    return lambda event: replace(event, **change) if isinstance(event, Arrived) else event


def roomy(spec: PoolSpec) -> PoolSpec:
    capacity = spec.capacity
    return spec if capacity is None else replace(spec, capacity=replace(capacity, kv_tokens=1_000_000))


def patient() -> dict[Priority, PrioritySpec]:
    return {priority: replace(spec, max_wait_s=300.0) for priority, spec in default_priorities().items()}


def sooner(event: Event) -> Event:
    if isinstance(event, Arrived) and event.deadline_s is not None:
        return replace(event, deadline_s=event.deadline_s / 8)
    return event


def impatient(event: Event) -> Event:
    return replace(event, retry_after_s=0.0) if isinstance(event, AttemptFailed) else event


def unless(kind: type[Event]) -> Callable[[Event], Event | None]:
    return lambda event: None if isinstance(event, kind) else event


def test_the_sound_brain_comes_through_the_same_storm() -> None:
    storm = Storm(3, Altered(lambda _, effect: effect))
    storm.run(EVENTS)
    assert storm.stage.audit.sent > 5000


@pytest.mark.parametrize(
    ("promise", "hear"),
    [
        ("sent to a full pool", unless(LimitSet)),
        ("sent above its ceiling", configured_with(lambda spec: replace(spec, limit=2 * spec.limit))),
        ("sent past the KV bound", configured_with(roomy)),
        ("sent past a provider's quota", unless(QuotaSeen)),
        ("sent to a drained endpoint", unless(DrainSet)),
        ("sent where its policy does not lead", arrived_with(policy=PolicyName(""))),
        ("sent where its policy does not lead", arrived_with(hops=0)),
        (
            "sent to an endpoint that asked to be left alone",
            impatient,
        ),
        ("sent above its ceiling", arrived_with(priority=Priority.REALTIME)),
        ("more urgent", sooner),
        ("unfair", arrived_with(tenant=TenantId("all"), organization=OrganizationId(""), user="")),
        ("more wait than the room holds", configured_with(same, waiting_room=WaitingRoom(1000, 40_000))),
        ("more bytes wait than the room holds", configured_with(same, waiting_room=WaitingRoom(60, 1 << 30))),
        ("waits too long", configured_with(same, priorities=patient())),
        ("waits beside a free slot", configured_with(lambda spec: replace(spec, limit=spec.limit // 2))),
        ("more attempts than the rules allow", configured_with(same, retries=RetryRules(attempts=9))),
    ],
)
def test_a_brain_that_hears_wrongly_is_found_out(promise: str, hear: Callable[[Event], Event | None]) -> None:
    assert re.search(promise, objection(lambda: Deaf(hear)))


class Sent:
    """Remembers what was sent, and which endpoints are OPEN."""

    def __init__(self) -> None:
        self.open: dict[PoolName, EndpointUrl] = {}
        self.last: Dispatch | None = None

    def to_an_open_endpoint(self, _: Event, effect: Effect) -> Effect:
        if isinstance(effect, BreakerChanged):
            if effect.state is BreakerState.OPEN:
                self.open[effect.pool] = effect.endpoint
            elif self.open.get(effect.pool) == effect.endpoint:
                del self.open[effect.pool]
        if isinstance(effect, Dispatch) and effect.pool in self.open:
            return replace(effect, endpoint=self.open[effect.pool])
        return effect

    def twice(self, _: Event, effect: Effect) -> Effect:
        last, self.last = self.last, effect if isinstance(effect, Dispatch) else self.last
        return last if isinstance(effect, WakeAt) and last is not None else effect


def silent(_: Event, effect: Effect) -> Effect | None:
    return None if isinstance(effect, Refuse) else effect


@pytest.mark.parametrize(
    ("promise", "alter"),
    [
        ("sent to an OPEN endpoint", Sent().to_an_open_endpoint),
        ("sent while it runs|sent though it has ended", Sent().twice),
        ("unanswered", silent),
    ],
)
def test_a_brain_that_says_other_than_it_decides_is_found_out(
    promise: str, alter: Callable[[Event, Effect], Effect | None]
) -> None:
    assert re.search(promise, objection(lambda: Altered(alter)))


class Uncounted(Controller):
    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        effects = list(super().handle(event, now))
        self.counters.owed = 0
        return effects


def test_minimum_shares_that_are_not_counted_are_found_out() -> None:
    assert "not counted" in objection(Uncounted)
