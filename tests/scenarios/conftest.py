"""One gateway for all scenarios. Its time-outs are the defaults' proportions in tenths of seconds."""

from collections.abc import Iterator

import pytest

from tests.e2e.gateway import Gateway, running
from tests.scenarios.sides import TIMEOUTS


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    with running({"timeouts": TIMEOUTS}) as started:
        yield started
