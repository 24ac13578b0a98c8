"""The token ratio of a model settles on what engines report and cannot be driven out of its bounds."""

import math

from hypothesis import given
from hypothesis import strategies as st

from spillway.wire.tokens import LEAST_TOKENS_PER_BYTE, MOST_TOKENS_PER_BYTE, TokenRatio


def test_settles_on_what_is_reported() -> None:
    ratio = TokenRatio()
    for input_bytes in range(100, 20_100, 100):
        ratio.observe(input_bytes, input_bytes // 2)
    assert math.isclose(ratio.tokens_per_byte, 0.5, rel_tol=0.01)
    assert ratio.tokens(1001) in (500, 501)
    assert ratio.tokens(0) == 0


@given(st.lists(st.tuples(st.integers(-5, 10**9), st.integers(-5, 10**9))))
def test_stays_within_its_bounds(seen: list[tuple[int, int]]) -> None:
    ratio = TokenRatio()
    for input_bytes, prompt_tokens in seen:
        ratio.observe(input_bytes, prompt_tokens)
    assert LEAST_TOKENS_PER_BYTE <= ratio.tokens_per_byte <= MOST_TOKENS_PER_BYTE
