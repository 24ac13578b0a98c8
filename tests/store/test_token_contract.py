"""What every store of tokens and of answers promises: the same suite on the databases and on their twin."""

import asyncio

import msgspec
import pytest
from tests.store.conftest import OpenShop

from spillway.core.errors import ClashError
from spillway.core.ids import OrganizationId, TokenId
from spillway.core.role import Role
from spillway.store.rows import Answered, Audit, TokenRow

STUDIO = OrganizationId("studio")
AUDIT = Audit(150.0, "tok_x", "token.create", "tok_a", STUDIO, None, b"{}")


def token(ident: str, **changes: object) -> TokenRow:
    base = TokenRow(TokenId(ident), ident.encode() * 4, "", Role.OPERATOR, STUDIO, 100.0, None, None, "last")
    return msgspec.structs.replace(base, **changes)


def test_a_token_is_kept_found_and_revoked(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            rows = [token("tok_a"), token("tok_b", organization=None, role=Role.ADMIN, expires_at_s=900.0, name="ci")]
            for row in rows:
                await shop.tokens.add(row, AUDIT)
            assert await shop.tokens.rows() == rows
            assert await shop.tokens.rows(organization=STUDIO) == rows[:1]
            assert await shop.tokens.rows(after=TokenId("tok_a"), limit=1) == rows[1:]
            assert await shop.tokens.row(TokenId("tok_b")) == rows[1]
            assert await shop.tokens.with_digest(rows[0].digest) == rows[0]
            assert await shop.tokens.with_digest(b"else") is None
            assert await shop.tokens.revoke(TokenId("tok_a"), AUDIT)
            assert not await shop.tokens.revoke(TokenId("tok_a"), AUDIT)
            assert not await shop.tokens.revoke(TokenId("tok_z"), AUDIT)
            assert await shop.tokens.row(TokenId("tok_a")) == token("tok_a", revoked_at_s=150.0)
            assert len(await shop.audit.rows()) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("again", [token("tok_a", digest=b"new"), token("tok_b", digest=b"tok_a" * 4)])
def test_ids_and_digests_are_there_once(open_shop: OpenShop, again: TokenRow) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.tokens.add(token("tok_a"), AUDIT)
            with pytest.raises(ClashError):
                await shop.tokens.add(again, AUDIT)
            assert len(await shop.audit.rows()) == 1

    asyncio.run(scenario())


def test_a_write_is_begun_once_and_its_answer_kept(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            answers = shop.answers
            assert await answers.begin("t/1", b"print", 100.0, stale_s=40.0) is None
            assert await answers.begin("t/1", b"other", 101.0, stale_s=41.0) == Answered(b"print", None, None)
            await answers.finish("t/1", 200, b"{}")
            assert await answers.begin("t/1", b"print", 900.0, stale_s=840.0) == Answered(b"print", 200, b"{}")
            assert await answers.begin("t/2", b"print", 100.0, stale_s=40.0) is None
            await answers.give_up("t/2")
            assert await answers.begin("t/2", b"print", 100.0, stale_s=40.0) is None
            assert await answers.begin("t/2", b"newer", 200.0, stale_s=140.0) is None  # it was begun long ago
            assert await answers.begin("t/2", b"print", 201.0, stale_s=141.0) == Answered(b"newer", None, None)
            await answers.give_up("t/1")  # it is answered: that stays
            await answers.forget(150.0)
            assert await answers.begin("t/1", b"again", 300.0, stale_s=240.0) is None

    asyncio.run(scenario())


def test_of_many_who_begin_at_once_one_does_it(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            begun = await asyncio.gather(*(shop.answers.begin("t/1", b"p", 100.0, stale_s=40.0) for _ in range(8)))
            assert begun.count(None) == 1

    asyncio.run(scenario())
