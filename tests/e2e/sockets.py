"""Which process holds which connection, by /proc (Linux): whose requests a killed worker takes along."""

import contextlib
from pathlib import Path


def peers_of(pid: int, port: int) -> set[int]:
    """The client's ports of the connections that a process accepted on a port."""
    inodes: set[str] = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(descriptor.readlink().name.removeprefix("socket:[").rstrip("]"))
    peers: set[int] = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, _, _, _, _, inode = line.split()[:10]
        if int(local.split(":")[1], 16) == port and inode in inodes:
            peers.add(int(remote.split(":")[1], 16))
    return peers - {0}
