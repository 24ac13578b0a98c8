"""The driver: tells the brain what happened and does what it says. The only caller of `Controller.handle` in a gateway.

Every call is in `_calls` from its arrival until it is settled; a call leaves it exactly once, in `_over`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from spillway.core.clock import Clock, Seconds, Timer, Timers
from spillway.core.ids import ModelName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.usage import Usage
from spillway.gateway.call import Call, Progress
from spillway.gateway.ports import Backends, Observer
from spillway.gateway.quotas import Quotas
from spillway.gateway.relay import StreamRelay, WholeRelay
from spillway.gateway.settings import GatewaySettings, ModelTimeouts
from spillway.gateway.settle import NOTHING_USED, Settlement
from spillway.quota.charges import Refusal
from spillway.traffic.controller import Controller
from spillway.traffic.effects import BreakerChanged, Dispatch, Effect, Queued, Refuse, WakeAt, Yielded
from spillway.traffic.events import Arrived, AttemptFailed, Ended, Event, Fault, FirstToken, QuotaSeen, Woke
from spillway.wire import envelope
from spillway.wire.quota import Quota

log = logging.getLogger(__name__)

Record = Callable[[Seconds, Event, Sequence[Effect]], None]
"""What the journal gives the driver."""


class Driver:
    def __init__(
        self,
        controller: Controller,
        backends: Backends,
        settlement: Settlement,
        quotas: Quotas,
        observer: Observer,
        clock: Clock,
        timers: Timers,
        settings: GatewaySettings,
        record: Record | None = None,
        members: int = 1,
    ) -> None:
        """`members`: how many of the likes of us share the providers' limits."""
        self._controller = controller
        self._backends = backends
        self._settlement = settlement
        self._quotas = quotas
        self._observer = observer
        self._clock = clock
        self._timers = timers
        self._settings = settings
        self._settings_of: dict[ModelName, GatewaySettings] = {}
        self._record = record
        self._members = members
        self._calls: dict[RequestId, Call] = {}
        self._wake: Timer | None = None
        self._wake_at: Seconds = 0.0

    @property
    def in_flight(self) -> int:
        """Calls that are not settled: waiting or running."""
        return len(self._calls)

    def tell(self, event: Event) -> None:
        now = self._clock.monotonic()
        effects = self._controller.handle(event, now)
        if self._record is not None:
            self._record(now, event, effects)
        for effect in effects:
            try:
                self._act(effect, now)
            except Exception:  # one request's mistake must not take the effects for others along
                log.exception("an effect could not be carried out", extra={"effect": type(effect).__name__})
                self._settle_mistake(effect)

    def set_timeouts(self, timeouts: Mapping[ModelName, ModelTimeouts]) -> None:
        """Those of the models that have some of their own. They hold for what runs, too."""
        self._settings_of = {model: self._settings.of(own) for model, own in timeouts.items()}

    # A call's life

    def admit(self, call: Call, arrived: Arrived) -> None:
        self._calls[call.request] = call
        if call.reservation is not None:
            found = call.reservation.take(partial(self._resume, call, arrived))
            if found is False:
                return  # it waits for the ledger: `_resume`
            if isinstance(found, Refusal):
                self._refuse_limited(call, found)
                return
        self._arrive(call, arrived)

    def hold(self, call: Call) -> None:
        """It is not admitted yet: its input is being checked, and its client may leave meanwhile."""
        self._calls[call.request] = call

    def stop(self, call: Call, outcome: Outcome, message: str) -> None:
        """A safety check ends it."""
        if call.ended:
            return
        served, began = call.served(self._clock.monotonic()), call.content_at is not None
        self._drop(call, call.relay, outcome)
        if began:
            call.client.cut(outcome, message)
        else:
            call.client.refuse(outcome, message, served)

    def _resume(self, call: Call, arrived: Arrived, refusal: Refusal | None) -> None:
        """The ledger has said of one that waited."""
        try:
            if refusal is not None:
                self._refuse_limited(call, refusal)
            else:
                self._arrive(call, arrived)
        except Exception:  # others wait for the same answer
            log.exception("a request that waited for its limits could not be taken")
            if not call.ended:
                self._end(call, Outcome.INTERNAL)

    def _arrive(self, call: Call, arrived: Arrived) -> None:
        call.admitted = True
        self.tell(arrived)

    def _refuse_limited(self, call: Call, refusal: Refusal) -> None:
        told = self._quotas.told(refusal)
        self._over(call, told.outcome, NOTHING_USED)
        served = call.served(self._clock.monotonic())
        call.client.refuse(told.outcome, told.message, served, told.retry_after_s, code=told.code)

    def began(self, call: Call) -> None:
        self.tell(FirstToken(call.request))

    def failed(self, call: Call, fault: Fault, retry_after_s: Seconds | None, detail: str) -> None:
        call.ticket = call.relay = None
        call.upstream_s += self._clock.monotonic() - call.dispatched_at
        assert call.pool is not None  # only a dispatched call has attempts
        assert call.endpoint is not None
        self._observer.attempt_failed(call.request, call.pool, call.endpoint, fault, detail)
        self.tell(AttemptFailed(call.request, fault, retry_after_s))

    def ended(self, call: Call, outcome: Outcome, usage: Usage) -> None:
        if not usage.estimated:
            call.ratio.observe(call.envelope.input_bytes, usage.prompt_tokens)
        self._over(call, outcome, call.billable(usage) if call.item else usage)
        if call.admitted:
            self.tell(Ended(call.request, outcome, usage.prompt_tokens, usage.completion_tokens))

    def quota_seen(self, call: Call, quota: Quota) -> None:
        """A provider counts what all workers send; each takes its part of what is left, rounded up."""
        assert call.pool is not None  # it was dispatched
        self.tell(QuotaSeen(call.pool, self._part_of(quota.requests), self._part_of(quota.tokens), quota.reset_s))

    def _part_of(self, left: int | None) -> int | None:
        return None if left is None else -(-left // self._members)

    def client_left(self, call: Call) -> None:
        if not call.ended:
            self._drop(call, call.relay, Outcome.CLIENT_LEFT)

    def give_up(self) -> None:
        """The process ends before these calls do: each client is told, each upstream cancelled, each record written."""
        for call in sorted(
            self._calls.values(), key=_runs
        ):  # those that wait first: a slot that frees up is for nobody
            if not call.ended:
                self._end(call, Outcome.UNAVAILABLE if call.content_at is None else Outcome.CUT)

    def sweep(self) -> None:
        """Ends attempts that are too slow. Called every `settings.sweep_s`."""
        now = self._clock.monotonic()
        for call in list(self._calls.values()):
            if call.relay is not None:
                self._check_time(call, call.relay, now)

    def _check_time(self, call: Call, relay: Progress, now: Seconds) -> None:
        settings = self._settings_of.get(call.model, self._settings)
        if relay.reads != relay.seen_reads:
            relay.seen_reads, relay.seen_at = relay.reads, now
        running_s, silent_s = now - call.dispatched_at, now - relay.seen_at
        if call.paused:  # silent because we do not read
            relay.seen_at = now
            if running_s > settings.total_s:  # a client that takes a byte now and then must not keep its slot for ever
                self._end(call, Outcome.CLIENT_TIMEOUT)
            return
        if running_s > settings.total_s:
            late = "the attempt took too long"
        elif call.content_at is None and not call.envelope.stream and running_s > settings.whole_s:
            self._end(call, Outcome.UPSTREAM_TIMEOUT)  # it worked on it all the time: another one would, too
            return
        elif call.content_at is None and call.envelope.stream and running_s > settings.first_content_s:
            late = "no content in time"
        elif relay.reads and silent_s > settings.between_chunks_s:
            late = "silence in the middle of the answer"
        else:
            return
        if call.ticket is not None:
            call.ticket.cancel()
        relay.timed_out(late)

    def _end(self, call: Call, outcome: Outcome) -> None:
        """Ends a call from our side: with an error in the answer's place, or in band where the answer has begun."""
        served = call.served(self._clock.monotonic())
        self._drop(call, call.relay, outcome)
        if call.content_at is None:
            call.client.refuse(outcome, "", served)
        else:
            call.client.cut(outcome, "")

    def _settle_mistake(self, effect: Effect) -> None:
        if isinstance(effect, (Dispatch, Queued, Refuse, Yielded)):
            call = self._calls.get(effect.request)
            if call is not None:
                self._end(call, Outcome.INTERNAL)

    def _drop(self, call: Call, relay: Progress | None, outcome: Outcome) -> None:
        """Ends a call from our side or the client's: the upstream is cancelled at once; what it generated is billed."""
        now = self._clock.monotonic()
        if call.ticket is not None:
            call.ticket.cancel()
        if call.queued_at is not None:
            call.waited_s += now - call.queued_at
        elif relay is not None and call.content_at is None:
            call.upstream_s += now - call.dispatched_at
        self.ended(call, outcome, NOTHING_USED if relay is None else relay.spent())

    def _over(self, call: Call, outcome: Outcome, usage: Usage) -> None:
        del self._calls[call.request]
        call.ended = True
        call.ticket = call.relay = None
        if call.reservation is not None:
            billed = (
                usage if outcome is Outcome.OK or not call.item else NOTHING_USED
            )  # an item is billed when it is finished
            cost_usd = call.price.cost_usd(billed)
            call.reservation.settle(dispatched=call.attempt > 0, usage=billed, cost_usd=cost_usd)
        self._settlement.settle(call, outcome, usage)

    # What the brain wants

    def _act(self, effect: Effect, now: Seconds) -> None:
        match effect:
            case Dispatch():
                self._dispatch(effect, now)
            case Refuse():
                self._refuse(effect, now)
            case Yielded():
                self._yield(effect, now)
            case Queued():
                self._calls[effect.request].queued_at = now
            case WakeAt():
                self._wake_no_later_than(effect.at, now)
            case BreakerChanged():
                self._observer.breaker_changed(effect.pool, effect.endpoint, effect.state)

    def _dispatch(self, effect: Dispatch, now: Seconds) -> None:
        call = self._calls[effect.request]
        if call.queued_at is not None:
            call.waited_s += now - call.queued_at
            call.queued_at = None
        binding = self._backends.binding(effect.pool)
        call.pool, call.endpoint, call.attempt = effect.pool, effect.endpoint, effect.attempt
        call.version, call.price, call.hosted = binding.version, binding.price, binding.hosted
        call.spill = effect.spill
        if effect.spill is not None and effect.spilled_from is not None:
            self._observer.spilled(call.model, effect.spilled_from, effect.pool, effect.spill)
        body = envelope.rewrite(
            call.ask.body, call.envelope, model=binding.upstream_model, ask_for_usage=call.envelope.stream
        )
        call.dispatched_at = now
        relay = (StreamRelay if call.envelope.stream else WholeRelay)(call, self, self._clock, self._settings)
        call.relay = relay
        call.ticket = self._backends.send(
            effect.pool, effect.endpoint, call.ask.path, call.ask.extra_headers, body, relay
        )

    def _yield(self, effect: Yielded, now: Seconds) -> None:
        """The attempt is given up; `Queued` follows."""
        call = self._calls[effect.request]
        if call.ticket is not None:
            call.ticket.cancel()
        call.ticket = call.relay = None
        call.upstream_s += now - call.dispatched_at

    def _refuse(self, effect: Refuse, now: Seconds) -> None:
        call = self._calls[effect.request]
        if call.queued_at is not None:
            call.waited_s += now - call.queued_at
            call.queued_at = None
        self._over(call, effect.outcome, NOTHING_USED)
        call.client.refuse(effect.outcome, "", call.served(now), effect.retry_after_s)

    def _wake_no_later_than(self, at: Seconds, now: Seconds) -> None:
        if self._wake is not None:
            if self._wake_at <= at:
                return
            self._wake.cancel()
        self._wake_at = at
        self._wake = self._timers.call_at(self._timers.time() + max(0.0, at - now), self._woke)

    def _woke(self) -> None:
        self._wake = None
        self.tell(Woke())


def _runs(call: Call) -> bool:
    return call.relay is not None
