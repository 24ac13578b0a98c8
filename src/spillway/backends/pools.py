"""Sending to pools: each endpoint is an origin with kept-alive connections and prebuilt request heads. Hot path.

A request is one `%` of bytes and one write. A reload keeps the origins that did not change, so that their connections stay.
"""

import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from spillway.backends.probes import ProbeTarget
from spillway.backends.settings import UpstreamSpec
from spillway.core.ids import EndpointUrl, PoolName
from spillway.gateway.ports import PoolBinding
from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.ports import Receiver, Ticket
from spillway.net.proxy import parse_proxy
from spillway.net.settings import ClientLimits
from spillway.net.tls import client_context


class _Endpoint:
    """One origin as one pool uses it."""

    __slots__ = ("_base_path", "_fixed", "_heads", "origin")

    def __init__(self, spec: UpstreamSpec, url: EndpointUrl, origin: HttpOrigin) -> None:
        self.origin = origin
        self._base_path = urlsplit(url).path.rstrip("/").encode()
        authority = origin.destination.authority.encode()
        credentials = b"" if spec.api_key is None else b"authorization: Bearer %b\r\n" % spec.api_key.encode()
        if spec.peer:
            credentials += b"x-spillway-hops: 1\r\n"
        self._fixed = b"host: %b\r\n%baccept-encoding: identity\r\n" % (authority, credentials)
        self._heads: dict[bytes, bytes] = {}

    def head(self, path: bytes) -> bytes:
        """Everything before the headers of one request. `path` is one of a few."""
        head = self._heads.get(path)
        if head is None:
            target = self._target(path)
            head = b"POST %b HTTP/1.1\r\n%bcontent-type: application/json\r\n" % (target, self._fixed)
            self._heads[path] = head
        return head

    def probe(self, path: str) -> bytes:
        return b"GET %b HTTP/1.1\r\n%b\r\n" % (self._base_path + path.encode(), self._fixed)

    def _target(self, path: bytes) -> bytes:
        """A base URL that ends in /v1 already has the version of our path."""
        if self._base_path.endswith(b"/v1"):
            return self._base_path + path.removeprefix(b"/v1")
        return self._base_path + path


class _Pool:
    __slots__ = ("binding", "endpoints", "hosted", "probe_path")

    def __init__(self, spec: UpstreamSpec, endpoints: dict[EndpointUrl, _Endpoint]) -> None:
        self.binding = PoolBinding(spec.pool, spec.model, spec.version, spec.price, spec.hosted)
        self.endpoints = endpoints
        self.probe_path = spec.probe_path
        self.hosted = spec.hosted


OriginKey = tuple[EndpointUrl, str | None, str | None]


class PoolBackends:
    """`gateway.ports.Backends`. What left the configuration is known until the next change: what falls due in the very moment of
    a change is still decided on what was before it. Such an attempt fails, where its origin is closed, and is tried elsewhere."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._pools: dict[PoolName, _Pool] = {}
        self._before: dict[PoolName, _Pool] = {}
        self._origins: dict[OriginKey, HttpOrigin] = {}

    def configure(self, specs: Iterable[UpstreamSpec]) -> None:
        """Raises ConfigError for a URL or file that cannot be used, and changes nothing then."""
        origins: dict[OriginKey, HttpOrigin] = {}
        pools: dict[PoolName, _Pool] = {}
        for spec in specs:
            endpoints = {url: _Endpoint(spec, url, self._origin(spec, url, origins)) for url in spec.endpoints}
            pools[spec.pool] = _Pool(spec, endpoints)
        for key, origin in self._origins.items():
            if key not in origins:
                origin.close()
        self._origins, self._pools, self._before = origins, pools, self._pools

    def binding(self, pool: PoolName) -> PoolBinding:
        return (self._pools.get(pool) or self._before[pool]).binding

    def send(
        self, pool: PoolName, endpoint: EndpointUrl, path: bytes, extra_headers: bytes, body: bytes, receiver: Receiver
    ) -> Ticket:
        try:
            target = self._pools[pool].endpoints[endpoint]
        except KeyError:
            target = self._before[pool].endpoints[endpoint]
        request = b"%b%bcontent-length: %d\r\n\r\n%b" % (target.head(path), extra_headers, len(body), body)
        return target.origin.send(request, receiver)

    def probe_targets(self) -> Iterator[ProbeTarget]:
        """Endpoints whose health is asked for; one that serves several pools is asked once."""
        seen: set[EndpointUrl] = set()
        for pool in self._pools.values():
            if pool.probe_path is None:
                continue
            for url, endpoint in pool.endpoints.items():
                if url not in seen:
                    seen.add(url)
                    yield ProbeTarget(url, endpoint.origin, endpoint.probe(pool.probe_path))

    def gauge_targets(self, path: str) -> Iterator[ProbeTarget]:
        """Endpoints of clusters, to be asked for their load; each once."""
        seen: set[EndpointUrl] = set()
        for pool in self._pools.values():
            for url, endpoint in pool.endpoints.items():
                if path and not pool.hosted and url not in seen:
                    seen.add(url)
                    yield ProbeTarget(url, endpoint.origin, endpoint.probe(path))

    @property
    def connections(self) -> tuple[int, int]:
        """Connections opened and requests sent on reused ones, over the origins of now."""
        origins = self._origins.values()
        return sum(origin.opened for origin in origins), sum(origin.reused for origin in origins)

    def close(self) -> None:
        for origin in self._origins.values():
            origin.abort()

    def _origin(self, spec: UpstreamSpec, url: EndpointUrl, made: dict[OriginKey, HttpOrigin]) -> HttpOrigin:
        key = (url, spec.ca_file, spec.proxy)
        origin = made.get(key) or self._origins.get(key)
        if origin is None:
            tls: ssl.SSLContext | None = _context(spec.ca_file) if url.startswith("https:") else None
            proxy = None if spec.proxy is None else parse_proxy(spec.proxy)
            origin = HttpOrigin(Destination(url, tls=tls, proxy=proxy), self._limits)
        made[key] = origin
        return origin


def _context(ca_file: str | None) -> ssl.SSLContext:
    return client_context(None if ca_file is None else Path(ca_file))
