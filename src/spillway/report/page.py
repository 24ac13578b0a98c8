"""The page that all reports share. Sections hold text, tiles, tables and plots; all text is escaped, only plots are markup."""

import enum
from collections.abc import Sequence

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined


class Mood(enum.StrEnum):
    """How a figure is meant."""

    PLAIN = ""
    GOOD = "good"
    BAD = "bad"


class Tile(msgspec.Struct, frozen=True):
    """A figure to see first."""

    label: str
    value: str
    mood: Mood = Mood.PLAIN


class Table(msgspec.Struct, frozen=True):
    """Cells are written as they are; the first column is aligned left, the others right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Plot(msgspec.Struct, frozen=True):
    """`svg` comes from `report.figures` and is put into the page unescaped."""

    title: str
    svg: str
    caption: str = ""


class Section(msgspec.Struct, frozen=True):
    """Shown in the order of the fields."""

    title: str = ""
    notes: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """A whole HTML document that refers to nothing outside itself."""
    environment = Environment(
        loader=PackageLoader("spillway.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(title=title, subtitle=subtitle, sections=sections)


def number(value: float | None, digits: int = 1) -> str:
    """With thousands separators; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as per cent; a dash for None."""
    return "–" if share is None else f"{share * 100:.{digits}f} %"
