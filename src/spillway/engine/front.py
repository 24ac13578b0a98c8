"""The engine over HTTP: routes, who may enter, and the way of a request from its bytes to the stepper.

A request with a JSON schema waits until the schema is compiled (`schemas`). Everything else is prepared at once, on the loop: the
size of a prompt is bounded before it is tokenized.
"""

import asyncio
import enum
from collections.abc import Callable

import msgspec

from spillway.core.clock import Clock
from spillway.core.errors import BadRequestError
from spillway.core.ids import ModelName, RequestIds
from spillway.core.rng import Rng
from spillway.engine.answers import JSON_TYPE
from spillway.engine.metrics import CONTENT_TYPE, EngineMetrics
from spillway.engine.model_folder import ModelFolder
from spillway.engine.openai import Ask, read_chat, read_completion
from spillway.engine.passage import Passage
from spillway.engine.prompt import Prompts
from spillway.engine.refusals import not_found, refuse, refuse_bad, rejection, too_long, wrong_method
from spillway.engine.schemas import SchemaQueue
from spillway.engine.settings import EngineSettings
from spillway.engine.shapes import Shape
from spillway.engine.stepper import Stepper
from spillway.net.ports import Exchange, Rejection, Route
from spillway.wire.openai import model_body, models_body


class Phase(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Works:
    """What can only be made once the model is read: the way from text to ids, to schemas, into the batch."""

    __slots__ = ("longest_prompt_bytes", "prompts", "schemas", "stepper")

    def __init__(self, stepper: Stepper, prompts: Prompts, schemas: SchemaQueue, *, longest_prompt_bytes: int) -> None:
        self.stepper = stepper
        self.prompts = prompts
        self.schemas = schemas
        self.longest_prompt_bytes = longest_prompt_bytes


class Front:
    """`net.ports.Service`. All on the event loop's thread. Answers 503 to work until `ready` and from `drained` on."""

    def __init__(self, settings: EngineSettings, folder: ModelFolder, clock: Clock, rng: Rng) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._rng = rng
        self._ids = RequestIds(rng)
        self._started_s = int(clock.wall())
        self._metrics = EngineMetrics(settings.name)
        self._works: Works | None = None
        self._draining = False
        self._open: set[Passage] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._routes = self._make_routes()
        self._unknown = Route(not_found, max_body_bytes=settings.max_body_bytes)
        self._wrong_method = Route(wrong_method, max_body_bytes=settings.max_body_bytes)

    @property
    def phase(self) -> Phase:
        if self._draining:
            return Phase.DRAINING
        return Phase.STARTING if self._works is None else Phase.READY

    def ready(self, works: Works) -> None:
        self._works = works

    async def drained(self, deadline_s: float) -> bool:
        """Takes no new work and waits for what is open. False when the time is over before that."""
        self._draining = True
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    # net.ports.Service

    def route(self, method: bytes, path: bytes) -> Route:
        by_method = self._routes.get(path)
        if by_method is None:
            return self._unknown
        return by_method.get(method, self._wrong_method)

    def rejection(self, reason: Rejection) -> tuple[int, bytes, bytes]:
        return rejection(reason)

    def _make_routes(self) -> dict[bytes, dict[bytes, Route]]:
        def route(handle: Callable[[Exchange], None]) -> Route:
            return Route(handle, max_body_bytes=self._settings.max_body_bytes)

        return {
            b"/v1/chat/completions": {b"POST": route(self._chat)},
            b"/v1/completions": {b"POST": route(self._completion)},
            b"/v1/models": {b"GET": route(self._list_models)},
            b"/v1/models/" + self._settings.name.encode(): {b"GET": route(self._show_model)},
            b"/health": {b"GET": route(self._health)},
            b"/metrics": {b"GET": route(self._show_metrics)},
        }

    def _health(self, exchange: Exchange) -> None:
        status = 200 if self.phase is Phase.READY else 503
        exchange.respond(status, JSON_TYPE, msgspec.json.encode({"status": self.phase.value}))

    def _show_metrics(self, exchange: Exchange) -> None:
        if self._works is None:
            refuse(exchange, 503, "The engine is starting.", "starting")
        else:
            text = self._metrics.text(self._works.stepper.counters, open_requests=len(self._open))
            exchange.respond(200, CONTENT_TYPE, text)

    def _list_models(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON_TYPE, models_body([ModelName(self._settings.name)], self._started_s))

    def _show_model(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON_TYPE, model_body(ModelName(self._settings.name), self._started_s))

    # a request's way in

    def _chat(self, exchange: Exchange) -> None:
        self._enter(exchange, lambda: read_chat(exchange.body, self._folder.defaults, self._seed()))

    def _completion(self, exchange: Exchange) -> None:
        vocabulary = self._folder.vocabulary
        self._enter(exchange, lambda: read_completion(exchange.body, self._folder.defaults, self._seed(), vocabulary))

    def _enter(self, exchange: Exchange, read: Callable[[], Ask]) -> None:
        works = self._works
        if self._draining or works is None:
            refuse(exchange, 503, f"The engine is {self.phase.value}.", self.phase.value)
            return
        if len(self._open) >= self._settings.max_sequences + self._settings.max_waiting:
            self._metrics.refused()
            refuse(exchange, 429, "The engine is full.", "engine_full")
            return
        try:
            ask = read()
            if ask.model != self._settings.name:
                refuse(exchange, 404, f"The model {ask.model[:100]!r} is not here.", "model_not_found", "model")
                return
            prompt = self._prompt(ask, works)
            max_tokens = self._max_tokens(ask, len(prompt))
        except BadRequestError as error:
            refuse_bad(exchange, error)
            return
        passage = Passage(exchange, works.stepper, self._metrics, self._clock, self._over)
        self._open.add(passage)
        self._idle.clear()
        sampling = msgspec.structs.replace(ask.sampling, max_tokens=max_tokens)
        passage.take(ask, prompt, sampling, self._shape(ask, len(prompt)))
        if sampling.schema is None:
            passage.submit(None)
        else:
            works.schemas.check(sampling.schema, passage.submit)

    def _prompt(self, ask: Ask, works: Works) -> list[int]:
        if ask.ids is not None:
            return ask.ids
        texts = [message.content for message in ask.messages] if ask.messages is not None else [ask.text or ""]
        size_bytes = sum([len(text.encode("utf-8", "surrogatepass")) for text in texts])
        if size_bytes > works.longest_prompt_bytes:
            raise too_long(self._folder.context_tokens, f"the prompt has {size_bytes} bytes")
        if ask.messages is not None:
            return works.prompts.chat(ask.messages, continues=ask.continues)
        (prompt,) = works.prompts.texts(texts)
        if not prompt:
            raise BadRequestError("prompt is empty.", param="prompt")
        return prompt

    def _max_tokens(self, ask: Ask, prompt_tokens: int) -> int:
        """What is asked for, else what the context has left."""
        left = self._folder.context_tokens - prompt_tokens
        wanted = ask.max_tokens or max(1, left)
        if wanted > left:
            what = f"the prompt has {prompt_tokens} tokens and {wanted} are to be written"
            raise too_long(self._folder.context_tokens, what)
        return wanted

    def _shape(self, ask: Ask, prompt_tokens: int) -> Shape:
        request = self._ids.next().removeprefix("req_")
        return Shape(
            id=f"chatcmpl-{request}" if ask.is_chat else f"cmpl-{request}",
            is_chat=ask.is_chat,
            model=self._settings.name,
            created_s=int(self._clock.wall()),
            prompt_tokens=prompt_tokens,
            include_usage=ask.include_usage,
        )

    def _seed(self) -> int:
        return int.from_bytes(self._rng.token_bytes(8), "big") >> 1

    def _over(self, passage: Passage) -> None:
        self._open.discard(passage)
        if not self._open:
            self._idle.set()
