"""Memory twins of the gateway's ports: they keep what they are told, for a test to look at."""

from collections.abc import Callable

from spillway.core.ids import EndpointUrl, KeyId, ModelName, PoolName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import Usage, UsageRecord
from spillway.gateway.ports import Principal, Unknown
from spillway.quota.rules import Owner
from spillway.traffic.events import Fault


class MemoryKeyring:
    """A `Keyring`: keys in a dict. Of a secret in `unseen` it knows nothing until a test answers who seeks it."""

    def __init__(self) -> None:
        self._principals: dict[bytes, Principal] = {}
        self.unseen: set[bytes] = set()
        self.seekers: list[tuple[bytes, Callable[[Principal | Unknown], None]]] = []

    def find(self, secret: bytes) -> Principal | Unknown:
        if secret in self.unseen:
            return Unknown.UNSEEN
        return self._principals.get(secret, Unknown.REFUSED)

    def seek(self, secret: bytes, found: Callable[[Principal | Unknown], None]) -> None:
        self.seekers.append((secret, found))

    def answer(self, *, unavailable: bool = False) -> None:
        """All who seek get their answer, the first who came first."""
        seekers, self.seekers = self.seekers, []
        for secret, found in seekers:
            self.unseen.discard(secret)
            found(Unknown.UNAVAILABLE if unavailable else self.find(secret))

    def add(
        self,
        secret: bytes,
        *,
        tenant: str = "tenant",
        models: frozenset[ModelName] | None = None,
        highest_priority: Priority = Priority.REALTIME,
        networks: tuple[str, ...] = (),
        owner: Owner | None = None,
        suspended: bool = False,
    ) -> Principal:
        """The key's id is made from its number, so that a test can tell keys apart without knowing secrets."""
        key = KeyId(f"key-{len(self._principals) + 1}")
        principal = Principal(
            key, TenantId(tenant), models, highest_priority, networks=networks, owner=owner, suspended=suspended
        )
        self._principals[secret] = principal
        return principal

    def revoke(self, secret: bytes) -> None:
        """Raises KeyError for a key that is not there."""
        del self._principals[secret]


class MemoryUsageSink:
    """A `UsageSink`: records in a list. `full` is a test's to set; a record put while full is still kept."""

    def __init__(self) -> None:
        self.full = False
        self.records: list[UsageRecord] = []

    def put(self, record: UsageRecord) -> None:
        self.records.append(record)

    @property
    def duplicates(self) -> list[RequestId]:
        """Requests that were recorded more than once: there must be none."""
        seen: set[RequestId] = set()
        return [record.request for record in self.records if record.request in seen or seen.add(record.request)]

    @property
    def total(self) -> Usage:
        return Usage(
            prompt_tokens=sum(record.prompt_tokens for record in self.records),
            completion_tokens=sum(record.completion_tokens for record in self.records),
            estimated=any(record.estimated for record in self.records),
        )


class RecordingObserver:
    """An `Observer`: one list for each kind of notice, in the order they came."""

    def __init__(self) -> None:
        self.ends: list[tuple[UsageRecord, float]] = []
        self.refusals: list[Outcome] = []
        self.spills: list[tuple[ModelName, PoolName, PoolName, str]] = []
        self.failures: list[tuple[RequestId, PoolName, EndpointUrl, Fault, str]] = []
        self.breakers: list[tuple[PoolName, EndpointUrl, str]] = []

    def ended(self, record: UsageRecord, overhead_s: float) -> None:
        self.ends.append((record, overhead_s))

    def refused(self, outcome: Outcome) -> None:
        self.refusals.append(outcome)

    def spilled(self, model: ModelName, origin: PoolName, target: PoolName, reason: str) -> None:
        self.spills.append((model, origin, target, reason))

    def attempt_failed(
        self, request: RequestId, pool: PoolName, endpoint: EndpointUrl, fault: Fault, detail: str
    ) -> None:
        self.failures.append((request, pool, endpoint, fault, detail))

    def breaker_changed(self, pool: PoolName, endpoint: EndpointUrl, state: str) -> None:
        self.breakers.append((pool, endpoint, state))
