"""The parent: supervises its crew of workers and owns the sockets, the database, the admin port, signals and reload."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
from starlette.applications import Starlette

from spillway import config
from spillway.api.admin import admin_app
from spillway.app.admin_server import AdminServer, admin_token, allowed_hosts
from spillway.app.batch_crew import BatchCrew
from spillway.app.crew import Crew
from spillway.app.desk import Desk, Wanted
from spillway.app.ledger_post import LedgerPost
from spillway.app.listeners import listen, reachable, vacant
from spillway.app.member import Member
from spillway.app.messages import (
    Begin,
    FromWorker,
    Gauged,
    Operate,
    Reconfigure,
    SegmentClosed,
    Serving,
    Told,
    ToWorker,
)
from spillway.app.operations import ParentOperations
from spillway.app.overview import Overview
from spillway.app.system import SystemClock, SystemRng
from spillway.app.trial import try_out
from spillway.backends.gauges import Scraper
from spillway.backends.pools import PoolBackends
from spillway.config import Configuration
from spillway.console.pages import fleet_page
from spillway.core.errors import ConfigError, StoreError
from spillway.quota.ledger import Ledger, Report
from spillway.quota.local_ledger import LocalLedger
from spillway.store.directory import Directory
from spillway.store.intake import Intake
from spillway.store.keyring import Forget, LookUp
from spillway.store.minting import fingerprint_of, seal_of
from spillway.store.opening import Stores
from spillway.store.retention import Retention
from spillway.store.shared_ledger import SharedLedger
from spillway.store.watch import ChangeWatch
from spillway.telemetry.parent_metrics import ParentMetrics
from spillway.telemetry.prometheus import render
from spillway.traffic.events import DrainSet, LimitSet, Scraped

WATCH_S = 1.0  # how often the configuration file is looked at

Ready = Callable[[str], None]
"""Called with the public address once every worker accepts connections."""


class Parent:
    """`await run()` serves until SIGTERM, SIGINT or `stop()`, then drains.

    SIGHUP reads the configuration again, and so does a change of the file; SIGUSR2 restarts the workers one by one.
    """

    def __init__(
        self, path: Path, configuration: Configuration, home: Path, log: logging.Logger, environ: Mapping[str, str]
    ) -> None:
        self.configuration = configuration
        self.home = home
        self.clock = SystemClock()
        self.rng = SystemRng()
        self._host = self.rng.token_bytes(8).hex()
        self.overview = Overview()
        self._path = path
        self._environ = environ
        self._log = log
        self._operated: dict[str, Operate] = {}  # what operators set by hand, by what it is about
        self._stopping = asyncio.Event()
        self._metrics = ParentMetrics()
        self._members = configuration.gateway.workers  # for this life: the number of listening sockets
        self._crew: Crew | None = None
        self._batch_crew: BatchCrew | None = None
        self._engines = PoolBackends(configuration.gateway.connections)  # to ask them for their load
        self._mtime_ns = path.stat().st_mtime_ns

    async def run(self, ready: Ready | None = None) -> None:
        gateway = self.configuration.gateway
        try_out(self.configuration)
        for address in (gateway.listen, gateway.admin):
            await vacant(address)
        async with AsyncExitStack() as stack:
            self.stores = await stack.enter_async_context(Stores(self.configuration.store, self.home))
            self.seal = seal_of(gateway.key_secret, self.home, self.rng)
            await self.stores.check_seal(fingerprint_of(self.seal))
            self.intake = Intake(self.home / "spool", self.stores.usage, log=self._log)
            await self._take_in()  # what an earlier life left
            self._directory = Directory(self.stores.keys, self.configuration.terms(), clock=self.clock, log=self._log)
            self.keys = ChangeWatch(self.stores.changes, self._publish, log=self._log)
            await self.keys.start()
            self._warn_of_small_limits()
            self._engines.configure(self.configuration.upstreams())
            stack.callback(self._engines.close)
            listeners = listen(gateway.listen, self._members)
            stack.callback(_close_all, listeners)
            self._desk = Desk(self.stores.files, self.stores.batches)
            times, ledger = self.configuration.shared.times, self._ledger()
            stack.push_async_callback(ledger.close)
            await stack.enter_async_context(AdminServer(self._admin_app(), gateway.admin))
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._post = LedgerPost(ledger, self.stores.budgets, times, tasks, self._log)
                crew = self._crew = Crew(
                    listeners,
                    tasks,
                    self._first_messages,
                    self._heard,
                    self._retired,
                    self._log,
                )
                self._catch_signals()
                retention = Retention(self.stores.usage, self.configuration.store, self.clock, self._log)
                endless = (
                    self.keys.run(),
                    self._post.run(),
                    self._directory.run(),
                    self.intake.run(),
                    retention.run(),
                    crew.watch(),
                    self._watch_file(),
                    self._scraper().run(),
                )
                always = [tasks.create_task(work) for work in endless]
                await crew.start()
                batches = tasks.create_task(self._batches_of(_address_of(listeners[0])).run())
                if ready is not None:
                    ready(_address_of(listeners[0]))
                await self._stopping.wait()
                _close_all(
                    listeners
                )  # who comes now is refused at once instead of waiting in a queue that nobody empties
                batches.cancel()  # first: what they have at the gateway would hold up its drain
                await asyncio.wait([batches])
                await crew.stop(self.configuration.gateway.drain_s)
                for task in always:
                    task.cancel()
            await self._take_in()

    def _batches_of(self, address: str) -> BatchCrew:
        """Batch workers that send their lines to this gateway, or to those that the configuration says."""
        settings, scheme = self.configuration.batch, "http" if self.configuration.gateway.tls is None else "https"
        gateways = settings.gateways or (f"{scheme}://{reachable(address)}",)
        crew = BatchCrew(settings.workers, self._path, self.home, gateways, self._environ, self._log)
        self._batch_crew = crew
        return crew

    def _ledger(self) -> Ledger:
        """The one of all hosts, or of this one alone."""
        shared = self.configuration.shared
        if shared.url is None:
            return LocalLedger(shared.times, self.clock)
        return SharedLedger(shared.url, shared.times, self.clock)

    @property
    def log(self) -> logging.Logger:
        return self._log

    def stop(self) -> None:
        self._stopping.set()

    # What operators do

    def metrics(self) -> bytes:
        """Prometheus text of all workers together."""
        intake = self.intake.state
        own = self._metrics.report(
            workers=self.overview.workers,
            ingested=intake.ingested,
            known=intake.known,
            corrupt=intake.corrupt,
            spool_bytes=intake.waiting_bytes,
            store_up=intake.ok,
            ledger_up=self._post.up,
            ledger_failures=self._post.failures,
        )
        return render(self.overview.totals.total(own)).encode()

    def operate(self, event: LimitSet | DrainSet) -> None:
        """Tell every worker, and those that start later. A limit is sliced like a configured one."""
        about = event.pool if isinstance(event, LimitSet) else event.endpoint
        self._operated[about] = Operate(event)
        self._tell_crew(self._operated[about])

    async def reload(self) -> str | None:
        """Read the file again. A bad one changes nothing; returns why."""
        try:
            self._read_again()
        except ConfigError as error:
            self._log.error("the configuration is not used, the old one stays: %s", error)
            return str(error)
        return None

    async def restart_workers(self) -> None:
        if self._crew is not None:
            await self._crew.restart(self.configuration.gateway.drain_s)

    # What keeps it going

    def _read_again(self) -> None:
        with contextlib.suppress(OSError):  # `load` will say it better
            self._mtime_ns = self._path.stat().st_mtime_ns  # before: what is written meanwhile is read again
        configuration = config.load(self._path, self._environ)
        try_out(configuration)
        before, self.configuration = self.configuration, configuration
        self._engines.configure(configuration.upstreams())
        self._tell_crew(Reconfigure(configuration))
        if self._batch_crew is not None and configuration != before:
            self._batch_crew.restart()
        forget = self._directory.configure(configuration.terms())
        if forget.names_any():
            self._publish(forget)
        self._log.info("the configuration was read again")

    def _first_messages(self, slot: int) -> Iterator[ToWorker]:
        yield Begin(self.configuration, str(self.home), slot, self._members, self.seal, self._host)
        yield from self._operated.values()

    def _publish(self, forget: Forget) -> None:
        if forget.names_any():
            self._directory.overtaken()
        self._tell_crew(forget)

    def _tell_crew(self, message: ToWorker) -> None:
        if self._crew is not None:
            self._crew.send(message)

    def _retired(self, worker: str, *, died: bool) -> None:
        """A worker ended: its counters are kept, what it left in the spool is taken in."""
        if died:
            self._metrics.worker_died()
        self._post.left(worker)
        self.overview.retire(worker)
        self.intake.announce(worker)

    def _admin_app(self) -> Starlette:
        gateway = self.configuration.gateway
        hosts = allowed_hosts(gateway.admin, gateway.admin_hosts)
        token = admin_token(self.home, self.rng)
        return admin_app(ParentOperations(self, token), hosts, lambda: self.overview.workers > 0, fleet_page())

    def _scraper(self) -> Scraper:
        gauges = self.configuration.gateway.gauges
        targets = partial(self._engines.gauge_targets, gauges.path)
        return Scraper(targets, gauges, self.overview.in_flight, self._gauged)

    def _gauged(self, event: Scraped) -> None:
        """Each worker leaves room for its part of what others sent, as it has its part of the limit."""
        part = msgspec.structs.replace(event, foreign=event.foreign / self._members)
        self._tell_crew(Gauged(part))

    def _heard(self, member: Member, message: FromWorker) -> None:
        match message:
            case Told():
                self.overview.told(member.name, message)
            case SegmentClosed():
                self.intake.announce(message.name)
            case LookUp():
                self._directory.ask(message.digests, member.send)
            case Report():
                self._post.take(member.name, message, member.send)
            case Wanted():
                self._tasks.create_task(self._desk.serve(message, member.send))
            case Serving():
                pass

    async def _take_in(self) -> None:
        try:
            await self.intake.drain()
        except (StoreError, OSError) as error:  # OSError: of one file; the others were taken
            self._log.warning("usage stays in the spool: %s", error)

    async def _watch_file(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                mtime_ns = self._path.stat().st_mtime_ns
            except OSError:
                continue  # it is being replaced, or gone: what was read stays in force
            if mtime_ns == self._mtime_ns:
                continue
            try:
                self._read_again()
            except ConfigError as error:
                self._log.error("the configuration is not used, the old one stays: %s", error)
            self._mtime_ns = mtime_ns

    def _warn_of_small_limits(self) -> None:
        for name, pool in self.configuration.fleet().pools.items():
            if 0 < pool.limit < self._members:
                text = "pool %s has a limit of %d for %d workers: some of them get no slot"
                self._log.warning(text, name, pool.limit, self._members)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.create_task(self.reload()))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._tasks.create_task(self.restart_workers()))


def _address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def _close_all(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()
