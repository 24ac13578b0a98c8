"""A worker: one gateway on one event loop. `python -m spillway.app.worker NAME CHANNEL_FD LISTENER_FD`, started by the parent.

It knows nothing but what its parent tells it: `Begin` brings the configuration and the keys. When the channel closes, the
parent is gone, and the worker goes too.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from zlib import crc32

import msgspec
import uvloop

from spillway.api.data_plane import DataPlane
from spillway.api.errors import refusal
from spillway.api.public import Offline, public_app
from spillway.app.channel import Channel
from spillway.app.desk import Counter, Done, RemoteBatches, RemoteFiles
from spillway.app.journals import journal_of
from spillway.app.listeners import BACKLOG
from spillway.app.messages import (
    Begin,
    Drain,
    Gauged,
    Operate,
    Reconfigure,
    SegmentClosed,
    Serving,
    Told,
    ToWorker,
)
from spillway.app.pool_shares import PoolShares, shared_fleet
from spillway.app.state_metrics import tell_state
from spillway.app.system import SystemClock, SystemRng
from spillway.app.tracing import Tracing, tracing_of
from spillway.backends.pools import PoolBackends
from spillway.backends.probes import probe_forever
from spillway.config import Configuration, fixed_keys
from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError, SpillwayError
from spillway.core.ids import EndpointUrl, RequestIds
from spillway.gateway.driver import Driver
from spillway.gateway.networks import Networks
from spillway.gateway.pipeline import Pipeline
from spillway.gateway.quotas import Quotas
from spillway.gateway.settle import Settlement
from spillway.net.asgi import AsgiRoute
from spillway.net.server import HttpServer
from spillway.net.serving import TLS_HANDSHAKE_S
from spillway.net.tls import server_context
from spillway.quota.calendar import Calendar
from spillway.quota.gate import Gate
from spillway.quota.ledger import Failed, Reply
from spillway.store.keyring import Forget, Keys, LookedUp
from spillway.store.objects import open_objects
from spillway.store.spool import Spool
from spillway.telemetry import logs
from spillway.telemetry.access_log import GatewayLog
from spillway.telemetry.gateway_metrics import GatewayMetrics
from spillway.telemetry.metrics import Registry
from spillway.telemetry.observers import Observers
from spillway.traffic.controller import Controller
from spillway.traffic.events import Configured, LimitSet, Probed
from spillway.traffic.fleet import Fleet, share_of
from spillway.traffic.snapshot import Snapshot

REPORT_S = 0.25
BEGIN_S = 30.0  # a parent that says nothing for so long is no parent
FORM_BYTES = 64 * 1024  # of an upload, beside its file
MOST_UPLOADS = 64  # at a time: each holds a part of its file
LAST_WORDS_S = 1.0  # for ASGI requests after the drain


class Worker:
    """Assembled from `Begin`; serves until it is told to drain."""

    def __init__(self, name: str, begin: Begin, channel: "Channel[ToWorker]", log: logging.Logger) -> None:
        configuration, home = begin.configuration, Path(begin.home)
        clock, rng = SystemClock(), SystemRng()
        self._configuration = configuration
        self._clock = clock
        self._channel = channel
        self._log = log
        self._spool_was_full = False
        self._member, self._members = begin.member, begin.members
        self._draining = asyncio.Event()
        self._drain_s: Seconds = configuration.gateway.drain_s
        self._seal = begin.seal
        store = configuration.store
        self._keyring = Keys(
            begin.seal,
            clock,
            asyncio.get_running_loop(),
            channel.send,
            look_up_s=store.look_up_s,
            max_stale_s=store.max_stale_s,
            max_known=store.max_known_keys,
        )
        self._metrics = GatewayMetrics(Registry(), configuration.models)
        self._tracing: Tracing = tracing_of(configuration.telemetry.trace, rng, log)
        access = GatewayLog(log, rng, share=configuration.telemetry.access_log_share)
        observer = Observers([self._metrics, access, *self._tracing.observers])
        self._spool = Spool(
            home / "spool",
            worker=f"{name}-{int(clock.wall() * 1000):x}",
            timers=asyncio.get_running_loop(),
            settings=store.spool,
            closed=lambda segment: channel.send(SegmentClosed(segment)),
        )
        self._journal = journal_of(configuration, home, name, log)
        self._controller = Controller()
        self._backends = PoolBackends(configuration.gateway.connections)
        settlement = Settlement(self._spool, observer, clock)
        calendar = Calendar(clock.wall)
        self._quotas = Quotas(
            Gate(f"{begin.host}/{name}", configuration.shared.times, calendar, clock.monotonic()),
            calendar,
            clock,
            asyncio.get_running_loop(),
            channel.send,
        )
        self._driver = Driver(
            self._controller,
            self._backends,
            settlement,
            self._quotas,
            observer,
            clock,
            asyncio.get_running_loop(),
            configuration.gateway.timeouts,
            None if self._journal is None else self._journal.record,
            begin.members,
        )
        self._shares = None if configuration.shared.url is None else PoolShares(self._quotas, self._driver)
        self._shared_by = 1  # workers of all hosts
        self._pipeline = Pipeline(
            self._keyring,
            {},
            self._driver,
            settlement,
            self._quotas,
            observer,
            clock,
            asyncio.get_running_loop(),
            self._metrics,
            crc32(b"prefix" + begin.seal),
        )
        self._counter = Counter(channel.send)
        app = public_app(
            self._keyring,
            lambda: self._pipeline.models,
            lambda: self._pipeline.networks,
            int(clock.wall()),
            lambda: not self._draining.is_set(),
            Offline(
                RemoteFiles(self._counter),
                RemoteBatches(self._counter),
                open_objects(store.objects, home),
                configuration.batch,
                clock,
                rng,
            ),
        )
        self._public = AsgiRoute(app, refuse=refusal, max_body_bytes=configuration.gateway.max_body_bytes)
        most_bytes = configuration.batch.limits.file_bytes + FORM_BYTES
        self._uploads = AsgiRoute(app, refuse=refusal, max_body_bytes=most_bytes, max_running=MOST_UPLOADS)
        self._server = HttpServer(
            DataPlane(
                self._pipeline,
                self._public,
                self._uploads,
                RequestIds(rng),
                rng,
                self._tracing.source,
                observer,
                max_body_bytes=configuration.gateway.max_body_bytes,
                expose_pools=configuration.gateway.expose_pools,
            ),
            configuration.gateway.limits,
        )
        self._configure(configuration)

    async def serve(self, listener: socket.socket) -> None:
        """Accepts on `listener` until told to drain, then finishes what runs."""
        gateway = self._configuration.gateway
        context = None if gateway.tls is None else server_context(Path(gateway.tls.cert), Path(gateway.tls.key))
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            accepting = await loop.create_server(
                self._server.protocol,
                sock=listener,
                backlog=BACKLOG,  # else the loop cuts the listener's to 100
                ssl=context,
                ssl_handshake_timeout=None if context is None else TLS_HANDSHAKE_S,
            )
            always = [
                tasks.create_task(self._report()),
                tasks.create_task(self._sweep(gateway.timeouts.sweep_s)),
                tasks.create_task(probe_forever(self._backends.probe_targets, gateway.probes, self._probed)),
            ]
            self._quotas.start()
            self._channel.send(Serving())
            _tune_garbage_collection()
            await self._draining.wait()
            accepting.close()
            await self._server.drain(self._drain_s, patient=True)
            for task in always:
                task.cancel()
        self._driver.give_up()
        self._server.close()
        await self._public.shutdown(LAST_WORDS_S)
        await self._uploads.shutdown(LAST_WORDS_S)
        self._backends.close()
        self._quotas.leave()
        self._close_spool()
        await self._tracing.close()
        if self._journal is not None:
            self._journal.close()
        self._tell_parent()

    def hear(self, message: ToWorker) -> None:
        match message:
            case LookedUp():
                self._keyring.take(message)
            case Forget():
                self._keyring.forget(message)
            case Reconfigure():
                self._reconfigure(message.configuration)
            case Reply() | Failed():
                self._quotas.heard(message)
                if self._shares is not None:
                    self._share_pools(self._controller.snapshot())
            case Operate():
                self._operate(message)
            case Done():
                self._counter.heard(message)
            case Gauged():
                self._driver.tell(message.event)
            case Drain():
                self._drain_s = message.within_s
                self._draining.set()
            case Begin():
                raise RuntimeError("a worker begins once")

    def abandon(self) -> None:
        """The process ends now: what runs is settled, and what is known of usage goes to the spool."""
        self._driver.give_up()
        self._close_spool()

    def _close_spool(self) -> None:
        lost = self._spool.close()
        if lost:
            self._log.error("usage records are lost: %s", self._spool.problem, extra={"records": lost})

    def _configure(self, configuration: Configuration) -> None:
        """Pools, models and limits change; what the sockets and files were opened with needs a restart of the worker."""
        self._backends.configure(configuration.upstreams())
        self._metrics.configured(configuration.models)
        fleet = self._fleet(configuration)
        wall_offset_s = self._clock.wall() - self._clock.monotonic()
        self._driver.tell(Configured(msgspec.structs.replace(fleet, wall_offset_s=wall_offset_s)))
        self._driver.set_timeouts(configuration.timeouts())
        self._quotas.configure(configuration.dearest())
        self._pipeline.models = configuration.public_names()
        self._pipeline.safety.rules = configuration.safety_rules()
        self._pipeline.models_with_choice = configuration.models_with_choice()
        self._pipeline.networks = Networks(configuration.gateway.trusted_proxies)
        self._keyring.fix(fixed_keys(configuration, self._seal))

    def _fleet(self, configuration: Configuration) -> Fleet:
        """This worker's part of it."""
        whole = configuration.fleet()
        if self._shares is None:
            return whole.sliced(self._member, self._members)
        self._shares.configured(whole)
        self._shared_by = self._quotas.gate.members
        return shared_fleet(whole, max(self._members, self._shared_by))

    def _share_pools(self, snapshot: Snapshot) -> None:
        if self._shares is None:
            return
        if self._quotas.gate.members != self._shared_by:
            self._reconfigure(self._configuration)
        self._shares.look(snapshot)

    def _reconfigure(self, configuration: Configuration) -> None:
        self._configuration = configuration
        try:
            self._configure(configuration)
        except ConfigError as error:  # a file went away since the parent looked
            self._log.error("the configuration is not used, the old one stays: %s", error)

    def _operate(self, message: Operate) -> None:
        event = message.event
        if isinstance(event, LimitSet) and self._shares is not None and self._shares.shares(event.pool):
            self._shares.overridden(event.pool, event.limit)
        elif isinstance(event, LimitSet) and event.limit is not None:
            event = LimitSet(event.pool, share_of(event.limit, self._member, self._members))
        self._driver.tell(event)

    def _probed(self, endpoint: EndpointUrl, healthy: bool) -> None:
        self._driver.tell(Probed(endpoint, healthy))

    async def _sweep(self, every_s: Seconds) -> None:
        while True:
            await asyncio.sleep(every_s)
            self._driver.sweep()

    async def _report(self) -> None:
        while True:
            if not self._keyring.sweep():
                self._log.warning(
                    "the store was away for too long: all keys but those of the configuration are forgotten"
                )
            self._tell_parent()
            await asyncio.sleep(REPORT_S)

    def _tell_parent(self) -> None:
        snapshot = self._controller.snapshot()
        self._share_pools(snapshot)
        tell_state(self._metrics, snapshot)
        self._metrics.spool(unsettled=self._spool.unsettled(), lost=self._spool.lost, full=self._spool.full)
        self._metrics.keys(len(self._keyring))
        gate = self._quotas.gate
        self._metrics.quotas(
            self._quotas.refusals,
            meters=len(gate),
            waiting=gate.waiting,
            members=gate.members,
            cut_off=gate.cut_off(self._clock.monotonic()),
            learning=gate.learning,
        )
        if self._spool.full != self._spool_was_full:
            self._spool_was_full = self._spool.full
            if self._spool.full:
                self._log.error("the spool is full, nothing is admitted: %s", self._spool.problem)
            else:
                self._log.warning("the spool has room again")
        self._channel.send(Told(self._metrics.report(), snapshot))


def _tune_garbage_collection() -> None:
    """What was made at the start lives as long as the process; requests make few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def run(name: str, channel_fd: int, listener_fd: int) -> int:
    """Returns the exit status: 2 where it cannot start with what its parent told it."""
    log = logs.configure(SystemClock())
    began: asyncio.Future[Begin] = asyncio.get_running_loop().create_future()
    worker: Worker | None = None

    def parent_is_gone() -> None:
        """There is nobody to serve for: no limit, no key and no record would be counted any more."""
        if worker is not None:
            worker.abandon()
        os._exit(1)

    def received(message: ToWorker) -> None:
        if isinstance(message, Begin):
            began.set_result(message)
        elif worker is not None:
            worker.hear(message)
        else:
            early.append(message)

    early: list[ToWorker] = []
    channel = await Channel[ToWorker].over(socket.socket(fileno=channel_fd), ToWorker, received, parent_is_gone)
    async with asyncio.timeout(BEGIN_S):
        begin = await began
    log = logs.configure(SystemClock(), level=begin.configuration.telemetry.log_level)
    try:
        worker = Worker(name, begin, channel, log)
        for message in early:
            worker.hear(message)
        await worker.serve(socket.socket(fileno=listener_fd))
    except SpillwayError as error:
        log.error("a worker cannot serve: %s", error)  # noqa: TRY400  the message says it all
        return 2
    await channel.finish()
    return 0


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are the parent's to act on; without a parent a worker ends anyway
    sys.exit(uvloop.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))


if __name__ == "__main__":
    main()
