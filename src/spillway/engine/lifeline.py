"""Ends with its parent: a child must not outlive a parent that was killed and could not say goodbye."""

import asyncio
import os
from collections.abc import Callable


class Lifeline:
    """Watches a descriptor that becomes readable, at its end, when the parent is gone. Calls `on_gone` once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_gone: Callable[[], None]) -> None:
        self._loop = loop
        self._on_gone = on_gone
        self._descriptors: list[int] = []

    def watch_pipe(self, descriptor: int) -> None:
        """The reading end of a pipe whose writing end only the parent holds."""
        os.set_blocking(descriptor, False)
        self._descriptors.append(descriptor)
        self._loop.add_reader(descriptor, self._read, descriptor)

    def watch_process(self, pid: int) -> None:
        """A process id, watched through a descriptor of it (Linux)."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._on_gone()
            return
        self._descriptors.append(descriptor)
        self._loop.add_reader(descriptor, self._gone)

    def close(self) -> None:
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._descriptors.clear()

    def _read(self, descriptor: int) -> None:
        try:
            if os.read(descriptor, 4096):
                return  # a parent that talks is alive
        except BlockingIOError:
            return
        except OSError:
            pass  # a broken pipe says the same as its end
        self._gone()

    def _gone(self) -> None:
        self.close()
        self._on_gone()
