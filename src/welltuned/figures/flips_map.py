"""Which method would a study have found ahead that fixes its configuration? One tile for each one that two share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.flips import FixedOutcome, Flips, flips
from welltuned.analysis.grid import Place
from welltuned.analysis.published import PUBLISHED, Nearest
from welltuned.analysis.wording import nats_text, percent_text, plural, rate_text, signed
from welltuned.figures import _places
from welltuned.figures._picture import Picture, sentences
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from welltuned.figures._ink import Look

BASELINE = "lora"
MOST_PAIRS = 6  # all pairs of four methods; of more, those with the baseline
MOST_PANELS = 12  # on one page of a paper
NEAR = 2.0  # a published configuration is marked where rate and batch size are within this factor; assumed


@dataclass(frozen=True)
class Tile:
    """One configuration. `advantage` is that of the panel's first method, in nats; larger is better for it."""

    learning_rate: float
    batch_size: int
    advantage: float
    low: float | None
    high: float | None
    ahead: str  # "" where they are equal
    flipped: bool
    diverged: tuple[str, ...]
    mark: str  # "P", "M", or "" where no published configuration is near


@dataclass(frozen=True)
class Panel:
    """One pair of methods at one rank on one problem."""

    one: str
    other: str
    rest: str  # what tells the panel from others of its pair
    tuned_ahead: str  # "" where they are equal, or one of them has no tuned value
    tuned_advantage: float | None  # of `one`, in nats
    told: bool  # the tuned difference is beyond seed noise
    tiles: tuple[Tile, ...]

    @property
    def num_flipped(self) -> int:
        """Count the configurations that contradict the tuned order."""
        return sum(tile.flipped for tile in self.tiles)


@dataclass(frozen=True)
class FlipsMap:
    """The numbers of the figure."""

    panels: tuple[Panel, ...]
    rates: tuple[float, ...]
    batches: tuple[int, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, int]
    num_pairs: int  # of all methods
    num_left_out: int  # panels beyond `MOST_PANELS`


def compute(results: Sequence[Result], declaration: Declaration) -> FlipsMap | str:
    """Return the tiles of every pair, or why there are none."""
    del declaration
    table = _places.loss_table(results)
    methods = sorted(table.methods())
    if len(methods) < 2:
        return "The study has one method with a score." if methods else "No selection trial has a score yet."
    pairs = list(itertools.combinations(methods, 2))
    if len(pairs) > MOST_PAIRS:
        first = BASELINE if BASELINE in methods else methods[0]
        pairs = [(first, other) for other in methods if other != first]
    panels = [panel for one, other in pairs for panel in _panels(flips(table, one, other))]
    if not panels:
        return "No two methods share a learning rate, batch size and rank."
    shown = tuple(panels[:MOST_PANELS])
    tiles = [tile for panel in shown for tile in panel.tiles]
    counts = [run.num_seeds for run in table.runs if run.selected]
    return FlipsMap(
        panels=shown,
        rates=tuple(sorted({tile.learning_rate for tile in tiles})),
        batches=tuple(sorted({tile.batch_size for tile in tiles})),
        methods=tuple(methods),
        seeds=_seeds(results, counts),
        num_pairs=math.comb(len(methods), 2),
        num_left_out=len(panels) - len(shown),
    )


def _seeds(results: Sequence[Result], counts: Sequence[int]) -> tuple[int, int]:
    from welltuned.analysis.grid import means

    found = [member.num_seeds for member in means(_places.loss_table(results))] or list(counts)
    return min(found), max(found)


def _panels(found: Flips) -> list[Panel]:
    groups: dict[Place, list[FixedOutcome]] = {}
    for outcome in found.configurations:
        if outcome.place.learning_rate is not None and outcome.place.batch_size is not None:
            groups.setdefault(outcome.place.without("learning_rate", "batch_size"), []).append(outcome)
    names = _places.names_of(list(groups))
    verdicts = {verdict.place: verdict for verdict in found.verdicts}
    marks = {near.place: mark for near, _ in found.published if (mark := _mark(near))}
    panels: list[Panel] = []
    for place, outcomes in groups.items():
        verdict = verdicts.get(place.without("rank"))
        panels.append(
            Panel(
                one=found.one,
                other=found.other,
                rest=names[place],
                tuned_ahead=verdict.ahead if verdict else "",
                tuned_advantage=verdict.advantage.value if verdict else None,
                told=bool(verdict and verdict.advantage.sign),
                tiles=tuple(_tile(outcome, marks.get(outcome.place, "")) for outcome in outcomes),
            )
        )
    return panels


def _mark(near: Nearest) -> str:
    return near.fixed.name[0] if near.rate_factor <= NEAR and near.batch_factor <= NEAR else ""


def _tile(outcome: FixedOutcome, mark: str) -> Tile:
    place, gap = outcome.place, outcome.advantage
    return Tile(
        learning_rate=place.learning_rate or 0.0,
        batch_size=place.batch_size or 0,
        advantage=gap.value,
        low=gap.low,
        high=gap.high,
        ahead=outcome.ahead,
        flipped=outcome.flipped,
        diverged=outcome.diverged,
        mark=mark,
    )


def draw(numbers: FlipsMap) -> Figure:
    """Draw a panel for each pair: colour and marker say who is ahead, a frame that it contradicts the tuned order."""
    from welltuned.figures import _ink, _tiles

    with _ink.style():
        drawing, panels = _tiles.page(len(numbers.panels), len(numbers.rates), 0.45, 0.55)
        look_of = _ink.looks([(method, method) for method in numbers.methods])
        for axes, panel in zip(panels, numbers.panels, strict=True):
            _draw_panel(axes, panel, numbers, look_of)
        _legend(drawing, numbers, look_of)
        return drawing


def _draw_panel(axes: Axes, panel: Panel, numbers: FlipsMap, look_of: dict[str, Look]) -> None:
    from matplotlib.patches import Rectangle

    from welltuned.figures import _ink, _tiles

    tuned = f"tuned: {panel.tuned_ahead} ahead" if panel.tuned_ahead else "tuned: equal or unknown"
    rest = f", {panel.rest}" if panel.rest else ""
    axes.set_title(f"{panel.one} or {panel.other}{rest}\n{tuned}", fontsize=7)
    for name, look in look_of.items():
        ours = [tile for tile in panel.tiles if tile.ahead == name]
        x = [numbers.batches.index(tile.batch_size) - (0.2 if tile.mark else 0) for tile in ours]
        y = [numbers.rates.index(tile.learning_rate) for tile in ours]
        axes.plot(x, y, look.marker, color=look.colour, markersize=3.6, zorder=4)
    for tile in panel.tiles:
        x, y = numbers.batches.index(tile.batch_size), numbers.rates.index(tile.learning_rate)
        look = look_of[tile.ahead] if tile.ahead else None
        ground = look.colour if look else _ink.PAPER
        paper = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=_ink.PAPER, edgecolor=_ink.PAPER, linewidth=0.6)
        patch = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=ground, alpha=0.3, linewidth=0)
        _ink.tip(patch, _tip(panel, tile))
        axes.add_artist(paper)  # add_patch would search the limits anew for each tile
        axes.add_artist(patch)
        if tile.mark:
            axes.text(x + 0.25, y, tile.mark, ha="center", va="center", fontsize=6, fontweight="bold", zorder=5)
        if tile.flipped:
            frame: dict[str, Any] = {"fill": False, "edgecolor": _ink.INK, "linewidth": 1.0, "zorder": 6}
            axes.add_artist(Rectangle((x - 0.43, y - 0.4), 0.86, 0.8, **frame))
    _tiles.ticks(axes, numbers.batches, numbers.rates)


def _legend(drawing: Figure, numbers: FlipsMap, look_of: dict[str, Look]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from welltuned.figures import _ink

    handles: list[Any] = [
        Line2D([], [], linestyle="none", color=look_of[name].colour, marker=look_of[name].marker, label=f"{name} ahead")
        for name in numbers.methods
        if any(name in (panel.one, panel.other) for panel in numbers.panels)
    ]
    handles.append(Patch(fill=False, edgecolor=_ink.INK, linewidth=1.0, label="against the tuned order"))
    _ink.legend_of(drawing, handles, [str(handle.get_label()) for handle in handles], 6)


def _tip(panel: Panel, tile: Tile) -> str:
    where = f"{panel.rest}, " if panel.rest else ""
    text = f"{where}batch {tile.batch_size}, learning rate {rate_text(tile.learning_rate)}: "
    if not tile.ahead:
        return f"{text}{panel.one} and {panel.other} are equal"
    text += f"{tile.ahead} ahead by {nats_text(abs(tile.advantage))}"
    if tile.low is not None and tile.high is not None:
        span = (tile.low, tile.high) if tile.ahead == panel.one else (-tile.high, -tile.low)
        text += f" ({signed(span[0], 4)} to {signed(span[1], 4)})"
    return text + (f"; diverged: {', '.join(tile.diverged)}" if tile.diverged else "")


def caption(numbers: FlipsMap) -> str:
    """State how often a fixed configuration contradicts the tuned order, n, seeds, interval, and what is left out."""
    tiles = [tile for panel in numbers.panels for tile in panel.tiles]
    sure = sum(tile.low is not None and tile.high is not None and (tile.low > 0 or tile.high < 0) for tile in tiles)
    known = any(tile.low is not None for tile in tiles)
    fewest, most = numbers.seeds
    seeds = plural(most, "seed") if fewest == most else f"{fewest} to {most} seeds"
    text = (
        f"Who has the lower validation NLL where a study fixes learning rate and batch size: {len(tiles):,} shared "
        f"configurations, {seeds} each. A frame marks {sum(tile.flipped for tile in tiles)} that contradict the order "
        "of the tuned methods. "
    )
    text += (
        f"In {sure} of all, the 95 % interval over seeds excludes 0 (a single seed borrows the deviation of the "
        "repeated ones)."
        if known
        else "No configuration was repeated, so that there is no interval and only the order is counted."
    )
    undecided = [panel for panel in numbers.panels if not panel.told]
    if undecided:
        text += (
            f" In {len(undecided)} of {plural(len(numbers.panels), 'panel')} the tuned order is not told from noise."
        )
    text += _marks_text(tiles)
    diverged = sum(bool(tile.diverged) for tile in tiles)
    if diverged:
        text += f" {plural(diverged, 'configuration')} with a diverged trial counted in."
    equal = sum(not tile.ahead for tile in tiles)
    if equal:
        text += f" White: equal ({equal})."
    if len(tiles) < len(numbers.panels) * len(numbers.rates) * len(numbers.batches):
        text += " Grey: not run with both methods."
    drawn = len({(panel.one, panel.other) for panel in numbers.panels})
    if drawn < numbers.num_pairs:
        text += f" {drawn} of {numbers.num_pairs} pairs drawn."
    return text + (f" {plural(numbers.num_left_out, 'panel')} left out." if numbers.num_left_out else "")


def _marks_text(tiles: Sequence[Tile]) -> str:
    marks = {tile.mark for tile in tiles if tile.mark}
    shown = [
        f"{fixed.name[0]}: near the {fixed.name}'s ({rate_text(fixed.learning_rate)}, batch {fixed.batch_size})"
        for fixed in PUBLISHED
        if fixed.name[0] in marks
    ]
    return f" {'; '.join(shown)}; rank aside." if shown else ""


def alt(numbers: FlipsMap) -> str:
    """Read out every panel's counts."""
    return sentences(_panel_text(panel) for panel in numbers.panels)


def _panel_text(panel: Panel) -> str:
    counts = {name: sum(tile.ahead == name for tile in panel.tiles) for name in (panel.one, panel.other)}
    rest = f", {panel.rest}" if panel.rest else ""
    ahead = " and ".join(f"{name} ahead in {counts[name]}" for name in (panel.one, panel.other))
    text = f"{panel.one} or {panel.other}{rest}, {plural(len(panel.tiles), 'shared configuration')}: {ahead}"
    if not panel.tuned_ahead or panel.tuned_advantage is None:
        return f"{text}; no tuned order"
    share = percent_text(panel.num_flipped / len(panel.tiles))
    told = "" if panel.told else ", within noise"
    return (
        f"{text}; tuned, {panel.tuned_ahead} is ahead by {nats_text(abs(panel.tuned_advantage))} nats{told}, which "
        f"{panel.num_flipped} of them ({share}) contradict"
    )


def rows(numbers: FlipsMap) -> list[dict[str, Any]]:
    """Return a row for each tile."""
    return [
        {
            "method": panel.one,
            "other": panel.other,
            "where": panel.rest,
            "batch_size": tile.batch_size,
            "learning_rate": tile.learning_rate,
            "advantage_nats": tile.advantage,
            "advantage_low": tile.low,
            "advantage_high": tile.high,
            "ahead": tile.ahead,
            "tuned_ahead": panel.tuned_ahead,
            "tuned_advantage_nats": panel.tuned_advantage,
            "flipped": tile.flipped,
            "diverged": " ".join(tile.diverged),
            "published": tile.mark,
        }
        for panel in numbers.panels
        for tile in panel.tiles
    ]


FIGURE = Picture("Which method a fixed configuration finds ahead", 50, compute, draw, caption, alt, rows)
