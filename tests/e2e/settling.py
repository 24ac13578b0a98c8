"""When every worker goes by a change."""

import asyncio

from tests.e2e.gateway import Gateway

APPEARS_S = 0.5
VANISHES_S = 2.0


async def settles(gateway: Gateway, key: str, status: int, *, within_s: float) -> None:
    """From `within_s` on, requests with the key are answered with `status`, whichever worker gets them."""
    loop = asyncio.get_running_loop()
    due = loop.time() + within_s
    in_a_row, late = 0, 0
    while in_a_row < 12 or loop.time() < due:
        sent_at = loop.time()
        right = (await gateway.get("/v1/models", key=key)).status == status
        late += not right and sent_at > due
        in_a_row = in_a_row + 1 if right else 0
        assert late == 0, f"a request after {within_s} s was not answered with {status}"
