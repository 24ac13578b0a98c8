"""A batch worker's process: its store, its objects, its way to the gateways. It ends on SIGTERM, and with who started it."""

import asyncio
import logging
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path

from spillway.app.system import SystemClock, SystemRng
from spillway.backends.gateway_lines import GatewayLines
from spillway.batch.worker import BatchWorker
from spillway.config import Configuration, fixed_keys
from spillway.core.ids import random_word
from spillway.engine.lifeline import Lifeline
from spillway.net.tls import client_context
from spillway.store.minting import fingerprint_of, seal_of
from spillway.store.objects import open_objects
from spillway.store.opening import Stores
from spillway.store.passes import Passes


async def work(
    configuration: Configuration, home: Path, gateways: Sequence[str], log: logging.Logger, lifeline_fd: int | None
) -> None:
    """Runs batches until SIGTERM or SIGINT, or until the other end of `lifeline_fd` is closed. `gateways`: where their lines go.
    ConfigError, StoreError."""
    clock, rng, settings = SystemClock(), SystemRng(), configuration.batch
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if lifeline_fd is not None:
        Lifeline(loop, stopping.set).watch_pipe(lifeline_fd)
    async with Stores(configuration.store, home, make=False) as stores:
        seal = seal_of(configuration.gateway.key_secret, home, rng)
        await stores.check_seal(fingerprint_of(seal))
        fixed = frozenset(one.key for one in fixed_keys(configuration, seal).values())
        lines = GatewayLines(
            gateways,
            Passes(stores.keys, lambda: fixed, seal, clock),
            most=settings.in_flight,
            answer_s=settings.answer_s,
            tls=_trusting(configuration, gateways),
        )
        worker = BatchWorker(
            f"batch-{random_word(rng, 10)}",
            stores.work,
            stores.batches,
            stores.files,
            open_objects(configuration.store.objects, home),
            stores.usage,
            lines,
            settings,
            configuration.public_names,
            clock,
            rng,
            configuration.continuing,
        )
        log.info("a batch worker is at work", extra={"gateways": list(gateways)})
        try:
            await worker.run(stopping)
        finally:
            lines.close()


def _trusting(configuration: Configuration, gateways: Sequence[str]) -> ssl.SSLContext | None:
    """To the gateway of this host its own certificate is proof enough, whatever name is in it."""
    if not any(url.startswith("https:") for url in gateways):
        return None
    context = client_context()
    own = configuration.gateway.tls
    if own is not None and not configuration.batch.gateways:
        context.load_verify_locations(own.cert)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
    return context
