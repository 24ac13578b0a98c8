"""What the upstream answers: routes each request, finds the fault that strikes it, checks it, and starts its answer."""

import msgspec

from spillway.core.errors import ConfigError
from spillway.testing.answers import StreamedAnswer, WholeAnswer
from spillway.testing.control import serve_control
from spillway.testing.fake_engine import FakeEngine
from spillway.testing.faults import Fault, parse_fault
from spillway.testing.openai_bodies import (
    ChatDialect,
    CompletionDialect,
    Dialect,
    EngineRequest,
    embeddings_body,
    error_body,
    model_list,
    usage_of,
)
from spillway.testing.raw_http import RawExchange
from spillway.testing.refusals import STRIKES_BEFORE_START, FaultyAnswer, Refusal
from spillway.testing.seen import Ending, Seen
from spillway.testing.tokens import Prompt, word

_USER_FAULT = "fault:"
_DIALECTS: dict[bytes, type[ChatDialect | CompletionDialect]] = {
    b"/v1/chat/completions": ChatDialect,
    b"/v1/completions": CompletionDialect,
}
_EMBEDDINGS = b"/v1/embeddings"


class Serving:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    def serve(self, exchange: RawExchange) -> None:
        path, _, query = exchange.path.partition(b"?")
        if path.startswith(b"/control"):
            serve_control(self.engine, exchange, path, query)
        elif exchange.method == b"POST" and (path in _DIALECTS or path == _EMBEDDINGS):
            self._serve_model(exchange, path)
        else:
            self._serve_plain(exchange, path)

    def _serve_plain(self, exchange: RawExchange, path: bytes) -> None:
        engine = self.engine
        fault = engine.script.pick(path.decode("latin-1"), "", engine.now(), generates=False)
        if fault is not None and fault.kind in STRIKES_BEFORE_START:
            FaultyAnswer(engine, exchange, fault, None).begin()
        elif path == b"/health":
            exchange.respond(200, b"")
        elif path == b"/metrics":
            exchange.respond(200, engine.metrics(), content_type=b"text/plain; version=0.0.4")
        elif path == b"/v1/models":
            exchange.respond(200, model_list(engine.spec.models, engine.spec.longest_request_tokens))
        else:
            exchange.respond(404, error_body("no such path", "invalid_request_error"))

    def _serve_model(self, exchange: RawExchange, path: bytes) -> None:
        engine = self.engine
        seen = engine.log.arrive(
            exchange.header(b"x-request-id") or "", path.decode(), exchange.headers, exchange.body, engine.now()
        )
        try:
            request = msgspec.json.decode(exchange.body, type=EngineRequest)
            seen.model, seen.stream = request.model, request.stream is True and path in _DIALECTS
            fault = self._fault_of(exchange, request, seen)
        except (msgspec.MsgspecError, ConfigError) as error:
            self._refuse(exchange, seen, Refusal(400, "invalid_request_error", None, str(error)))
            return
        seen.fault = fault.kind.value if fault else None
        if fault is not None and fault.kind in STRIKES_BEFORE_START:
            FaultyAnswer(engine, exchange, fault, seen).begin()
        elif path == _EMBEDDINGS:
            self._embed(exchange, request, seen, fault)
        else:
            self._generate(exchange, request, seen, fault, _DIALECTS[path](seen.number, request.model))

    def _fault_of(self, exchange: RawExchange, request: EngineRequest, seen: Seen) -> Fault | None:
        """The request's own fault comes before the script's."""
        if text := exchange.header(b"x-upstream-fault"):
            return parse_fault(text)
        if request.user is not None and request.user.startswith(_USER_FAULT):
            return parse_fault(request.user[len(_USER_FAULT) :])
        return self.engine.script.pick(seen.path, request.model, self.engine.now(), generates=True)

    def _generate(
        self, exchange: RawExchange, request: EngineRequest, seen: Seen, fault: Fault | None, dialect: Dialect
    ) -> None:
        spec = self.engine.spec
        prompt = Prompt(request.messages if request.prompt is None else request.prompt)
        room = spec.longest_request_tokens - prompt.tokens
        wanted = request.most_tokens
        natural = spec.output_tokens if not request.ignore_eos or wanted is None else wanted
        seen.prompt_tokens = prompt.tokens
        seen.asked_tokens = min(natural, natural if wanted is None else wanted, max(room, 0))
        if refusal := self._check(request.model, room if wanted is None else room - wanted + 1, wanted):
            self._refuse(exchange, seen, refusal)
            return
        reason = "stop" if seen.asked_tokens == spec.output_tokens and not request.ignore_eos else "length"
        start = prompt.start
        if seen.stream:
            StreamedAnswer(
                self.engine, exchange, seen, fault, reason=reason, dialect=dialect, start=start, with_usage=request.wants_usage
            ).begin()  # fmt: skip
            return

        def make_body(final_reason: str) -> bytes:
            text = "".join(word(start, index) for index in range(seen.asked_tokens))
            usage = None if seen.fault == "no_usage" else usage_of(seen.prompt_tokens, seen.asked_tokens)
            return dialect.whole(text, final_reason, usage)

        WholeAnswer(self.engine, exchange, seen, fault, reason=reason, make_body=make_body).begin()

    def _embed(self, exchange: RawExchange, request: EngineRequest, seen: Seen, fault: Fault | None) -> None:
        inputs: list[object] = request.input if isinstance(request.input, list) else [request.input]  # pyright: ignore[reportUnknownMemberType]
        texts = [item if isinstance(item, str) else str(item) for item in inputs]
        seen.prompt_tokens = sum(Prompt(item).tokens for item in inputs)
        if refusal := self._check(
            request.model, self.engine.spec.longest_request_tokens - seen.prompt_tokens + 1, None
        ):
            self._refuse(exchange, seen, refusal)
            return

        def make_body(_: str) -> bytes:
            dimensions = request.dimensions or self.engine.spec.embedding_dimensions
            usage = usage_of(seen.prompt_tokens, 0)
            as_base64 = request.encoding_format == "base64"
            return embeddings_body(request.model, texts, dimensions, usage, as_base64=as_base64)

        WholeAnswer(self.engine, exchange, seen, fault, reason="stop", make_body=make_body).begin()

    def _check(self, model: str, room_tokens: int, wanted_tokens: int | None) -> Refusal | None:
        """`room_tokens`: above 0 where the request fits the context."""
        if model not in self.engine.spec.models:
            message = f"The model `{model}` does not exist."
            return Refusal(404, "invalid_request_error", "model_not_found", message, "model")
        if wanted_tokens is not None and wanted_tokens < 1:
            return Refusal(400, "invalid_request_error", None, "max_tokens must be at least 1", "max_tokens")
        if room_tokens < 1:
            longest = self.engine.spec.longest_request_tokens
            message = f"This model's maximum context length is {longest} tokens."
            return Refusal(400, "invalid_request_error", "context_length_exceeded", message, "messages")
        return None

    def _refuse(self, exchange: RawExchange, seen: Seen, refusal: Refusal) -> None:
        seen.status = refusal.status
        exchange.respond(refusal.status, refusal.body())
        self.engine.end(seen, Ending.REFUSED)
