"""Tokens of the admin API, what was changed by whom, and writes that are asked for twice: on the stores."""

import hmac

import msgspec

from spillway.api.customer_shapes import AuditEntry, AuditPage, CreatedToken, NewToken, TokenPage, TokenStatus
from spillway.api.ports import Answered, Caller
from spillway.app.scopes import Scopes, Steered
from spillway.core.clock import Seconds
from spillway.core.errors import BadRequestError
from spillway.core.ids import OrganizationId, TokenId, random_word
from spillway.core.role import Role
from spillway.store.minting import digest_of, new_secret
from spillway.store.rows import TokenRow

FIRST = "admin.token"
STALE_S = 60.0  # a write that was begun and not finished for so long may be tried again
KEEP_ANSWERS_S: Seconds = 86_400.0
NULL = msgspec.Raw(b"null")


class TokenCallers:
    """`api.ports.Callers`. A secret that does not prove itself costs one hash."""

    def __init__(self, parent: Steered, first: str) -> None:
        """`first`: the token of `HOME/admin.token`."""
        self._parent = parent
        self._first = first.encode()

    async def caller(self, secret: bytes) -> Caller | None:
        if hmac.compare_digest(secret, self._first):
            return Caller(FIRST, Role.ADMIN)
        digest = digest_of(secret, self._parent.seal)
        if digest is None:
            return None
        row = await self._parent.stores.tokens.with_digest(digest)
        if row is None or not row.is_live(self._parent.clock.wall()):
            return None
        return Caller(row.id, row.role, row.organization)


class TokenOperations:
    def __init__(self, parent: Steered, scopes: Scopes) -> None:
        self._parent = parent
        self._scopes = scopes

    async def create(self, caller: Caller, wanted: NewToken) -> CreatedToken:
        organization = caller.organization or wanted.organization
        if caller.organization is not None and wanted.organization not in (None, caller.organization):
            raise BadRequestError("this token makes tokens for its own organization only", param="organization")
        if organization is not None and not await self._known(organization):
            raise BadRequestError(f"there is no organization {organization}", param="organization")
        now_s = self._parent.clock.wall()
        secret, digest = new_secret(self._parent.rng, self._parent.seal)
        row = TokenRow(
            id=TokenId(f"tok_{random_word(self._parent.rng, 12)}"),
            digest=digest,
            name=wanted.name,
            role=wanted.role,
            organization=organization,
            created_at_s=now_s,
            expires_at_s=None if wanted.expires_in_s is None else now_s + wanted.expires_in_s,
            revoked_at_s=None,
            last4=secret[-4:],
        )
        after = msgspec.json.encode(token_status(row))
        await self._parent.stores.tokens.add(
            row, self._scopes.audit(caller, "token.create", row.id, organization, None, after)
        )
        return CreatedToken(token_status(row), secret)

    async def page(self, caller: Caller, after: TokenId, limit: int) -> TokenPage:
        rows = await self._parent.stores.tokens.rows(organization=caller.organization, after=after, limit=limit)
        return TokenPage([token_status(row) for row in rows], rows[-1].id if len(rows) >= limit else None)

    async def revoke(self, caller: Caller, token: TokenId) -> bool:
        row = await self._parent.stores.tokens.row(token)
        if row is None or caller.organization not in (None, row.organization):
            return False
        before = msgspec.json.encode(token_status(row))
        await self._parent.stores.tokens.revoke(
            token, self._scopes.audit(caller, "token.revoke", token, row.organization, before, None)
        )
        return True

    async def audit(
        self, caller: Caller, organization: OrganizationId | None, target: str | None, before: int, limit: int
    ) -> AuditPage:
        if caller.organization is not None and organization not in (None, caller.organization):
            return AuditPage([], None)
        rows = await self._parent.stores.audit.rows(
            organization=caller.organization or organization, target=target, before=before, limit=limit
        )
        entries = [
            AuditEntry(
                row.number,
                row.audit.at_s,
                row.audit.actor,
                row.audit.action,
                row.audit.target,
                row.audit.organization,
                NULL if row.audit.before is None else msgspec.Raw(row.audit.before),
                NULL if row.audit.after is None else msgspec.Raw(row.audit.after),
            )
            for row in rows
        ]
        return AuditPage(entries, entries[-1].number if len(entries) >= limit else None)

    async def _known(self, organization: OrganizationId) -> bool:
        configured = organization in self._parent.configuration.organizations
        return configured or await self._parent.stores.organizations.row(organization) is not None


class KeptAnswers:
    """`api.ports.Repeats`."""

    def __init__(self, parent: Steered) -> None:
        self._parent = parent

    async def begin(self, name: str, fingerprint: bytes) -> Answered | None:
        now_s, answers = self._parent.clock.wall(), self._parent.stores.answers
        await answers.forget(now_s - KEEP_ANSWERS_S)
        known = await answers.begin(name, fingerprint, now_s, stale_s=now_s - STALE_S)
        return None if known is None else Answered(known.fingerprint == fingerprint, known.status, known.body or b"")

    async def finish(self, name: str, status: int, body: bytes) -> None:
        await self._parent.stores.answers.finish(name, status, body)

    async def give_up(self, name: str) -> None:
        await self._parent.stores.answers.give_up(name)


def token_status(row: TokenRow) -> TokenStatus:
    return TokenStatus(
        id=row.id,
        name=row.name,
        role=row.role,
        organization=row.organization,
        created_at_s=row.created_at_s,
        expires_at_s=row.expires_at_s,
        revoked_at_s=row.revoked_at_s,
        last4=row.last4,
    )
