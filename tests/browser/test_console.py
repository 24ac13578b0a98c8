"""The console in a real browser: it asks for the token, shows the fleet as it is, and says when the token is wrong."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.e2e.gateway import Gateway, Site, live, running

pytestmark = [pytest.mark.browser, pytest.mark.server]

QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running({}) as started:
        yield started


def chromium() -> Path:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found is not None, "no Chromium: ./dev test installs it on Debian as root"
    return Path(found)


async def sign_in(page: Page, gateway: Gateway, token: str) -> None:
    await page.goto(f"http://127.0.0.1:{gateway.admin_port}/")
    await page.get_by_label("admin token").fill(token)
    await page.get_by_role("button", name="Show").click()


@live
async def test_operators_see_pools_and_usage(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", limit=3), Site("west")) as fleet, async_playwright() as playwright:
        assert (await fleet.ask()).status == 200
        await fleet.shows("east", "limit", 3)
        browser = await playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        page = await browser.new_page()
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        await sign_in(page, gateway, "wrong")
        await expect(page.get_by_role("status")).to_have_text("The admin token is missing or wrong.")
        await sign_in(page, gateway, gateway.admin_token)
        east = page.get_by_role("row").filter(has_text=fleet.pool("east"))
        await expect(east).to_contain_text("3")
        await expect(east).to_contain_text("closed")
        await expect(page.get_by_role("row").filter(has_text=fleet.pool("west"))).to_be_visible()
        await expect(page.get_by_role("row").filter(has_text="e2e")).to_be_visible(timeout=10_000)
        assert troubles == []
        await browser.close()
