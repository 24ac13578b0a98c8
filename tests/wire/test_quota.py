"""What is left of a provider's limits is read from its headers, and what cannot be read is passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.wire import quota
from spillway.wire.quota import Quota

REMAINING = b"x-ratelimit-remaining-"
RESET = b"x-ratelimit-reset-"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"6m0s", 360.0),
        (b"1s", 1.0),
        (b"20ms", 0.02),
        (b"1h30m", 5400.0),
        (b"7.5s", 7.5),
        (b"12", 12.0),
        (b"", None),
        (b"soon", None),
        (b"1s!", None),
        (b"-1s", None),
        (b"1e9s", None),
    ],
)
def test_durations(text: bytes, seconds: float | None) -> None:
    assert quota.duration_s(text) == (None if seconds is None else pytest.approx(seconds))


def test_what_remains() -> None:
    headers = [
        (b"content-type", b"application/json"),
        (REMAINING + b"requests", b"59"),
        (REMAINING + b"tokens", b"149984"),
        (RESET + b"requests", b"1s"),
        (RESET + b"tokens", b"6m0s"),
    ]
    assert quota.read(headers) == Quota(59, 149984, 1.0)
    assert quota.read(headers[:3]) == Quota(59, 149984, None)
    assert quota.read(headers[3:]) is None
    assert quota.read([(REMAINING + b"requests", b"-1"), (REMAINING + b"tokens", b"9" * 400)]) is None


@given(st.lists(st.tuples(st.sampled_from([REMAINING + b"requests", RESET + b"tokens"]), st.binary(max_size=20))))
def test_any_value(headers: list[tuple[bytes, bytes]]) -> None:
    seen = quota.read(headers)
    assert seen is None or (seen.requests is not None and seen.requests >= 0)
    assert seen is None or seen.reset_s is None or seen.reset_s >= 0.0
