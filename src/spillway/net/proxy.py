"""Reaching an https origin through an HTTP proxy: which proxy, and the CONNECT that opens the way."""

import asyncio
import base64
import ipaddress
from typing import cast
from urllib.parse import unquote, urlsplit

import msgspec

from spillway.core.errors import ConfigError

MAX_ANSWER_BYTES = 16 * 1024


class Proxy(msgspec.Struct, frozen=True):
    """`authorization`: value of the Proxy-Authorization header, empty for none."""

    host: str
    port: int
    authorization: str = ""


class ProxyRefusedError(OSError):
    """The proxy did not open the way."""


def parse_proxy(url: str) -> Proxy:
    """From `http://[user:password@]host[:port]`, the value of HTTPS_PROXY. Raises ConfigError; its text holds no password."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"a proxy is given as http://host:port, not as {parts.scheme}://{parts.hostname or ''}")
    try:
        port = parts.port or 80
    except ValueError:
        raise ConfigError(f"the port of proxy {parts.hostname} is not a number up to 65535") from None
    if parts.username is None:
        return Proxy(parts.hostname, port)
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(parts.hostname, port, "Basic " + base64.b64encode(secret.encode()).decode())


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Whether NO_PROXY names this origin: `*`, a domain (its subdomains too), a host, either with `:port`, an address or a network."""
    return any(_matches(entry.strip().lower(), host.lower(), port) for entry in no_proxy.split(",") if entry.strip())


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        pass
    name, colon, wanted_port = entry.rpartition(":")
    if colon and wanted_port.isdecimal():
        if int(wanted_port) != port:
            return False
        entry = name
    entry = entry.removeprefix("*").removeprefix(".").strip("[]")
    return host == entry or host.endswith("." + entry)


class ConnectAnswer(asyncio.Protocol):
    """Asks a proxy for a way to `authority`, and waits: `opened` ends with the transport, or with ProxyRefusedError."""

    def __init__(self, proxy: Proxy, authority: str) -> None:
        self._request = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        if proxy.authorization:
            self._request += f"Proxy-Authorization: {proxy.authorization}\r\n"
        self._answer = b""
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(f"{self._request}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if self.opened.done() or self._transport is None:
            return
        if not end:
            if len(self._answer) > MAX_ANSWER_BYTES:
                self._refuse("the proxy's answer is too long")
            return
        status = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
            self._refuse("the proxy does not speak HTTP/1.1")
        elif not 200 <= int(status[1]) < 300:
            self._refuse(f"the proxy answered {int(status[1])}")
        elif rest:
            self._refuse(
                "the proxy sent more than an answer"
            )  # the origin does not speak before us: TLS begins with the client
        else:
            self._transport.pause_reading()  # until TLS reads: nothing may be lost in between
            self.opened.set_result(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._refuse("the proxy closed the connection")

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, detail: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(ProxyRefusedError(detail))
        self.abort()
