"""The process of an engine for custom models: loads, listens, and ends in order, as the engine for text does."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import uvloop

from spillway.core.clock import Clock
from spillway.core.errors import ConfigError
from spillway.core.rng import Rng
from spillway.engine.lifeline import Lifeline
from spillway.engine.micro.front import MicroFront
from spillway.engine.micro.model import CustomModel
from spillway.engine.micro.runner import Runner
from spillway.engine.micro.settings import MicroSettings
from spillway.engine.process import Parent
from spillway.net.server import HttpServer
from spillway.net.serving import bound_port, listen
from spillway.net.settings import ServerLimits

log = logging.getLogger(__name__)


async def _serve(
    settings: MicroSettings,
    model: CustomModel,
    folder: Path,
    parent: Parent,
    clock: Clock,
    rng: Rng,
    announce: Callable[[str], None],
) -> int:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    lifeline = Lifeline(loop, ending.set)
    if parent.lifeline is not None:
        lifeline.watch_pipe(parent.lifeline)
    if parent.pid is not None:
        lifeline.watch_process(parent.pid)
    front = MicroFront(settings, model, clock, rng)
    server = HttpServer(front, ServerLimits())
    try:
        listening = await listen(server, settings.host, settings.port)
    except OSError as error:
        server.close()
        raise ConfigError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    try:
        await asyncio.to_thread(model.load, folder)
        _warm(model)
    except Exception as error:  # the user's own code: the engine does not start, and says why
        raise ConfigError(f"the model cannot be loaded: {type(error).__name__}: {error}") from error
    runner = Runner(model, settings.rules, clock)
    front.ready(runner)
    gc.collect()
    gc.freeze()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    announce(f"http://{host}:{bound_port(listening)}")
    await ending.wait()
    front.draining = True
    listening.close()
    await server.drain(settings.drain_s)
    server.close()
    await runner.close(settings.drain_s)
    lifeline.close()
    return 0


def _warm(model: CustomModel) -> None:
    """One item through all of it: what is broken is found before anybody asks."""
    (output,) = model.predict([model.preprocess("hello")])
    model.postprocess(output)


def run_micro_engine(
    settings: MicroSettings,
    model: CustomModel,
    folder: Path,
    parent: Parent,
    clock: Clock,
    rng: Rng,
    announce: Callable[[str], None],
) -> int:
    """Runs until it is told to end. ConfigError for a model or an address that cannot be used."""
    return uvloop.run(_serve(settings, model, folder, parent, clock, rng, announce))
