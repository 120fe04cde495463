"""Figures of the pages that people read: drawn alike, as SVG inside the page."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

import io
import re
from typing import Any

INK, LINE = "#1c2430", "#dfe5ec"


def axes_of(
    title_x: str, title_y: str, *, width: float = 4.6, height: float = 3.4, left: float = 0.16
) -> tuple[Any, Any]:
    """A figure with one pair of axes; sizes in inches, `left` is the share of the width before them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    # Fixed margins: letting matplotlib find them draws every figure twice.
    axes = figure.add_axes((left, 0.55 / height, 0.97 - left, 1 - 0.65 / height))
    axes.set_xlabel(title_x, color=INK)
    axes.set_ylabel(title_y, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def inline_svg(figure: Any, salt: str) -> str:
    """The figure as inline SVG; the salt keeps ids of several figures in one page apart, and the same in every run."""
    import matplotlib as mpl

    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt, "font.size": 9, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = target.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
