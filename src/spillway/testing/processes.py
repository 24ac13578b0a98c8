"""Processes of a test's own: start one, wait until it says that it is ready, look at what it wrote, stop it by its id.

    with started("upstream", "--port", "0") as process:
        url = process.wait_for(r"ready: (\\S+)")[1]

Waiting is by looking, 50 times a second, until a deadline; inside an event loop: `await asyncio.to_thread(process.wait_for, …)`.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError

_LOOK_EVERY_S = 0.02


class ProcessError(SpillwayError):
    """A process ended or stayed silent when it should not have. The text holds the end of what it wrote."""


class SpawnedProcess:
    """A process in a session of its own; its output goes to two files, so that it can never block on a pipe."""

    def __init__(self, command: list[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = command
        self._stdout = folder / "stdout"
        self._stderr = folder / "stderr"
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
                env=None if env is None else dict(env),
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative: the number of the signal that ended it."""
        return self._process.poll()

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace")

    def wait_for(self, pattern: str, *, deadline_s: Seconds = 20.0) -> re.Match[str]:
        """Until the output (stdout, then stderr) matches. Raises ProcessError where it ends or the deadline passes first."""
        found: list[re.Match[str]] = []

        def written() -> bool:
            found.extend(match for text in (self.stdout, self.stderr) if (match := re.search(pattern, text)))
            return bool(found)

        self.wait_until(written, deadline_s=deadline_s, what=f"output like {pattern!r}")
        return found[0]

    def wait_until(self, condition: Callable[[], bool], *, deadline_s: Seconds, what: str) -> None:
        """Looks until `condition()` while the process runs. Raises ProcessError."""
        for _ in range(max(1, round(deadline_s / _LOOK_EVERY_S))):
            if condition():
                return
            if self._ended_within(_LOOK_EVERY_S):
                if condition():
                    return
                raise ProcessError(f"{self._name} ended with {self.exit_status} before {what}\n{self._tail()}")
        raise ProcessError(f"{self._name}: no {what} within {deadline_s} s\n{self._tail()}")

    def wait(self, *, deadline_s: Seconds = 20.0) -> int:
        """Its exit status once it ends by itself. Raises ProcessError after the deadline; it then still runs."""
        if not self._ended_within(deadline_s):
            raise ProcessError(f"{self._name} still runs after {deadline_s} s\n{self._tail()}")
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        """To the process alone, not to its children. Nothing where it has ended."""
        self._process.send_signal(number)

    def stop(self, *, deadline_s: Seconds = 10.0) -> int:
        """SIGTERM, and after the deadline SIGKILL to it and all of its session. Returns the exit status."""
        self._process.terminate()
        if not self._ended_within(deadline_s):
            self.kill_session()
        return self._process.wait()

    def kill(self) -> None:
        """SIGKILL to the process alone: what becomes of its children is up to them."""
        self._process.kill()
        self._process.wait()

    def kill_session(self) -> None:
        """SIGKILL to it and to all of its children that did not leave its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    @property
    def _name(self) -> str:
        return " ".join(self.command[:6])

    def _ended_within(self, seconds: Seconds) -> bool:
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _tail(self) -> str:
        return f"--- stdout\n{self.stdout[-2000:]}\n--- stderr\n{self.stderr[-4000:]}"


@contextlib.contextmanager
def started(*words: str, env: Mapping[str, str] | None = None) -> Generator[SpawnedProcess]:
    """`spillway WORDS…` as a process; when the block is left nothing of its session is left over."""
    with started_command([sys.executable, "-m", "spillway", *words], env=env) as process:
        yield process


@contextlib.contextmanager
def started_command(command: list[str], *, env: Mapping[str, str] | None = None) -> Generator[SpawnedProcess]:
    """As `started`, for any command. `env` None: this process's environment."""
    with tempfile.TemporaryDirectory() as folder:
        process = SpawnedProcess(command, Path(folder), env)
        try:
            yield process
        finally:
            process.stop()
            process.kill_session()


def descendants(pid: int) -> list[int]:
    """Ids of the running processes that descend from `pid`, by /proc (Linux)."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # behind the name, which may hold spaces and brackets: the state, the parent's id
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    found, frontier = list[int](), [pid]
    while frontier:
        parent = frontier.pop()
        children = [child for child, its_parent in parents.items() if its_parent == parent]
        found += children
        frontier += children
    return found


def running(pid: int) -> bool:
    """False also for one that has ended and that its parent has not collected yet (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def wait_gone(pids: list[int], *, deadline_s: Seconds = 5.0) -> None:
    """Until none of them runs. Raises ProcessError naming those that still do."""
    never = threading.Event()
    for _ in range(max(1, round(deadline_s / _LOOK_EVERY_S))):
        if not any(map(running, pids)):
            return
        never.wait(_LOOK_EVERY_S)
    raise ProcessError(f"still running after {deadline_s} s: {[pid for pid in pids if running(pid)]}")
