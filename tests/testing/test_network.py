"""Hosts in namespaces: they reach this side, a cut is silent and can be mended, nothing is left behind."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.needs import needs_networks

from spillway.testing.network import Network

pytestmark = [pytest.mark.server, needs_networks]


def reaches(network: Network, port: int) -> bool:
    host = network.hosts[0]
    code = f"import socket; socket.create_connection(({network.address!r}, {port}), 0.5)"
    done = subprocess.run(host.command([sys.executable, "-c", code]), capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "timed out" in done.stderr, done.stderr
    return done.returncode == 0


def test_a_host_is_cut_from_one_port_and_mended() -> None:
    with Network(2) as network, socket.socket() as one, socket.socket() as other:
        for listening in (one, other):
            listening.bind((network.address, 0))
            listening.listen()
        ports = [listening.getsockname()[1] for listening in (one, other)]
        assert [reaches(network, port) for port in ports] == [True, True]
        network.hosts[0].cut(ports[0])
        assert [reaches(network, port) for port in ports] == [False, True]
        network.hosts[0].mend()
        assert [reaches(network, port) for port in ports] == [True, True]
        names = [host.name for host in network.hosts]
    assert not any(Path("/run/netns", name).exists() for name in names)
