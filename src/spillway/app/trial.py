"""A configuration tried out before any worker gets it: what it names on disk must be usable, or nothing changes."""

from pathlib import Path

from spillway.backends.pools import PoolBackends
from spillway.config import Configuration
from spillway.net.tls import server_context


def try_out(configuration: Configuration) -> None:
    """Reads certificates, keys and authorities as a worker would. Raises ConfigError. Needs a running loop."""
    gateway = configuration.gateway
    if gateway.tls is not None:
        server_context(Path(gateway.tls.cert), Path(gateway.tls.key))
    backends = PoolBackends(gateway.connections)
    try:
        backends.configure(configuration.upstreams())
    finally:
        backends.close()
