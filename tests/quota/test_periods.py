"""Days and months, and what a budget's key is about: the reverse of how it was made."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.ids import ModelName, OrganizationId, TenantId
from spillway.quota.calendar import Calendar
from spillway.quota.periods import Past, past_of
from spillway.quota.rules import Bounds, Owner, Quota, Span, specs_of

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
WALLS = st.floats(0.0, 4e9)
ALL = Bounds(1, 2, 3, 4, 5, 6.0, 7.0)


@given(NAMES, NAMES, NAMES, WALLS)
def test_every_key_is_read_as_it_was_made(tenant: str, organization: str, model: str, wall_s: float) -> None:
    quota = Quota(*(1, 2, 3, 4, 5, 6.0, 7.0), models={ModelName(model): ALL}, each_user=ALL)
    owner = Owner(TenantId(tenant), OrganizationId(organization), quota, quota)
    calendar = Calendar(lambda: wall_s)
    specs = specs_of(owner, ModelName(model), "f00d")
    assert len({spec.key for spec in specs}) == len(specs) == 5 * 7
    told = [past_of(spec.key, calendar(spec.span)) for spec in specs if spec.span in (Span.DAY, Span.MONTH)]
    assert told.count(None) == 4  # the end user's
    known = [past for past in told if past is not None]
    assert {past.tenant for past in known} == {TenantId(tenant), None}
    assert {past.organization for past in known} == {OrganizationId(organization), None}
    assert {past.model for past in known} == {ModelName(model), None}
    assert all(past.from_s <= wall_s < past.until_s for past in known)


@given(WALLS)
def test_a_period_ends_when_it_says(wall_s: float) -> None:
    for span in (Span.DAY, Span.MONTH):
        now = [wall_s]
        calendar = Calendar(lambda now=now: now[0])
        period, left_s = calendar(span), calendar.left_s(span)
        now[0] = wall_s + left_s - 0.01
        assert calendar(span) == period
        now[0] = wall_s + left_s + 0.01
        assert calendar(span) != period


def test_a_day_and_a_month() -> None:
    begin = datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC).timestamp()
    following = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()
    past = past_of("o/studio/usd_per_month", "2026-12")
    assert isinstance(past, Past)
    assert (past.from_s, past.until_s) == (begin, following)


@pytest.mark.parametrize("key", ["", "t/a", "x/a/tokens_per_day", "t/a/tokens", "t/a/b/tokens_per_day"])
def test_what_is_no_key_is_said_so(key: str) -> None:
    with pytest.raises(ValueError, match=r"key|unpack"):
        past_of(key, "2026-11-26")
