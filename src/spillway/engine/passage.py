"""One request from its entry to the end of its answer, so that its place is given back exactly once, however it ends."""

from collections.abc import Callable

from spillway.core.clock import Clock
from spillway.core.errors import BadRequestError, SpillwayError
from spillway.engine.answers import StreamAnswer, WholeAnswer
from spillway.engine.metrics import EngineMetrics
from spillway.engine.openai import Ask
from spillway.engine.ports import Finish, Sampling
from spillway.engine.refusals import refuse, refuse_bad
from spillway.engine.shapes import Shape
from spillway.engine.stepper import Generation, Stepper
from spillway.net.ports import Exchange


class Passage:
    """Watches the answer (`AnswerWatcher`). `on_over` is called once, with this passage."""

    __slots__ = (
        "_began_s",
        "_clock",
        "_exchange",
        "_generation",
        "_metrics",
        "_on_over",
        "_over",
        "_stepper",
        "_submitted",
    )

    def __init__(
        self,
        exchange: Exchange,
        stepper: Stepper,
        metrics: EngineMetrics,
        clock: Clock,
        on_over: "Callable[[Passage], None]",
    ) -> None:
        self._exchange = exchange
        self._stepper = stepper
        self._metrics = metrics
        self._clock = clock
        self._on_over = on_over
        self._began_s = clock.monotonic()
        self._over = False
        self._submitted = False
        self._generation: Generation | None = None

    def take(self, ask: Ask, prompt: list[int], sampling: Sampling, shape: Shape) -> None:
        """What is to be generated. From here the client's leaving is noticed."""
        answer = (StreamAnswer if ask.stream else WholeAnswer)(self._exchange, shape, self)
        self._generation = Generation(prompt, sampling, ask.stops, answer)
        self._exchange.listener = answer

    def submit(self, error: SpillwayError | None) -> None:
        """Into the batch, or refused, once its schema was looked at. The client may have left meanwhile."""
        if self._over or self._generation is None:
            return
        if error is None:
            self._submitted = True
            self._stepper.submit(self._generation)
            return
        if isinstance(error, BadRequestError):
            refuse_bad(self._exchange, error)
        else:
            refuse(self._exchange, 429, str(error), "engine_full")
        self._close()

    def answer_began(self) -> None:
        self._metrics.first_token(self._clock.monotonic() - self._began_s)

    def answer_ended(self, finish: Finish | None) -> None:
        if self._over:
            return
        self._metrics.ended(finish, self._clock.monotonic() - self._began_s)
        if finish is None and self._submitted and self._generation is not None:
            self._stepper.cancel(self._generation)
        self._close()

    def _close(self) -> None:
        self._over = True
        self._on_over(self)
