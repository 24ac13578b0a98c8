"""The keys that a worker knows, and what it and the parent say to each other of them.

A look-up is one dict get for a secret seen lately (0.07 µs by benchmarks/accounting.py), else one keyed hash and a dict get (2 µs).
What is known stays right because the parent says what to `Forget`; when it has not done so for `max_stale_s` (the store is away),
everything is forgotten. What is not known is asked of the parent, all of one turn of the event loop in one message.

Rules:
1. Keys of the configuration are found by their whole secret, whatever they look like; of all others only the digest counts.
2. A secret that fails its check is refused here: it costs one hash, leaves no trace and asks nobody.
3. Everything is bounded: `max_known` keys, the least recently used go first; secrets and misses, the oldest go first; who waits,
   the next are UNAVAILABLE at once.
4. A look-up ends after `look_up_s`, as UNAVAILABLE; its answer is taken in also when it comes later.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping

import msgspec

from spillway.core.clock import Clock, Seconds, Timers
from spillway.core.ids import OrganizationId, TenantId
from spillway.gateway.ports import Principal, Unknown
from spillway.quota.rules import Owner, Quota
from spillway.store.minting import PASS_PREFIX, digest_of, pass_of

MAX_SECRETS = 16_384
MAX_MISSES = 16_384
MAX_WAITING = 4096  # requests
MAX_NAMED = 4096  # forgotten tenants and organizations that are kept in mind
MAX_QUOTAS = 1024  # different ones that are shared
MISS_S = 5.0  # how long it is remembered that a key is not there; creating it ends that

Found = Callable[[Principal | Unknown], None]


class LookUp(msgspec.Struct, frozen=True, tag=True):
    """A worker asks for keys that it does not know."""

    digests: tuple[bytes, ...]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A key that may be used."""

    digest: bytes
    principal: Principal
    expires_at_s: Seconds | None


class LookedUp(msgspec.Struct, frozen=True, tag=True):
    """To one or more look-ups, or a part of one. `missing`: there are no such keys, or they have ended. `unavailable`: nobody can say now."""

    entries: tuple[Entry, ...] = ()
    missing: tuple[bytes, ...] = ()
    unavailable: tuple[bytes, ...] = ()


class Forget(msgspec.Struct, frozen=True, tag=True):
    """What may not be as it was. `confirms`: the store was read just now, and all else is as it was; one that names nothing only says so."""

    digests: frozenset[bytes] = frozenset()
    tenants: frozenset[TenantId] = frozenset()
    organizations: frozenset[OrganizationId] = frozenset()
    everything: bool = False
    confirms: bool = True

    def names_any(self) -> bool:
        return self.everything or bool(self.digests or self.tenants or self.organizations)


class _Known:
    """`secret`: under which it is in the cache; empty: it is not. `turn`: of the keyring, when it was learned."""

    __slots__ = ("digest", "expires_at_s", "principal", "secret", "turn")

    def __init__(self, digest: bytes, principal: Principal, expires_at_s: Seconds | None, turn: int) -> None:
        self.digest = digest
        self.principal = principal
        self.expires_at_s = expires_at_s
        self.secret = b""
        self.turn = turn


class _Sought:
    """A digest that was asked for, and the requests that wait for it."""

    __slots__ = ("digest", "waiting")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.waiting: list[Found] = []


class Keys:
    """`gateway.ports.Keyring`. `ask` sends a look-up to the parent; `take`, `forget` and `sweep` are the worker's to call."""

    def __init__(
        self,
        seal: bytes,
        clock: Clock,
        timers: Timers,
        ask: Callable[[LookUp], None],
        *,
        look_up_s: Seconds = 0.02,
        max_stale_s: Seconds = 3600.0,
        max_known: int = 200_000,
        max_secrets: int = MAX_SECRETS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._seal = seal
        self._clock = clock
        self._timers = timers
        self._ask = ask
        self._look_up_s = look_up_s
        self._max_stale_s = max_stale_s
        self._max_known = max_known
        self._max_secrets = max_secrets
        self._max_waiting = max_waiting
        self._fixed: dict[bytes, Principal] = {}
        self._passes: dict[bytes, Principal] = {}  # for them
        self._secrets: OrderedDict[bytes, _Known] = OrderedDict()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._misses: OrderedDict[bytes, Seconds] = OrderedDict()  # until when
        self._turn = 0  # grows whenever tenants or organizations are forgotten
        self._tenants: dict[TenantId, int] = {}  # in which turn it was forgotten last
        self._organizations: dict[OrganizationId, int] = {}
        self._sought: dict[bytes, _Sought] = {}
        self._unsent: list[_Sought] = []
        self._waiting = 0
        self._confirmed_at = clock.monotonic()
        self._quotas: dict[bytes, Quota] = {}

    def find(self, secret: bytes) -> Principal | Unknown:
        known = self._secrets.get(secret)
        if known is None:
            return self._find_by_digest(secret)
        if known.expires_at_s is not None and self._clock.wall() >= known.expires_at_s:
            self._drop(known.digest)
            return Unknown.REFUSED
        return known.principal

    def seek(self, secret: bytes, found: Found) -> None:
        digest = digest_of(secret, self._seal)
        if digest is None or self._waiting >= self._max_waiting:
            answer = Unknown.REFUSED if digest is None else Unknown.UNAVAILABLE
            self._timers.call_at(self._timers.time(), lambda: found(answer))
            return
        sought = self._sought.get(digest)
        if sought is None:
            sought = self._sought[digest] = _Sought(digest)
            self._unsent.append(sought)
            if len(self._unsent) == 1:
                self._timers.call_at(self._timers.time(), self._send)
        sought.waiting.append(found)
        self._waiting += 1

    def fix(self, principals: dict[bytes, Principal]) -> None:
        """The keys of the configuration, by their secrets."""
        self._fixed = principals
        self._passes = {pass_of(one.key.encode(), self._seal): one for one in principals.values()}
        for secret in principals.keys() & self._secrets.keys():
            self._secrets.pop(secret).secret = b""

    def take(self, answer: LookedUp) -> None:
        """What the parent says to look-ups, in time or later."""
        for entry in answer.entries:
            known = self._learn(entry)
            self._tell(entry.digest, Unknown.REFUSED if self._has_ended(known) else known.principal)
        for digest in answer.missing:
            self._drop(digest)
            self._misses.pop(digest, None)
            self._misses[digest] = self._clock.monotonic() + MISS_S
            if len(self._misses) > MAX_MISSES:
                self._misses.popitem(last=False)
            self._tell(digest, Unknown.REFUSED)
        for digest in answer.unavailable:
            self._tell(digest, Unknown.UNAVAILABLE)

    def forget(self, told: Forget) -> None:
        """Of a tenant's or an organization's keys only those in the cache are looked at now, the others when somebody uses them."""
        if told.confirms:
            self._confirmed_at = self._clock.monotonic()
        if told.everything:
            self._forget_everything()
            return
        for digest in told.digests:
            self._drop(digest)
            self._misses.pop(digest, None)
        if told.tenants or told.organizations:
            self._turn += 1
            self._tenants.update(dict.fromkeys(told.tenants, self._turn))
            self._organizations.update(dict.fromkeys(told.organizations, self._turn))
            self._drop_old(self._secrets)
            if len(self._tenants) + len(self._organizations) > MAX_NAMED:
                self._drop_old(self._known)
                self._tenants.clear()
                self._organizations.clear()

    def sweep(self) -> bool:
        """To be called a few times a second. False: nobody has confirmed for too long what was known, so it is forgotten."""
        now = self._clock.monotonic()
        while self._misses and next(iter(self._misses.values())) <= now:
            self._misses.popitem(last=False)
        if now - self._confirmed_at <= self._max_stale_s or not self._known:
            return True
        self._forget_everything()
        return False

    def __len__(self) -> int:
        """How many keys are known, those of the configuration included."""
        return len(self._known) + len(self._fixed)

    @property
    def waiting(self) -> int:
        """Requests that wait for a look-up."""
        return self._waiting

    def _find_by_digest(self, secret: bytes) -> Principal | Unknown:
        fixed = self._fixed.get(secret)
        if fixed is not None:
            return fixed
        if secret.startswith(PASS_PREFIX) and secret in self._passes:
            return self._passes[secret]
        digest = digest_of(secret, self._seal)
        if digest is None:
            return Unknown.REFUSED
        known = self._known.get(digest)
        if known is not None and self._is_old(known):
            self._drop(digest)
            return Unknown.UNSEEN
        if known is None:
            until = self._misses.get(digest)
            return Unknown.UNSEEN if until is None or self._clock.monotonic() >= until else Unknown.REFUSED
        if self._has_ended(known):
            self._drop(digest)
            return Unknown.REFUSED
        self._known.move_to_end(digest)
        known.secret = secret
        self._secrets[secret] = known
        if len(self._secrets) > self._max_secrets:
            self._secrets.popitem(last=False)[1].secret = b""
        return known.principal

    def _has_ended(self, known: _Known) -> bool:
        return known.expires_at_s is not None and self._clock.wall() >= known.expires_at_s

    def _learn(self, entry: Entry) -> _Known:
        digest = entry.digest
        self._drop(digest)
        self._misses.pop(digest, None)
        known = self._known[digest] = _Known(digest, self._slim(entry.principal), entry.expires_at_s, self._turn)
        if len(self._known) > self._max_known:
            self._drop(next(iter(self._known)))
        return known

    def _drop(self, digest: bytes) -> None:
        known = self._known.pop(digest, None)
        if known is not None and known.secret:
            del self._secrets[known.secret]

    def _drop_old(self, among: Mapping[bytes, _Known]) -> None:
        for known in [known for known in among.values() if self._is_old(known)]:
            self._drop(known.digest)

    def _is_old(self, known: _Known) -> bool:
        """Its tenant or organization was forgotten since it was learned."""
        if known.turn == self._turn:
            return False
        of = known.principal
        return self._tenants.get(of.tenant, 0) > known.turn or self._organizations.get(of.organization, 0) > known.turn

    def _forget_everything(self) -> None:
        self._tenants.clear()
        self._organizations.clear()
        self._known.clear()
        self._secrets.clear()
        self._misses.clear()
        self._quotas.clear()

    def _slim(self, principal: Principal) -> Principal:
        """Millions have the same few quotas: each is kept once."""
        owner = principal.owner
        if owner is None:
            return principal
        shared = Owner(
            principal.tenant,
            principal.organization,
            self._once(owner.tenant_quota),
            self._once(owner.organization_quota),
        )
        return msgspec.structs.replace(principal, owner=shared)

    def _once(self, quota: Quota | None) -> Quota | None:
        if quota is None:
            return None
        if len(self._quotas) >= MAX_QUOTAS:
            self._quotas.clear()
        return self._quotas.setdefault(msgspec.msgpack.encode(quota), quota)

    def _send(self) -> None:
        batch, self._unsent = self._unsent, []
        self._ask(LookUp(tuple(sought.digest for sought in batch)))
        self._timers.call_at(self._timers.time() + self._look_up_s, lambda: self._give_up(batch))

    def _give_up(self, batch: list[_Sought]) -> None:
        for sought in batch:
            if self._sought.get(sought.digest) is sought:  # else it was answered, and maybe asked again
                self._tell(sought.digest, Unknown.UNAVAILABLE)

    def _tell(self, digest: bytes, answer: Principal | Unknown) -> None:
        sought = self._sought.pop(digest, None)
        if sought is None:
            return
        self._waiting -= len(sought.waiting)
        for found in sought.waiting:
            found(answer)
