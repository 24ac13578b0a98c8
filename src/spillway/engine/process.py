"""The engine's process: made from its parts, run until it is told to end, and ended in order.

SIGTERM and SIGINT drain: what runs is finished within `drain_s`, new work gets 503. A second one, or the end of the parent, ends at
once. Exit status 0 after an orderly end, 1 when the model cannot be used or the stepper died.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable

import msgspec
import uvloop

from spillway.core.clock import Clock
from spillway.core.errors import ConfigError, SpillwayError
from spillway.core.rng import Rng
from spillway.engine.front import Front, Works
from spillway.engine.lifeline import Lifeline
from spillway.engine.model_folder import ModelFolder, read_model_folder
from spillway.engine.pacing import Pace
from spillway.engine.pipeline import OpenvinoPipeline, OpenvinoTokenizer, SchemaCompiler
from spillway.engine.prompt import Prompts
from spillway.engine.schemas import SchemaQueue
from spillway.engine.settings import EngineSettings
from spillway.engine.stepper import Stepper
from spillway.net.server import HttpServer
from spillway.net.serving import bound_port, listen
from spillway.net.settings import ServerLimits

SWITCH_INTERVAL_S = 0.0005
"""The stepper comes back from a step without the interpreter and asks for it; the default lets the loop keep it for ten times as long."""
STOP_STEP_S = 5.0
CLOSE_S = 1.0

_log = logging.getLogger(__name__)


class Parent(msgspec.Struct, frozen=True):
    """Whom to end with. Both None: nobody."""

    pid: int | None = None
    lifeline: int | None = None  # a descriptor


class EngineProcess:
    """One engine on one event loop. `announce` is told the engine's URL once it takes requests."""

    def __init__(
        self, settings: EngineSettings, folder: ModelFolder, clock: Clock, rng: Rng, announce: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._announce = announce
        self._loop = asyncio.get_running_loop()
        self._front = Front(settings, folder, clock, rng)
        self._ending = asyncio.Event()
        self._at_once = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self, parent: Parent) -> tuple[int, bool]:
        """Exit status, and whether every thread has ended."""
        settings, folder = self._settings, self._folder
        tokenizer = OpenvinoTokenizer(folder.path)
        prompts = Prompts(tokenizer, folder.special_tokens, folder.chat_template)
        server = HttpServer(self._front, ServerLimits())
        listening = await self._listen(server)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{bound_port(listening)}"
        lifeline = self._listen_for_the_end(parent)
        schemas = SchemaQueue(lambda: SchemaCompiler(folder, settings, tokenizer), self._loop)

        def opened() -> None:
            longest_prompt_bytes = folder.context_tokens * tokenizer.longest_token_bytes
            self._front.ready(Works(stepper, prompts, schemas, longest_prompt_bytes=longest_prompt_bytes))
            gc.collect()
            gc.freeze()  # what is there now stays; collections need not look at it again
            self._announce(url)

        stepper = Stepper(
            lambda: OpenvinoPipeline(folder, settings, tokenizer, cache_tokens=settings.kv_cache_tokens),
            tokenizer,
            self._loop,
            self._clock,
            max_sequences=settings.max_sequences,
            pace=Pace(settings.pace_ms / 1000, settings.pace_per_sequence_ms / 1000),
            on_ready=opened,
            on_dead=self._failed,
        )
        stepper.start()
        await self._ending.wait()
        if self._failure is None:
            await self._drain(server)
        listening.close()
        await server.drain(0 if self._at_once.is_set() else CLOSE_S)
        server.close()
        lifeline.close()
        schemas.close()
        return (0 if self._failure is None else 1), stepper.stop(STOP_STEP_S)

    async def _listen(self, server: HttpServer) -> asyncio.Server:
        host, port = self._settings.host, self._settings.port
        try:
            return await listen(server, host, port)
        except OSError as error:
            server.close()
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error

    def _listen_for_the_end(self, parent: Parent) -> Lifeline:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._asked_to_end)
        lifeline = Lifeline(self._loop, self._parent_gone)
        if parent.lifeline is not None:
            lifeline.watch_pipe(parent.lifeline)
        if parent.pid is not None:
            lifeline.watch_process(parent.pid)
        return lifeline

    def _asked_to_end(self) -> None:
        if self._ending.is_set():
            self._at_once.set()
        self._ending.set()

    def _parent_gone(self) -> None:
        _log.error("the parent is gone, so the engine ends")
        self._at_once.set()
        self._ending.set()

    def _failed(self, error: BaseException) -> None:
        _log.error("the engine ends: %s", error if isinstance(error, SpillwayError) else type(error).__name__)
        self._failure = error
        self._at_once.set()
        self._ending.set()

    async def _drain(self, server: HttpServer) -> None:
        """Idle connections close now, and every answer from now on is the last of its connection."""
        await server.drain(0)
        waits = (
            self._loop.create_task(self._front.drained(self._settings.drain_s)),
            self._loop.create_task(self._at_once.wait()),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def run_engine(
    settings: EngineSettings, parent: Parent, clock: Clock, rng: Rng, announce: Callable[[str], None]
) -> int:
    """Runs until the end. Raises ConfigError for a folder or an address that cannot be used."""
    folder = read_model_folder(settings.model)
    if settings.kv_cache_tokens < folder.context_tokens + settings.max_batched_tokens:
        raise ConfigError(
            f"the KV cache has room for {settings.kv_cache_tokens} tokens; "
            f"one request of this model needs up to {folder.context_tokens + settings.max_batched_tokens}"
        )
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    async def run() -> tuple[int, bool]:
        return await EngineProcess(settings, folder, clock, rng, announce).run(parent)

    status, ended = uvloop.run(run())
    if not ended:
        # a thread is still inside the library; waiting for it, or tearing the library down under it, would not end well
        logging.shutdown()
        os._exit(status)
    return status
