"""The commands of docs/admin.md, from top to bottom."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from spillway.cli.main import main
from tests.e2e.gateway import Gateway, running

pytestmark = pytest.mark.server

PAGE = Path(__file__).parents[2] / "docs" / "admin.md"
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) for line in block.strip().split("\n")
]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running(plans={"small": {"requests_per_minute": 60}}) as started:
        yield started


def test_each_command_works(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(COMMANDS) > 8
    for command in COMMANDS:
        program, *words = shlex.split(command)
        assert program == "spillway"
        assert main([*words, "--config", str(gateway.folder / "spillway.yaml")]) == 0, (
            command,
            capsys.readouterr().err,
        )
