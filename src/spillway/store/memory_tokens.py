"""The twins in memory of the stores of tokens and of answers; for tests."""

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import ClashError
from spillway.core.ids import OrganizationId, TokenId
from spillway.store.memory_tenants import MemoryTrail
from spillway.store.rows import MAX_PAGE_ROWS, Answered, Audit, TokenRow


class MemoryTokens:
    def __init__(self, trail: MemoryTrail) -> None:
        self._trail = trail
        self._tokens: dict[TokenId, TokenRow] = {}

    async def add(self, row: TokenRow, audit: Audit) -> None:
        if row.id in self._tokens or await self.with_digest(row.digest) is not None:
            raise ClashError(f"token {row.id} is there already")
        self._tokens[row.id] = row
        self._trail.wrote(audit)

    async def row(self, token: TokenId) -> TokenRow | None:
        return self._tokens.get(token)

    async def with_digest(self, digest: bytes) -> TokenRow | None:
        return next((row for row in self._tokens.values() if row.digest == digest), None)

    async def rows(
        self, *, organization: OrganizationId | None = None, after: TokenId | None = None, limit: int = 200
    ) -> list[TokenRow]:
        wanted = [
            row
            for name, row in sorted(self._tokens.items())
            if name > (after or "") and organization in (None, row.organization)
        ]
        return wanted[: max(1, min(limit, MAX_PAGE_ROWS))]

    async def revoke(self, token: TokenId, audit: Audit) -> bool:
        row = self._tokens.get(token)
        if row is None or row.revoked_at_s is not None:
            return False
        self._tokens[token] = msgspec.structs.replace(row, revoked_at_s=audit.at_s)
        self._trail.wrote(audit)
        return True


class MemoryAnswers:
    def __init__(self) -> None:
        self._answers: dict[str, tuple[Seconds, Answered]] = {}

    async def begin(self, name: str, fingerprint: bytes, at_s: Seconds, *, stale_s: Seconds) -> Answered | None:
        known = self._answers.get(name)
        if known is not None and (known[1].status is not None or known[0] >= stale_s):
            return known[1]
        self._answers[name] = (at_s, Answered(fingerprint, None, None))
        return None

    async def finish(self, name: str, status: int, body: bytes) -> None:
        if name in self._answers:
            at_s, answered = self._answers[name]
            self._answers[name] = (at_s, Answered(answered.fingerprint, status, body))

    async def give_up(self, name: str) -> None:
        known = self._answers.get(name)
        if known is not None and known[1].status is None:
            del self._answers[name]

    async def forget(self, before_s: Seconds) -> None:
        for name in [name for name, (at_s, _) in self._answers.items() if at_s < before_s]:
            del self._answers[name]
