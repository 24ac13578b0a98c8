"""One worker as its parent sees it: a process, a channel, and what it told last."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable

from spillway.app.channel import Channel
from spillway.app.messages import FromWorker, Serving, ToWorker
from spillway.core.clock import Seconds

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""For glibc: long prompts come and go a thousand times a second, and giving their memory back to the kernel each time costs
four times as much as all our work on them (a 262 kB prompt: 670 µs instead of 160). At most 64 MiB stay with a worker."""

START_GRACE_S = 10.0  # before its first word a worker may be silent so much longer than afterwards


class Member:
    """Starts one worker process on an inherited listening socket and follows it until it ends."""

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        heard: Callable[["Member", FromWorker], None],
        log: logging.Logger,
    ) -> None:
        """`heard` gets all that the worker says."""
        self.name = name  # unique over the parent's life: successors have names of their own
        self.heard_at: Seconds | None = None  # loop time of its latest word
        self._serves: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._listener = listener
        self._heard = heard
        self._log = log
        self._channel: Channel[FromWorker] | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, first: Iterable[ToWorker]) -> None:
        """`first`: what the worker is told before anything else; `Begin` leads."""
        ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "spillway.app.worker",
                self.name, str(theirs.fileno()), str(self._listener.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._listener.fileno()),
                env={**ALLOCATOR, **os.environ},
                start_new_session=True,  # a terminal's Ctrl-C is the parent's to act on
            )  # fmt: skip
        finally:
            theirs.close()
        self._channel = await Channel[FromWorker].over(ours, FromWorker, self._received, lambda: None)
        for message in first:
            self._channel.send(message)
        self.heard_at = asyncio.get_running_loop().time() + START_GRACE_S

    def send(self, message: ToWorker) -> None:
        if self._channel is not None:
            self._channel.send(message)

    async def serves(self, within_s: Seconds) -> bool:
        """Waits until it accepts connections. False where it ends first, or does neither in time."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._serves), within_s)
        except TimeoutError:
            return False

    async def ended(self) -> int:
        """Waits for the process; its exit status, negative for a signal."""
        assert self._process is not None
        status = await self._process.wait()
        self._answered(serves=False)
        if self._channel is not None:
            self._channel.close()
        return status

    async def stop(self, within_s: Seconds) -> None:
        """For a worker that was told to drain: after `within_s` it is killed."""
        assert self._process is not None
        try:
            await asyncio.wait_for(self._process.wait(), within_s)
        except TimeoutError:
            self._log.warning("worker does not end, it is killed", extra={"worker": self.name})
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                self._process.kill()

    def _received(self, message: FromWorker) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        if isinstance(message, Serving):
            self._answered(serves=True)
        self._heard(self, message)

    def _answered(self, *, serves: bool) -> None:
        if not self._serves.done():
            self._serves.set_result(serves)
