"""How plots look: matplotlib figures as files, or as SVG text whose colours follow the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from feature_matcher_ros.errors import OutputError

# Names of the page's colours (CSS variables), and what stands for them inside matplotlib. The values
# are also what a viewer without CSS variables shows.
INK = "#1c2331"
MUTED = "#6b7486"
GRID = "#e4e8ee"
BLUE = "#2f6fed"
ORANGE = "#ef8a2c"
GREEN = "#22a06b"
RED = "#d6455d"
PURPLE = "#8b62d6"
TEAL = "#1aa3b5"
GREY = "#b3bac6"
COLORS = {
    "ink": INK,
    "muted": MUTED,
    "grid": GRID,
    "blue": BLUE,
    "orange": ORANGE,
    "green": GREEN,
    "red": RED,
    "purple": PURPLE,
    "teal": TEAL,
    "grey": GREY,
}
RUN_COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, TEAL)

_WIDTH_IN = 10.6
_DPI = 150
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.handlelength": 1.4,
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn figure, and its legend, which the page writes."""

    svg: str
    keys: tuple[tuple[str, str], ...]  # label and colour
    note: str = ""


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw in the style of the report, without a lasting change of matplotlib's settings."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(height_in: float) -> Figure:
    """An empty figure as wide as the page."""
    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def write_plot(figure: Figure, path: Path) -> None:
    """Write a picture in the format that the ending of its name asks for, into a folder that is made if need be.

    Raises:
        OutputError: the file cannot be written, or matplotlib knows no such format.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write the plot {path} ({error}): choose another --plot.") from error


def to_svg(figure: Figure, name: str) -> str:
    """Turn a figure into an ``<svg>`` element, the same text every time; ``name`` is unique on the page."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' id="[A-Za-z0-9]+_\d+"', "", svg)  # never referred to, and not unique on a page of several plots
    for color, value in COLORS.items():
        svg = svg.replace(value, f"var(--{color}, {value})")
    return svg
