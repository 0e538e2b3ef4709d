"""How much more curved is each method than LoRA at its start? Median ratios by module, beside the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.curvature import PUBLISHED_MODEL, BlockRow, Ratio, ratios
from welltuned.analysis.wording import plural
from welltuned.figures._picture import Picture, sentences

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Ratios:
    """The numbers of the figure."""

    ratios: tuple[Ratio, ...]
    modules: tuple[str, ...]
    series: tuple[str, ...]
    num_rows: int  # of data


def name_of(ratio: Ratio, several: bool) -> str:
    """Name a series: the method, with its rank where there are several."""
    return f"{ratio.method}, rank {ratio.rank}" if several else ratio.method


def compute(rows: Sequence[BlockRow], baseline: str = "lora") -> Ratios | str:
    """Return the ratios, or why there are none."""
    found = ratios(rows, baseline)
    if not found:
        return f"Ratios need {baseline} and another method, measured at the start at the same rank and alpha."
    several = len({ratio.rank for ratio in found}) > 1
    return Ratios(
        found,
        tuple(dict.fromkeys(ratio.module for ratio in found)),
        tuple(dict.fromkeys(name_of(ratio, several) for ratio in found)),
        rows[0].num_rows,
    )


def draw(numbers: Ratios) -> Figure:
    """Draw a point for each median with the range over blocks, and a cross where a value is published."""
    from welltuned.figures import _ink

    with _ink.style():
        drawing = _ink.page_figure(2.6)
        axes = drawing.subplots()
        several = len({ratio.rank for ratio in numbers.ratios}) > 1
        look_of = _ink.looks([(ratio.method, name_of(ratio, several)) for ratio in numbers.ratios])
        width = 0.8 / len(numbers.series)
        for place, name in enumerate(numbers.series):
            look = look_of[name]
            members = [ratio for ratio in numbers.ratios if name_of(ratio, several) == name]
            shift = width * (place - (len(numbers.series) - 1) / 2)
            x = [numbers.modules.index(ratio.module) + shift for ratio in members]
            for at, ratio in zip(x, members, strict=True):
                axes.plot([at, at], [ratio.low, ratio.high], color=look.colour, linewidth=0.9)
                _ink.tip_point(axes, at, ratio.median, _tip(ratio))
                if ratio.published is not None:
                    axes.plot([at], [ratio.published], "x", color=_ink.INK, markersize=5)
            axes.plot(x, [ratio.median for ratio in members], look.marker, color=look.colour, label=name)
        axes.axhline(1, color=_ink.SOFT, linewidth=0.6)
        axes.set_yscale("log")
        _ink.plain_log(axes.yaxis)
        axes.set_xticks(range(len(numbers.modules)), list(numbers.modules))
        axes.set_ylabel("largest eigenvalue, ratio to LoRA's")
        _ink.grid(axes)
        _ink.legend(drawing, axes)
        return drawing


def _tip(ratio: Ratio) -> str:
    text = f"{ratio.method}, rank {ratio.rank}, {ratio.module}: median {ratio.median:.3g}"
    text += f" (from {ratio.low:.3g} to {ratio.high:.3g}, {plural(ratio.num_blocks, 'block')})"
    return text + (f", published {ratio.published:g}" if ratio.published is not None else "")


def caption(numbers: Ratios) -> str:
    """State what is counted."""
    text = (
        "Median over layers of the ratio of the largest Hessian eigenvalue to LoRA's in the same block, at the start; "
        f"lines from the smallest to the largest ratio; {plural(numbers.num_rows, 'training row')}, one seed."
    )
    if any(ratio.published is not None for ratio in numbers.ratios):
        text += (
            f" Crosses: published medians of another model ({PUBLISHED_MODEL}; arXiv 2602.04998, read off its maps)."
        )
    return text


def alt(numbers: Ratios) -> str:
    """Read out every median."""
    return sentences(_tip(ratio) for ratio in numbers.ratios)


def rows(numbers: Ratios) -> list[dict[str, Any]]:
    """Return a row for each ratio."""
    return [
        {
            "method": ratio.method,
            "rank": ratio.rank,
            "module": ratio.module,
            "median": ratio.median,
            "low": ratio.low,
            "high": ratio.high,
            "num_blocks": ratio.num_blocks,
            "gauss_newton_median": ratio.gauss_newton,
            "published": ratio.published,
        }
        for ratio in numbers.ratios
    ]


PICTURE = Picture("Largest eigenvalues, ratio to LoRA", 0, compute, draw, caption, alt, rows)
