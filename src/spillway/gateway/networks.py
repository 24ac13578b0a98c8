"""Where callers come from, and whether their key may be used from there."""

import ipaddress
from collections.abc import Sequence

import msgspec

from spillway.gateway.ports import Principal

MAX_READ = 1024  # lists of networks that are kept as they were read
MAX_HOPS = 32  # addresses of an x-forwarded-for that are looked at, from its end

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Barred(msgspec.Struct, frozen=True):
    """Why a known caller may not come in. Names no network: whoever holds a stolen key must not learn where it is good."""

    message: str
    code: str


SUSPENDED = Barred("This account is suspended.", "account_suspended")
ELSEWHERE = Barred("Your key may not be used from this address.", "address_not_allowed")


class Networks:
    """`trusted`: CIDR blocks of our own proxies. The caller is the last hop that is none of them: what stands before it in
    x-forwarded-for may be anybody's invention."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted = tuple(map(ipaddress.ip_network, trusted))
        self._read: dict[tuple[str, ...], tuple[_Network, ...]] = {}

    def bars(self, principal: Principal, peer: str, forwarded: str) -> Barred | None:
        """`peer`: the address of the connection's other side. Worth a call only where a principal is suspended or has networks."""
        if principal.suspended:
            return SUSPENDED
        if not principal.networks:
            return None
        caller = self._caller(peer, forwarded)
        return None if caller is not None and _lies_in(caller, self._networks(principal.networks)) else ELSEWHERE

    def _caller(self, peer: str, forwarded: str) -> _Address | None:
        """None: it cannot be told."""
        hop = address_of(peer)
        if hop is None or not _lies_in(hop, self._trusted):
            return hop
        for word in reversed(forwarded.split(",")[-MAX_HOPS:]) if forwarded else ():
            hop = address_of(word.strip())
            if hop is None or not _lies_in(hop, self._trusted):
                return hop
        return hop

    def _networks(self, written: tuple[str, ...]) -> tuple[_Network, ...]:
        networks = self._read.get(written)
        if networks is None:
            if len(self._read) >= MAX_READ:
                self._read.clear()
            networks = self._read[written] = tuple(filter(None, map(_network, written)))
        return networks


def _network(word: str) -> _Network | None:
    """None for what is none: nobody comes from there."""
    try:
        return ipaddress.ip_network(word, strict=False)
    except ValueError:
        return None


def address_of(word: str) -> _Address | None:
    """An address, also with a port behind it or in brackets; one of IPv4 in the dress of IPv6 without it."""
    if word.startswith("["):
        word = word[1:].partition("]")[0]
    elif word.count(":") == 1:
        word = word.partition(":")[0]
    try:
        address = ipaddress.ip_address(word.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _lies_in(address: _Address, networks: tuple[_Network, ...]) -> bool:
    return any(address in network for network in networks)
