"""Records for the tests of this package."""

from typing import Protocol

import msgspec
import pytest

from spillway.core.ids import KeyId, ModelName, PoolName, RequestId, TenantId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord


class MakeRecord(Protocol):
    def __call__(self, **changes: object) -> UsageRecord: ...


@pytest.fixture
def make_record() -> MakeRecord:
    base = UsageRecord(
        request=RequestId("req_0"), finished_at_s=1000.5, tenant=TenantId("acme"), key=KeyId("key_a"),
        model=ModelName("npc"), version=VersionName("npc-1"), pool=PoolName("npc@east"), priority=Priority.INTERACTIVE,
        outcome=Outcome.OK, attempts=1, spilled=False, streamed=True, prompt_tokens=100, cached_tokens=None,
        completion_tokens=20, estimated=False, ttft_s=0.25, tpot_s=0.02, duration_s=0.5, cost_usd=0.001,
    )  # fmt: skip

    def make(**changes: object) -> UsageRecord:
        return msgspec.structs.replace(base, **changes)

    return make
