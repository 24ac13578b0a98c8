"""The console's page, read from the package."""

from importlib import resources


def fleet_page() -> str:
    return resources.files("spillway.console").joinpath("fleet.html").read_text(encoding="utf-8")
