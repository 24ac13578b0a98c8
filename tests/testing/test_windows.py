"""The worst window, against the plain search through all of them."""

from hypothesis import given
from hypothesis import strategies as st

from spillway.testing.windows import excess

SERVED = st.lists(st.tuples(st.integers(0, 50).map(float), st.integers(1, 20)), max_size=30)


@given(SERVED, st.floats(0.1, 10.0))
def test_no_window_is_worse(served: list[tuple[float, int]], per_s: float) -> None:
    moments = sorted({at for at, _ in served})
    worst = max(
        (
            sum(amount for at, amount in served if begin <= at <= end) - per_s * (end - begin)
            for begin in moments
            for end in moments
            if begin <= end
        ),
        default=0.0,
    )
    assert abs(excess(served, per_s) - worst) < 1e-6
