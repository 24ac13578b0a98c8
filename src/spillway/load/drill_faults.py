"""The faults that a drill makes on a live system, and how each is taken back.

Rules
- `check` refuses what can't be made here, before anything is touched.
- `strike` may fail half-way: `restore` is called whatever became of it.
- `restore` may be called any number of times; it returns only when it has seen that the fault is gone.
- `by_hand` is what an operator does when the drill itself was killed; it is shown before the strike.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError, UsageError
from spillway.load.drill_admin import AdminError, AdminPort, limit_path
from spillway.load.drill_processes import LocalProcess, listeners, local_port

CONFIRM_S: Seconds = 10.0  # until the gateway shows a limit, or a process runs again
RESTART_S: Seconds = 60.0  # until whoever supervises a killed engine has started it again
COMMAND_S: Seconds = 60.0
_LOOK_S: Seconds = 0.1


class DrillError(SpillwayError):
    """A fault could not be made, or it could not be seen that it is gone."""


class Fault(Protocol):
    @property
    def title(self) -> str: ...
    @property
    def by_hand(self) -> str: ...

    async def check(self) -> None:
        """Raises UsageError, AdminError."""
        ...

    async def strike(self) -> None:
        """Raises DrillError, AdminError."""
        ...

    async def restore(self) -> str:
        """What was seen. Raises DrillError, AdminError."""
        ...


class Starve:
    """A pool with another limit: as if most of its cluster were taken by somebody else."""

    def __init__(self, admin: AdminPort, pool: str, to: int) -> None:
        self._admin = admin
        self._pool = pool
        self._to = to
        self.title = f"starve {pool} to {to}"
        self.by_hand = (
            f"curl -X PUT -H 'Authorization: Bearer TOKEN' -d '{{\"limit\": null}}' {admin.url}{limit_path(pool)}"
        )

    async def check(self) -> None:
        pool = await self._admin.pool(self._pool)
        if pool.limit <= self._to:
            raise UsageError(f"--to {self._to} takes nothing from {self._pool}, whose limit is {pool.limit}")

    async def strike(self) -> None:
        await self._admin.set_limit(self._pool, self._to)
        await _until(self._starved, f"{self._pool} does not show the limit {self._to}")

    async def restore(self) -> str:
        await self._give_back()
        await _until(self._fed, f"{self._pool} still shows a limit of at most {self._to}")
        return f"{self._pool} has the limit {(await self._admin.pool(self._pool)).limit}"

    async def _give_back(self) -> None:
        """Again and again, as long as the admin port may be restarting."""
        attempts_left = int(CONFIRM_S)
        while True:
            try:
                return await self._admin.set_limit(self._pool, None)
            except AdminError:
                attempts_left -= 1
                if not attempts_left:
                    raise
                await asyncio.sleep(1.0)

    async def _starved(self) -> bool:
        return (await self._admin.pool(self._pool)).limit <= self._to

    async def _fed(self) -> bool:
        return (await self._admin.pool(self._pool)).limit > self._to


class Stall:
    """Engines of this machine that are stopped: connections are accepted by the kernel, and nothing comes back, which is also how
    a network that was cut looks from the gateway."""

    def __init__(self, title: str, urls: Sequence[str]) -> None:
        self.title = title
        self._urls = urls
        self._processes: list[LocalProcess] = []

    @property
    def by_hand(self) -> str:
        return f"kill -CONT {' '.join(str(process.pid) for process in self._processes)}"

    async def check(self) -> None:
        self._processes = [process for url in self._urls for process in _engines(url)]

    async def strike(self) -> None:
        for process in self._processes:
            _signal(process, signal.SIGSTOP)
        await _until(self._all_stopped, "a process runs on")

    async def restore(self) -> str:
        for process in self._processes:
            _signal(process, signal.SIGCONT)
        await _until(self._none_stopped, "a process is still stopped")
        gone = [url for url in self._urls if not await _listened(local_port(url))]
        if gone:
            raise DrillError(f"nobody listens any more at {', '.join(gone)}")
        return f"{len(self._processes)} processes run on"

    async def _all_stopped(self) -> bool:
        return not any(process.running and not process.stopped for process in self._processes)

    async def _none_stopped(self) -> bool:
        return not any(process.stopped for process in self._processes)


class Kill:
    """SIGKILL to the engine of an endpoint. Starting it again is up to whoever supervises it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._processes: list[LocalProcess] = []
        self.title = f"kill {url}"
        self.by_hand = f"start the engine at {url} again, where nobody supervises it"

    async def check(self) -> None:
        self._processes = _engines(self._url)

    async def strike(self) -> None:
        for process in self._processes:
            _signal(process, signal.SIGKILL)
        await _until(self._ended, "a process does not end")

    async def restore(self) -> str:
        if not await _listened(local_port(self._url)):
            raise DrillError(f"nobody started the engine at {self._url} again within {RESTART_S:g} s")
        return f"an engine listens at {self._url}"

    async def _ended(self) -> bool:
        return not any(process.running for process in self._processes)


class Commands:
    """Whatever an operator's two shell commands do: the way to faults on other machines, networks and stores."""

    def __init__(self, title: str, down: str, up: str) -> None:
        self.title = title
        self.by_hand = up
        self._down = down
        self._up = up

    async def check(self) -> None:
        """What they do, only the operator knows."""

    async def strike(self) -> None:
        await _shell(self._down)

    async def restore(self) -> str:
        await _shell(self._up)
        return f"{self._up!r} ended with status 0"


def _engines(url: str) -> list[LocalProcess]:
    found = listeners(local_port(url))
    if not found:
        raise UsageError(f"no process of this user listens at {url}")
    return found


def _signal(process: LocalProcess, number: signal.Signals) -> None:
    try:
        process.send(number)
    except PermissionError:
        raise DrillError(f"process {process.pid} is another user's") from None


async def _shell(command: str) -> None:
    """In a session of its own: the terminal's Ctrl-C is meant for the drill."""
    process = await asyncio.create_subprocess_shell(command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True)
    try:
        status = await asyncio.wait_for(process.wait(), COMMAND_S)
    except TimeoutError:
        process.kill()
        raise DrillError(f"{command!r} did not end within {COMMAND_S:g} s") from None
    if status:
        raise DrillError(f"{command!r} ended with status {status}")


async def _listened(port: int) -> bool:
    """Whether somebody listens, now or before RESTART_S are over."""

    async def somebody() -> bool:
        return bool(listeners(port))

    try:
        await _until(somebody, "nobody listens", within_s=RESTART_S)
    except DrillError:
        return False
    return True


async def _until(condition: Callable[[], Awaitable[bool]], complaint: str, *, within_s: Seconds = CONFIRM_S) -> None:
    """Raises DrillError."""
    for _ in range(round(within_s / _LOOK_S)):
        if await condition():
            return
        await asyncio.sleep(_LOOK_S)
    raise DrillError(f"{complaint} after {within_s:g} s")
