"""The life of a request, top to bottom: identify, resolve, admit. The driver dispatches, the relay relays, settlement settles."""

import msgspec

from spillway.core.clock import Clock, Seconds
from spillway.core.errors import BadRequestError
from spillway.core.ids import ModelName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.gateway.call import Call
from spillway.gateway.driver import Driver
from spillway.gateway.ports import ClientPort, Keyring, Observer, Principal, Served
from spillway.gateway.settle import Settlement
from spillway.traffic.events import Arrived
from spillway.wire import envelope
from spillway.wire.envelope import Envelope, Kind
from spillway.wire.tokens import TokenRatio

_PRIORITY_OF_TIER = {
    "flex": Priority.BATCH,
    "batch": Priority.BATCH,
    "default": Priority.INTERACTIVE,
    "auto": Priority.INTERACTIVE,
    "priority": Priority.REALTIME,
}
NO_MODEL = ModelName("")
"""In the record of a request whose model is not one of ours: the name is the client's text and goes nowhere."""


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What a client asks for, before anything of it is understood."""

    request: RequestId
    kind: Kind
    path: bytes
    secret: bytes  # the key as it came; b"" where there is none
    body: bytes
    extra_headers: bytes  # for the upstream
    session: str = ""


class Pipeline:
    """`models` maps each public name, aliases included, to the model it stands for."""

    def __init__(
        self,
        keyring: Keyring,
        models: dict[str, ModelName],
        driver: Driver,
        settlement: Settlement,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self._keyring = keyring
        self.models = models
        self._driver = driver
        self._settlement = settlement
        self._observer = observer
        self._clock = clock
        self._ratios: dict[ModelName, TokenRatio] = {}

    def take(self, ask: Ask, client: ClientPort) -> Call | None:
        """Returns the call if it is still alive: waiting or running. Otherwise the client has its answer."""
        arrived_at = self._clock.monotonic()

        # identify
        principal = self._keyring.find(ask.secret)
        if principal is None:
            self._observer.refused(Outcome.UNAUTHENTICATED)
            client.refuse(Outcome.UNAUTHENTICATED, "", Served(ask.request))
            return None
        if not self._settlement.can_account:
            self._observer.refused(Outcome.UNAVAILABLE)
            client.refuse(Outcome.UNAVAILABLE, "", Served(ask.request), retry_after_s=1.0)
            return None

        # resolve
        try:
            asked = envelope.read(ask.body, ask.kind)
        except BadRequestError as error:
            client.refuse(Outcome.INVALID_REQUEST, str(error), Served(ask.request), param=error.param, code=error.code)
            self._refused(ask, principal, NO_MODEL, Outcome.INVALID_REQUEST, arrived_at)
            return None
        model = self.models.get(asked.model)
        if model is None:
            message = f"The model '{asked.model}' does not exist."
            client.refuse(Outcome.MODEL_NOT_FOUND, message, Served(ask.request), param="model")
            self._refused(ask, principal, NO_MODEL, Outcome.MODEL_NOT_FOUND, arrived_at)
            return None
        if principal.models is not None and model not in principal.models:
            message = f"Your key may not use the model '{asked.model}'."
            client.refuse(Outcome.FORBIDDEN, message, Served(ask.request), param="model")
            self._refused(ask, principal, model, Outcome.FORBIDDEN, arrived_at)
            return None

        # admit
        call = self._call(ask, client, principal, model, asked, arrived_at)
        self._driver.admit(
            call,
            Arrived(
                request=call.request,
                model=model,
                tenant=principal.tenant,
                priority=call.priority,
                input_tokens=call.input_tokens,
                output_tokens=asked.output_tokens_estimate,
                body_bytes=len(ask.body),
                session=asked.prompt_cache_key or ask.session or asked.user or "",
            ),
        )
        return None if call.ended else call

    def _call(
        self, ask: Ask, client: ClientPort, principal: Principal, model: ModelName, asked: Envelope, arrived_at: Seconds
    ) -> Call:
        tier = asked.service_tier
        wanted = Priority.INTERACTIVE if tier is None else _PRIORITY_OF_TIER.get(tier, Priority.INTERACTIVE)
        call = Call(
            request=ask.request,
            principal=principal,
            model=model,
            priority=wanted.capped_by(principal.highest_priority),
            path=ask.path,
            envelope=asked,
            body=ask.body,
            extra_headers=ask.extra_headers,
            client=client,
            events=self._driver,
            arrived_at=arrived_at,
        )
        call.ratio = self._ratio_of(model)
        call.input_tokens = call.ratio.tokens(asked.input_bytes)
        return call

    def _ratio_of(self, model: ModelName) -> TokenRatio:
        ratio = self._ratios.get(model)
        if ratio is None:
            ratio = self._ratios[model] = TokenRatio()
        return ratio

    def _refused(self, ask: Ask, principal: Principal, model: ModelName, outcome: Outcome, arrived_at: Seconds) -> None:
        self._settlement.settle_refusal(ask.request, principal, model, Priority.INTERACTIVE, outcome, arrived_at)
