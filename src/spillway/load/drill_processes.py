"""The processes behind a port of this machine, by what Linux shows in /proc; and signals to just those."""

import contextlib
import ipaddress
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from spillway.core.errors import UsageError

_PROC = Path("/proc")
_LISTEN = "0A"


class LocalProcess(msgspec.Struct, frozen=True):
    """`started` (clock ticks since boot) tells it from a later process that got the same id."""

    pid: int
    started: int

    @property
    def stopped(self) -> bool:
        """By SIGSTOP. False for one that is gone."""
        return _state(self.pid) == ("T", self.started)

    @property
    def running(self) -> bool:
        state, started = _state(self.pid)
        return state not in ("", "Z", "X") and started == self.started

    def send(self, number: signal.Signals) -> None:
        """Does nothing where it is gone. Raises PermissionError."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def local_port(url: str) -> int:
    """The port of an endpoint on the loopback. Raises UsageError for all others."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    with contextlib.suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return parts.port or (443 if parts.scheme == "https" else 80)
    raise UsageError(
        f"{url} is not on the loopback of this machine: say how it goes down and up (--command-down, --command-up)"
    )


def listeners(port: int) -> list[LocalProcess]:
    """All processes that hold a listening socket of this port. Those of other users can't be seen."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(_PROC / "net" / table, port)}
    if not sockets:
        return []
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal() and _holds(entry / "fd", sockets)]
    found = [LocalProcess(pid, _state(pid)[1]) for pid in pids]
    return [process for process in found if process.running]


def _listening(table: Path, port: int) -> list[str]:
    """Inodes. A line: its number, local address:port in hexadecimal, remote, state, three more, uid, timeout, inode."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _holds(folder: Path, sockets: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(entry) in sockets:
                    return True
    return False


def _state(pid: int) -> tuple[str, int]:
    """Its state's letter and its start; ("", 0) where it is gone."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[19])
