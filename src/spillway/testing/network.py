"""Hosts of one's own: network namespaces on a bridge, each with an address. Needs root, `ip` and `nft` (Linux).

    with Network(3) as network:
        network.address                        # of this side, where all hosts reach us
        network.hosts[0].command(["true"])     # the command as that host runs it
        network.hosts[0].cut(port)             # what it says to that port of ours goes nowhere, and nobody is told
        network.hosts[0].mend()

Names carry the id of the process that made them; what dead processes left is removed first.
"""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from spillway.testing.processes import ProcessError

PREFIX = "swn"
_NET = "10.231"
_CUT = "spillway-cut"


def can_make_networks() -> bool:
    """Whether this process may, and has the tools. Tried, for containers differ."""
    if os.getuid() != 0 or shutil.which("ip") is None or shutil.which("nft") is None:
        return False
    name = f"{PREFIX}{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if tried.returncode:
        return False
    return subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False).returncode == 0


class Host:
    def __init__(self, name: str, address: str, here: str) -> None:
        self.name = name
        self.address = address
        self._here = here

    def command(self, words: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self, port: int) -> None:
        """Drops, both ways, what belongs to connections from this host to a port of ours."""
        there, back = f"ip daddr {self._here} tcp dport {port} drop", f"ip saddr {self._here} tcp sport {port} drop"
        self._nft(f"add table inet {_CUT}")
        for hook, rule in (("output", there), ("input", back)):
            self._nft(f"add chain inet {_CUT} {hook} {{ type filter hook {hook} priority 0 ; }}")
            self._nft(f"add rule inet {_CUT} {hook} {rule}")

    def mend(self) -> None:
        self._nft(f"delete table inet {_CUT}")

    def _nft(self, rule: str) -> None:
        run(*self.command(["nft", rule]))


class Network:
    """`hosts`: as many as wanted, at most 200."""

    def __init__(self, count: int) -> None:
        number = os.getpid() % 250
        self._bridge = f"{PREFIX}{os.getpid()}"
        self.address = f"{_NET}.{number}.1"
        self.hosts = [
            Host(f"{self._bridge}-{index}", f"{_NET}.{number}.{10 + index}", self.address) for index in range(count)
        ]

    def __enter__(self) -> Self:
        remove_leftovers()
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _make(self) -> None:
        run("ip", "link", "add", self._bridge, "type", "bridge")
        run("ip", "address", "add", f"{self.address}/24", "dev", self._bridge)
        run("ip", "link", "set", self._bridge, "up")
        for index, host in enumerate(self.hosts):
            near = self._near(index)
            run("ip", "netns", "add", host.name)
            run("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            run("ip", "link", "set", near, "master", self._bridge, "up")
            run(*host.command(["ip", "address", "add", f"{host.address}/24", "dev", "eth0"]))
            run(*host.command(["ip", "link", "set", "eth0", "up"]))
            run(*host.command(["ip", "link", "set", "lo", "up"]))

    def _near(self, index: int) -> str:
        """This side's end of the link to a host."""
        return f"{self._bridge}v{index}"

    def _remove(self) -> None:
        for index, host in enumerate(self.hosts):
            # Links first: a namespace takes its own away some time after it is gone, and the name is wanted again.
            _quietly("ip", "link", "del", self._near(index))
            _quietly("ip", "netns", "del", host.name)
        _quietly("ip", "link", "del", self._bridge)


def remove_leftovers() -> None:
    """Of processes that are no more."""
    folder = Path("/run/netns")
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    bridges = [path.name for path in Path("/sys/class/net").iterdir()]
    for name in names:
        if _is_orphan(name.partition("-")[0]):
            _quietly("ip", "netns", "del", name)
    for name in bridges:
        if _is_orphan(name):
            _quietly("ip", "link", "del", name)


def _is_orphan(name: str) -> bool:
    pid = name.removeprefix(PREFIX)
    return name.startswith(PREFIX) and pid.isdecimal() and not Path(f"/proc/{pid}").exists()


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProcessError(f"{' '.join(words)}: {done.stderr.strip()}")


def _quietly(*words: str) -> None:
    with contextlib.suppress(ProcessError):
        run(*words)
