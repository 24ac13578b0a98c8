"""Plots as inline SVG that follows the page: its font, and its ink in light and in dark.

No address is in them, apart from the two names of SVG's own namespaces. Text from outside (pool names, tenants) is drawn as it
is: no mathematics, no markup.
"""

import io
import re
import warnings
import zlib
from collections.abc import Sequence

import matplotlib as mpl
import msgspec
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.typing import RcKeyType

INK = "#010203"  # stands for the page's own text colour and is replaced by it
PALETTE = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#06b6d4", "#ec4899", "#84cc16", "#94a3b8", "#a16207")
MAX_POINTS = 2000
WIDTH_IN, HEIGHT_IN = 6.4, 3.0

_SETTINGS: dict[RcKeyType, str | bool | int] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spillway",  # the same figure gives the same bytes
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


class Series(msgspec.Struct, frozen=True):
    """Points of one line. More than MAX_POINTS are thinned out evenly. `dashed` for what is not measured, such as a bound."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    dots: bool = False


def line_plot(series: Sequence[Series], x_label: str, y_label: str, *, log_x: bool = False, log_y: bool = False) -> str:
    """Lines over a common axis. Series without points are left out."""
    with mpl.rc_context(_SETTINGS):
        figure, axes = _canvas(x_label, y_label)
        for index, each in enumerate(each for each in series if len(each.x)):
            stride = max(1, -(-len(each.x) // MAX_POINTS))
            axes.plot(
                each.x[::stride], each.y[::stride], label=each.name, color=PALETTE[index % len(PALETTE)],
                linestyle="--" if each.dashed else "-", linewidth=1.5, marker="o" if each.dots else "", markersize=4,
            )  # fmt: skip
        if log_x:
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis)
        if log_y:
            axes.set_yscale("log")
            _plain_ticks(axes.yaxis)
        _legend(axes)
        return _svg(figure)


def stacked_plot(x: Sequence[float], layers: Sequence[tuple[str, Sequence[float]]], x_label: str, y_label: str) -> str:
    """Areas that add up, the first at the bottom; every layer has as many points as `x`, at most MAX_POINTS."""
    if len(x) > MAX_POINTS or any(len(y) != len(x) for _, y in layers):
        raise ValueError(f"layers of equal length, at most {MAX_POINTS} points")
    with mpl.rc_context(_SETTINGS):
        figure, axes = _canvas(x_label, y_label)
        if layers:
            colours = [PALETTE[index % len(PALETTE)] for index in range(len(layers))]
            axes.stackplot(
                x, *[y for _, y in layers], labels=[name for name, _ in layers], colors=colours, alpha=0.85,
                step="post", linewidth=0,
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        _legend(axes)
        return _svg(figure)


def _canvas(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10 … on a logarithmic axis; matplotlib's own need its mathematics."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes) -> None:
    lines, names = axes.get_legend_handles_labels()
    if lines:
        # matplotlib leaves out what begins with an underscore; a name may
        axes.legend(lines, [f" {name}" if name.startswith("_") else name for name in names], loc="best", fontsize=8)


def _svg(figure: Figure) -> str:
    """The `<svg>` element. Its ids are made unique within a page by what the figure shows."""
    written = io.StringIO()
    with warnings.catch_warnings():
        # a glyph that the measuring font lacks is drawn by the browser's font all the same
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(
            written, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, count=1)  # would style the whole page
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = svg.replace(INK, "currentColor")
    return _own_ids(svg)


def _own_ids(svg: str) -> str:
    prefix = f"f{zlib.crc32(svg.encode()):x}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace('xlink:href="#', f'xlink:href="#{prefix}')
    return svg.replace("url(#", f"url(#{prefix}")
