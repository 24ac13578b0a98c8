"""Custom models over HTTP: `/v1/embeddings` or `/v1/moderations`, whichever the model's task is. `net.ports.Service`."""

from collections.abc import Callable
from math import inf
from typing import Any

import msgspec

from spillway.core.clock import Clock, Seconds
from spillway.core.errors import BadRequestError
from spillway.core.ids import ModelName, RequestIds
from spillway.core.priority import Priority
from spillway.core.rng import Rng
from spillway.engine.answers import JSON_TYPE
from spillway.engine.metrics import CONTENT_TYPE
from spillway.engine.micro.batcher import Item
from spillway.engine.micro.metrics import text_of
from spillway.engine.micro.model import CustomModel
from spillway.engine.micro.runner import FullError, Output, Runner
from spillway.engine.micro.settings import MicroSettings
from spillway.engine.micro.shapes import Ask, embeddings_body, moderation_body, read
from spillway.engine.refusals import not_found, refuse, refuse_bad, rejection, wrong_method
from spillway.net.ports import Exchange, Rejection, Route
from spillway.wire.openai import model_body, models_body

_RANKS = {priority.value.encode(): priority.rank for priority in Priority}


class MicroFront:
    """503 until `ready` and from `draining` on."""

    def __init__(self, settings: MicroSettings, model: CustomModel, clock: Clock, rng: Rng) -> None:
        self._settings = settings
        self._model = model
        self._clock = clock
        self._ids = RequestIds(rng)
        self._started_s = int(clock.wall())
        self._runner: Runner | None = None
        self.draining = False
        self.refused = 0
        self._routes: dict[bytes, dict[bytes, Route]] = {
            f"/v1/{model.task}".encode(): {b"POST": self._route(self._take)},
            b"/v1/models": {b"GET": self._route(self._list_models)},
            b"/v1/models/" + settings.name.encode(): {b"GET": self._route(self._show_model)},
            b"/health": {b"GET": self._route(self._health)},
            b"/metrics": {b"GET": self._route(self._metrics)},
        }
        self._unknown, self._wrong_method = self._route(not_found), self._route(wrong_method)

    def ready(self, runner: Runner) -> None:
        self._runner = runner

    def route(self, method: bytes, path: bytes) -> Route:
        by_method = self._routes.get(path)
        return self._unknown if by_method is None else by_method.get(method, self._wrong_method)

    def rejection(self, reason: Rejection) -> tuple[int, bytes, bytes]:
        return rejection(reason)

    def _route(self, handle: Callable[[Exchange], None]) -> Route:
        return Route(handle, max_body_bytes=self._settings.max_body_bytes)

    def _take(self, exchange: Exchange) -> None:
        settings, runner = self._settings, self._runner
        if self.draining or runner is None:
            state = "draining" if self.draining else "starting"
            refuse(exchange, 503, f"The engine is {state}.", state)
            return
        try:
            ask = read(exchange.body, max_inputs=settings.max_inputs, max_text_chars=settings.max_text_chars)
        except BadRequestError as error:
            refuse_bad(exchange, error)
            return
        if ask.model and ask.model != settings.name:
            refuse(exchange, 404, f"The model {ask.model[:100]!r} is not here.", "model_not_found", "model")
            return
        rank, deadline = self._wishes(exchange)
        items = [Item(text, rank, deadline=deadline) for text in ask.texts]
        waiting = _Waiting(exchange, items, runner, lambda outputs: self._answer(exchange, ask, outputs))
        try:
            runner.submit([(item, waiting.listener(index)) for index, item in enumerate(items)])
        except FullError:
            self.refused += 1
            refuse(exchange, 429, "The engine is full.", "engine_full")
            return
        exchange.listener = waiting

    def _wishes(self, exchange: Exchange) -> tuple[int, Seconds]:
        """Rank and deadline, by the headers. What cannot be read counts as not said."""
        rank, deadline = Priority.INTERACTIVE.rank, inf
        for name, value in exchange.headers:
            if name == b"x-priority":
                rank = _RANKS.get(value, rank)
            elif name == b"x-deadline-ms" and value.isdigit() and len(value) < 12:
                deadline = self._clock.monotonic() + int(value) / 1000.0
        return rank, deadline

    def _answer(self, exchange: Exchange, ask: Ask, outputs: list[Output]) -> None:
        for index, output in enumerate(outputs):
            if output.error:
                param = "input" if len(outputs) == 1 else f"input[{index}]"
                status = {"item_failed": 422, "deadline_exceeded": 503}.get(output.code, 500)
                refuse(exchange, status, output.error, output.code, param)
                return
        name, tokens = self._settings.name, sum(output.tokens for output in outputs)
        values: list[Any] = [output.value for output in outputs]
        try:
            if self._model.task == "embeddings":
                body = embeddings_body(name, values, tokens, as_base64=ask.as_base64)
            else:
                request = self._ids.next().removeprefix("req_")
                body = moderation_body(f"modr-{request}", name, values, getattr(self._model, "thresholds", {}), tokens)
        except Exception:  # noqa: BLE001  the user's model gave something else than its task says
            refuse(exchange, 500, f"The model's outputs are not those of {self._model.task}.", "wrong_output")
            return
        exchange.respond(200, JSON_TYPE, body)

    def _list_models(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON_TYPE, models_body([ModelName(self._settings.name)], self._started_s))

    def _show_model(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON_TYPE, model_body(ModelName(self._settings.name), self._started_s))

    def _health(self, exchange: Exchange) -> None:
        state = "draining" if self.draining else "starting" if self._runner is None else "ready"
        exchange.respond(200 if state == "ready" else 503, JSON_TYPE, msgspec.json.encode({"status": state}))

    def _metrics(self, exchange: Exchange) -> None:
        if self._runner is None:
            refuse(exchange, 503, "The engine is starting.", "starting")
        else:
            exchange.respond(200, CONTENT_TYPE, text_of(self._settings.name, self._runner, self.refused))


class _Waiting:
    """One request whose items are computed. Listens to its exchange: a client that leaves takes back what is not computed yet."""

    def __init__(
        self, exchange: Exchange, items: list[Item], runner: Runner, done: Callable[[list[Output]], None]
    ) -> None:
        self._exchange = exchange
        self._items = items
        self._runner = runner
        self._done = done
        self._outputs: list[Output | None] = [None] * len(items)
        self._missing = len(items)

    def listener(self, index: int) -> Callable[[Output], None]:
        def ready(output: Output) -> None:
            self._outputs[index] = output
            self._missing -= 1
            if not self._missing:
                self._exchange.listener = None
                self._done([one for one in self._outputs if one is not None])

        return ready

    def client_left(self) -> None:
        for item in self._items:
            self._runner.cancel(item)

    def client_slow(self) -> None: ...
    def client_ready(self) -> None: ...
