"""Records and stores for the tests of this package."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
from tests.needs import needs_postgres

from spillway.core.ids import KeyId, ModelName, PoolName, RequestId, TenantId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord
from spillway.store.memory_tenants import MemoryChanges, MemoryKeys, MemoryOrganizations, MemoryTenants, MemoryTrail
from spillway.store.memory_tokens import MemoryAnswers, MemoryTokens
from spillway.store.memory_usage import MemoryUsage
from spillway.store.opening import Stores
from spillway.store.ports import (
    AnswerStore,
    AuditLog,
    ChangeLog,
    KeyStore,
    OrganizationStore,
    TenantStore,
    TokenStore,
    UsageStore,
)
from spillway.store.settings import Settings
from spillway.testing.postgres import PostgresServer

HOUR_S = 1_767_225_600  # 2026-01-01T00:00Z


class MakeRecord(Protocol):
    def __call__(self, request: str, **changes: object) -> UsageRecord: ...


class Shop(msgspec.Struct):
    """All stores."""

    keys: KeyStore
    tenants: TenantStore
    organizations: OrganizationStore
    audit: AuditLog
    changes: ChangeLog
    usage: UsageStore
    tokens: TokenStore
    answers: AnswerStore


OpenShop = Callable[[], AbstractAsyncContextManager[Shop]]


@pytest.fixture
def make_record() -> MakeRecord:
    base = UsageRecord(
        request=RequestId("req_0"), finished_at_s=HOUR_S + 60.0, tenant=TenantId("acme"), key=KeyId("key_a"),
        model=ModelName("npc"), version=VersionName("npc-1"), pool=PoolName("npc@east"), priority=Priority.INTERACTIVE,
        outcome=Outcome.OK, attempts=1, spilled=False, streamed=True, prompt_tokens=100, cached_tokens=None,
        completion_tokens=20, estimated=False, ttft_s=0.2, tpot_s=0.02, duration_s=0.6, cost_usd=0.000_123,
    )  # fmt: skip

    def make(request: str, **changes: object) -> UsageRecord:
        return msgspec.structs.replace(base, request=request, **changes)

    return make


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=[pytest.mark.server, needs_postgres])])
def open_shop(request: pytest.FixtureRequest, tmp_path: Path) -> OpenShop:
    """On the databases and on their twin. Opened twice it is the same."""
    url = request.getfixturevalue("postgres").database() if request.param == "postgres" else Settings().url

    @asynccontextmanager
    async def memory():
        trail = MemoryTrail()
        yield Shop(
            MemoryKeys(trail),
            MemoryTenants(trail),
            MemoryOrganizations(trail),
            trail,
            MemoryChanges(trail),
            MemoryUsage(),
            MemoryTokens(trail),
            MemoryAnswers(),
        )

    @asynccontextmanager
    async def database():
        async with Stores(Settings(url=url), tmp_path) as stores:
            yield Shop(
                stores.keys,
                stores.tenants,
                stores.organizations,
                stores.audit,
                stores.changes,
                stores.usage,
                stores.tokens,
                stores.answers,
            )

    return memory if request.param == "memory" else database


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[logging.Logger]:
    """A logger of its own, seen by `caplog`."""
    logger = logging.Logger("spillway.test")
    logger.addHandler(caplog.handler)
    yield logger
    logger.removeHandler(caplog.handler)
