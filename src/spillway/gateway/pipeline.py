"""The life of a request, top to bottom: identify, resolve, admit. The driver dispatches, the relay relays, settlement settles."""

import logging
from functools import partial
from hashlib import blake2b

from spillway.core.clock import Clock, Seconds, Timers
from spillway.core.errors import BadRequestError
from spillway.core.ids import ModelName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.gateway.call import Ask, Call
from spillway.gateway.driver import Driver
from spillway.gateway.held_back import HeldBack
from spillway.gateway.networks import Networks
from spillway.gateway.ports import ClientPort, Keyring, Observer, Principal, Served, Unknown
from spillway.gateway.quotas import Quotas
from spillway.gateway.safety import Safety, Watching
from spillway.gateway.settle import Settlement
from spillway.traffic.events import Arrived
from spillway.wire import envelope, prefix
from spillway.wire.tokens import TokenRatio

log = logging.getLogger(__name__)

_PRIORITY_OF_WORD = {
    "realtime": Priority.REALTIME,
    "interactive": Priority.INTERACTIVE,
    "flex": Priority.BATCH,
    "batch": Priority.BATCH,
    "default": Priority.INTERACTIVE,
    "auto": Priority.INTERACTIVE,
    "priority": Priority.REALTIME,
}
NO_MODEL = ModelName("")
"""In the record of a request whose model is not one of ours: the name is the client's text and goes nowhere."""
CANNOT_TELL = "Your key cannot be checked at the moment."


class Unidentified:
    """A request whose key is being looked up. Listens to its exchange (`net.ports.ExchangeListener`), later in the name of its call."""

    __slots__ = ("_arrived_at", "_ask", "_call", "_client", "_left", "_pipeline")

    def __init__(self, pipeline: "Pipeline", ask: Ask, client: ClientPort, arrived_at: Seconds) -> None:
        self._pipeline = pipeline
        self._ask = ask
        self._client = client
        self._arrived_at = arrived_at
        self._call: Call | None = None
        self._left = False

    def found(self, found: Principal | Unknown) -> None:
        if self._left:
            return
        try:
            if isinstance(found, Principal):
                self._call = self._pipeline.identified(found, self._ask, self._client, self._arrived_at)
            else:
                self._pipeline.refuse_unknown(found, self._ask, self._client)
        except Exception:  # as a server's connection does with a route that raises: others wait for their keys too
            log.exception("a request could not be taken")
            self._client.refuse(Outcome.INTERNAL, "", Served(self._ask.request))

    def client_left(self) -> None:
        self._left = True
        if self._call is not None:
            self._call.client_left()

    def client_slow(self) -> None:
        if self._call is not None:
            self._call.client_slow()

    def client_ready(self) -> None:
        if self._call is not None:
            self._call.client_ready()


class Pipeline:
    """`models` maps each public name, aliases included, to the model it stands for; `models_with_choice`: where the beginnings of
    prompts matter. `seed` (0 … 2³² − 1) is that of their hashes: not to be known outside, the same in all workers."""

    def __init__(
        self,
        keyring: Keyring,
        models: dict[str, ModelName],
        driver: Driver,
        settlement: Settlement,
        quotas: Quotas,
        observer: Observer,
        clock: Clock,
        timers: Timers,
        watching: Watching,
        seed: int = 0,
    ) -> None:
        self._keyring = keyring
        self.models = models
        self.networks = Networks()
        self.models_with_choice: frozenset[ModelName] = frozenset()
        self._seed = seed
        self._driver = driver
        self._settlement = settlement
        self._quotas = quotas
        self._observer = observer
        self._clock = clock
        self._ratios: dict[ModelName, TokenRatio] = {}
        self.safety = Safety(self.identified, watching, clock, timers)

    def take(self, ask: Ask, client: ClientPort) -> "Call | Unidentified | None":
        """Returns what listens to the client while the request is alive: waiting or running. Otherwise the client has its answer."""
        arrived_at = self._clock.monotonic()

        # identify
        found = self._keyring.find(ask.secret)
        if isinstance(found, Principal):
            return self.identified(found, ask, client, arrived_at)
        if found is not Unknown.UNSEEN:
            self.refuse_unknown(found, ask, client)
            return None
        caller = Unidentified(self, ask, client, arrived_at)
        self._keyring.seek(ask.secret, caller.found)
        return caller

    def identified(self, principal: Principal, ask: Ask, client: ClientPort, arrived_at: Seconds) -> Call | None:
        """The way on, once it is known who asks."""
        if not self._settlement.can_account:
            self._observer.refused(Outcome.UNAVAILABLE)
            client.refuse(Outcome.UNAVAILABLE, "", self._served(ask, principal), retry_after_s=1.0)
            return None
        if principal.suspended or (principal.networks and not ask.item):  # whoever made the batch was asked then
            barred = self.networks.bars(principal, ask.peer, ask.forwarded)
            if barred is not None:
                client.refuse(Outcome.FORBIDDEN, barred.message, self._served(ask, principal), code=barred.code)
                self._refused(ask, principal, NO_MODEL, Outcome.FORBIDDEN, arrived_at)
                return None

        # resolve
        try:
            asked = envelope.read(ask.body, ask.kind)
        except BadRequestError as error:
            served = self._served(ask, principal)
            client.refuse(Outcome.INVALID_REQUEST, str(error), served, param=error.param, code=error.code)
            self._refused(ask, principal, NO_MODEL, Outcome.INVALID_REQUEST, arrived_at)
            return None
        model = self.models.get(asked.model)
        if model is None:
            message = f"The model '{asked.model}' does not exist."
            client.refuse(Outcome.MODEL_NOT_FOUND, message, self._served(ask, principal), param="model")
            self._refused(ask, principal, NO_MODEL, Outcome.MODEL_NOT_FOUND, arrived_at)
            return None
        if principal.models is not None and model not in principal.models:
            message = f"Your key may not use the model '{asked.model}'."
            client.refuse(Outcome.FORBIDDEN, message, self._served(ask, principal), param="model")
            self._refused(ask, principal, model, Outcome.FORBIDDEN, arrived_at)
            return None

        # admit
        tier = asked.service_tier
        wanted = _PRIORITY_OF_WORD.get(ask.priority or tier or "default", Priority.INTERACTIVE)
        priority = wanted.capped_by(principal.highest_priority)
        ratio = self._ratios.get(model) or self._first_ratio(model)
        call = Call(ask, principal, model, priority, asked, ratio, client, self._driver, arrived_at)
        user = asked.safety_identifier or asked.user
        session = asked.prompt_cache_key or ask.session or user
        tokens, output = call.input_tokens, asked.output_tokens_estimate
        who = _veiled(user)
        if principal.owner is not None:
            call.reservation = self._quotas.reservation(ask.request, principal.owner, model, who, asked, tokens)
        beginning, block_tokens = (), 1
        if model in self.models_with_choice:
            beginning, block_tokens = (
                prefix.chain(memoryview(asked.prompt), self._seed),
                ratio.tokens(prefix.BLOCK_BYTES),
            )
        arrived = Arrived(  # by position: half the cost of by name, once a request
            ask.request, model, principal.tenant, priority, tokens, output, len(ask.body), _veiled(session),
            principal.organization, who, principal.policy, ask.deadline_s, beginning, ask.hops, block_tokens,
        )  # fmt: skip
        guard = self.safety.guard_of(call) if self.safety.rules else None
        if guard is None:
            self._driver.admit(call, arrived)
        else:
            stop = partial(self._driver.stop, call)
            call.client = call.guard = HeldBack(call, client, guard, stop)
            self._driver.hold(call)
            guard.check_input(partial(self._driver.admit, call, arrived), stop)
        return None if call.ended else call

    def _first_ratio(self, model: ModelName) -> TokenRatio:
        ratio = self._ratios[model] = TokenRatio()
        return ratio

    def refuse_unknown(self, unknown: Unknown, ask: Ask, client: ClientPort) -> None:
        """While nobody can say whose key it is, it may be a good one: that is 503, never 401."""
        if unknown is Unknown.REFUSED:
            self._observer.refused(Outcome.UNAUTHENTICATED)
            client.refuse(Outcome.UNAUTHENTICATED, "", Served(ask.request))
        else:
            self._observer.refused(Outcome.UNAVAILABLE)
            client.refuse(Outcome.UNAVAILABLE, CANNOT_TELL, Served(ask.request), retry_after_s=1.0)

    def _served(self, ask: Ask, principal: Principal) -> Served:
        """Of one that is refused before its model is known."""
        return Served(ask.request, limits=b"" if principal.owner is None else self._quotas.of(principal.owner))

    def _refused(self, ask: Ask, principal: Principal, model: ModelName, outcome: Outcome, arrived_at: Seconds) -> None:
        self._settlement.settle_refusal(ask.request, principal, model, Priority.INTERACTIVE, outcome, arrived_at)


def _veiled(session: str | None) -> str:
    """What keeps a conversation together, as 16 hex digits: the brain must tell sessions apart, its journal must not tell what users wrote."""
    return blake2b(session.encode(errors="replace"), digest_size=8).hexdigest() if session else ""
