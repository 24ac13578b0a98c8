"""Reports stand alone, and text from outside stays text."""

import re
from html.parser import HTMLParser

import pytest

from spillway.report.figures import MAX_POINTS, Series, line_plot, stacked_plot
from spillway.report.page import Mood, Plot, Section, Table, Tile, number, percent, render_page

NASTY = "<script>alert(1)</script> & \"q\" 'a' $\\frac{1$ _x"
OWN_NAMES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


class Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]


def page_of(*plots: str) -> str:
    return render_page(
        NASTY,
        NASTY,
        [
            Section(
                NASTY,
                notes=[NASTY],
                tiles=[Tile(NASTY, NASTY, Mood.BAD)],
                tables=[Table([NASTY], [[NASTY]])],
                plots=[Plot(NASTY, svg, NASTY) for svg in plots],
            ),
            Section("empty"),
        ],
    )


def test_a_page_refers_to_nothing_outside_and_runs_nothing() -> None:
    page = page_of(
        line_plot([Series(NASTY, [1, 2], [3, 4])], NASTY, NASTY),
        line_plot([Series(NASTY, [1, 2], [3, 5])], NASTY, NASTY, log_x=True, log_y=True),
        stacked_plot([0, 1, 2], [(NASTY, [1, 2, 2]), ("b", [0, 1, 1])], "s", "requests/s"),
    )
    assert set(re.findall(r"https?://[^\"'<\s]*", page)) == OWN_NAMES
    parsed = Ids()
    parsed.feed(page)
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert parsed.tags.count("svg") == 3
    assert len(parsed.ids) == len(set(parsed.ids)) > 10
    assert not re.search(r"@import|src=|url\((?!#)", page)


def test_plots_follow_the_page() -> None:
    svg = line_plot([Series("a", [1, 2], [3, 4], dashed=True, dots=True)], "x", "y")
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "font-family" not in svg
    assert "<style" not in svg
    for target in re.findall(r'(?:href="|url\()#([^")]+)', svg):
        assert f'id="{target}"' in svg


def test_the_same_plot_is_the_same_text() -> None:
    assert line_plot([Series("a", [1, 2], [3, 4])], "x", "y") == line_plot([Series("a", [1, 2], [3, 4])], "x", "y")


@pytest.mark.parametrize("name", ["水 🌊", "_hidden", "$5", ""])
def test_any_name_can_be_drawn(name: str) -> None:
    assert "<svg" in line_plot([Series(name, [1, 2], [3, 4])], name, name)


def test_plots_without_points() -> None:
    assert "<svg" in line_plot([Series("a", [], [])], "x", "y", log_x=True)
    assert "<svg" in stacked_plot([0, 1], [], "x", "y")


def test_points_are_bounded() -> None:
    many = list(range(100 * MAX_POINTS))
    assert len(line_plot([Series("a", many, many)], "x", "y")) < 200_000
    with pytest.raises(ValueError, match="points"):
        stacked_plot(many, [("a", many)], "x", "y")
    with pytest.raises(ValueError, match="length"):
        stacked_plot([0, 1], [("a", [1])], "x", "y")


def test_numbers() -> None:
    assert [number(None), number(1234.56), number(0.5, 0), percent(0.123), percent(None)] == [
        "–",
        "1,234.6",
        "0",
        "12.3 %",
        "–",
    ]
