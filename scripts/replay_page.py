"""Write docs/tuner.md and its figure from replays on recorded surfaces: `python -m scripts.replay_page` (make replay).

Every number of that page comes from here. What misses its target is said to, with what is known of the reason.
"""

import argparse
import hashlib
import itertools
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scripts import fidelities, measure_proxies, replays, surface_tables
from scripts.replays import BUDGETS, HARDER, NUM_REPLAYS, PLAIN, Case, Contender, Score, Variant
from scripts.surface_tables import Surface

from welltuned import rng
from welltuned.executors.replay import HALF_WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
PAGE, FIGURE = ROOT / "docs" / "tuner.md", ROOT / "docs" / "tuner" / "regret.png"
CACHE = ROOT / "runs" / "replays"
HARDER_TITLE = "## Harder: a wrong prior, and more noise"
MISSED_TITLE = "## A box that misses the best"
BEYOND = (
    f"Each replay offers the {replays.FEW} lowest or the {replays.FEW} highest of the nine recorded learning rates, "
    "and what is chosen is judged by the best of all nine. Guided goes on past an end where the best may lie there "
    "(`reopen`, its default); in all other tables it may not, since its rivals cannot. *Best inside* is what choosing "
    "without error among the offered would come to. A rate beyond the nine has no recorded result, costs its full "
    "price here and tells nothing."
)
TIMES = (
    "Budgets are counted in rows, as the searches plan them. In time, small rounds cost more: a pack takes as long as "
    f"full runs of its size in a wide pack, and {HALF_WIDTH:g} times its longest trial on top (`Clock` in "
    "executors/replay.py, from the gain of packing in performance.md). Mean times of the same replays, in full runs of "
    "a wide pack; in brackets the rounds, after each of which a search looks at what came out:"
)
WIDTHS = (
    "Not all of guided comes from development surfaces alone: where its prior lies does, but how wide it is comes from "
    "the rules' errors, which are those on held-out data, these surfaces among them. guided.md has what that changed."
)
BENT = (
    "*With curvature*: guided is told the largest eigenvalue of each method at the start (`[search] curvature`, "
    "surfaces/curvature), whose exponent and error come from development surfaces (curvature.md). *Unpublished*: no "
    "method's shift against LoRA is known, as of a new one. What measuring the curvature costs is not in the budget."
)
RESAMPLES = 2000
MARKERS = "osD^v<>PX*"
PERCENTS = (1, 2, 5, 10, 20, 50, 100, 200)  # of the figure's axis
LINE = 120  # letters
OURS, RIVAL = "guided", "Gaussian process"
RULES = ("rule alone", "whole grid")  # no rivals: one trains nothing, the other everything
ALONE, TOGETHER, NEVER_WORSE = 0.7, 0.4, 1.2  # the targets: ours over the best rival, and over the Gaussian process
SHORT_RUNS = (
    "A *probe* has a course of its own with a schedule annealed to its end; a *stopped* run is the beginning of a full "
    "one, compared at the same share of one schedule. *Correlation* is Spearman's between the short runs' losses and "
    "the full runs', over all batch sizes, learning rates and seeds that finished, and again among the 40 % best full "
    "runs; *regret* is that of the full run whose short run was best. Searches use probes and stop nothing in the "
    "middle (decisions/0041-no-trial-is-stopped-in-the-middle.md). The rows of a surface share its data: it is "
    "one piece of evidence."
)
PROXIES = (
    "A *proxy* is tuned in the target's stead: every batch size and learning rate of it, its best batch size kept and "
    "its best rate moved by the rules (`transfer/proxy.py`). *Regret* is the target's at the rate that comes out, and "
    "*with probes* at the best of it and the two rates beside it; medians and worst over methods, losses averaged over "
    "seeds. *Cost* is that of the proxy's sweep and the probes, in operations, over that of the target's own sweep: a "
    "tuner spends less on either. `python -m scripts.measure_proxies` lists every pair."
)
SMALLER_MODEL = (
    "Aimed at, for a smaller model in the large one's stead: a regret of at most 1 % at 25 % of the cost. Losses are "
    "means of three seeds near the best, whose spread is in surfaces/README.md: one pair decides nothing."
)

Table = Mapping[Contender, Sequence[Score]]


@dataclass(frozen=True)
class Replays:
    """How many replays of everything, where finished ones are kept, and whether new ones are made."""

    number: int
    cache: Path
    only_cached: bool = False

    def scores(self, case: Case, one: Contender, variant: Variant) -> list[Score] | None:
        """Return a contender's replays; None where they were not made, and are not to be."""
        if self.only_cached and not replays.cached(case, one, variant, self.number, self.cache).exists():
            return None
        return replays.scores(case, one, variant, self.number, self.cache)

    def table(self, case: Case, variant: Variant = PLAIN) -> Table:
        """Return the replays of all contenders on a case, but for those that were not made."""
        found = {one: self.scores(case, one, variant) for one in replays.available()}
        return {one: scores for one, scores in found.items() if scores is not None}

    def tables(self, cases: Sequence[Case]) -> list[Table]:
        """Return the same for each case, of the contenders that were replayed on all of them."""
        found = [self.table(case) for case in cases]
        everywhere = [one for one in found[0] if all(one in table for table in found)]
        return [{one: table[one] for one in everywhere} for table in found]


@dataclass(frozen=True)
class Ratio:
    """The areas of one contender over those of another, with the 95 % interval over replays and cases."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def main() -> None:
    """Replay what was not replayed yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replays", type=int, default=NUM_REPLAYS, help="of each contender, budget and case")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where finished replays are kept")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--cached", action="store_true", help="replay nothing: write what was replayed before")
    arguments = parser.parse_args()
    surfaces = surface_tables.load()
    made = Replays(arguments.replays, arguments.cache, arguments.cached)
    if not made.only_cached:
        with ProcessPoolExecutor(arguments.workers) as pool:
            list(pool.map(made.scores, *zip(*wanted(surfaces), strict=True)))
    text, regrets = page(surfaces, made)
    draw(regrets)
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE}, of code {_code()}")


def wanted(surfaces: Sequence[Surface]) -> list[tuple[Case, Contender, Variant]]:
    """Return all replays that the page reads; what is missing here is made when the page asks for it."""
    alone, methods = singles(surfaces), groups(surfaces)
    held_out = [case for case in alone if case.split == "held out"]
    bent = [case for case in methods if case.sharpness]
    everyone = replays.available()
    ours, other = replays.GUIDED, next(one for one in everyone if one.name == RIVAL)
    permuted = [variant for variant in HARDER if variant.permuted]
    noisier = [variant for variant in HARDER if not variant.permuted]
    return [
        *itertools.product(methods, everyone, [PLAIN]),
        *itertools.product(methods, [ours], permuted),
        *itertools.product(bent, [replays.BENT], [PLAIN, replays.UNPUBLISHED]),
        *itertools.product(bent, [ours], [replays.UNPUBLISHED]),
        *itertools.product(alone, everyone, [PLAIN]),
        *itertools.product(held_out, [ours, other], noisier),
        *itertools.product(held_out, [ours, replays.REOPENING], [replays.MISSED]),
    ]


# Cases ---------------------------------------------------------------------------------------------------------------


def singles(surfaces: Sequence[Surface]) -> list[Case]:
    """Return the cases of one method each; one number of rows has nothing for probes."""
    return [replays.single(surface) for surface in surfaces if len(surface.recording.num_train) > 1]


def groups(surfaces: Sequence[Surface], fewest: int = 2) -> list[Case]:
    """Return the cases of all methods that were recorded with one base, rank and number of rows."""
    found: dict[tuple[object, ...], list[Surface]] = {}
    for surface in surfaces:
        one = surface.recording
        found.setdefault((one.base, one.rank, max(one.num_train)), []).append(surface)
    return [replays.together(members) for members in found.values() if len(members) >= fewest]


# Statistics ----------------------------------------------------------------------------------------------------------


def areas(tables: Sequence[Table], contender: Contender) -> list[list[float]]:
    """Return a contender's areas by case and replay."""
    return [list(replays.area(table[contender]).values()) for table in tables]


def ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Ratio:
    """Return the mean of one contender's areas over another's; replays are drawn anew within each case, in pairs.

    Replays of one number have the same candidates and seeds, hence the pairs. Cases are not drawn anew: with few of
    them the interval says how sure the ratio is on these, and nothing of others.
    """
    stream = rng.stream(0, "replay page", "bootstrap")
    drawn: list[tuple[float, float]] = []
    for _ in range(RESAMPLES):
        picks = [stream.integers(0, len(case), len(case)) for case in ours]
        drawn.append((_mean(ours, picks), _mean(theirs, picks)))
    ratios = [one / other for one, other in drawn]
    everything = [np.arange(len(case)) for case in ours]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Ratio(_mean(ours, everything) / _mean(theirs, everything), float(low), float(high))


def _mean(by_case: Sequence[Sequence[float]], picks: Sequence[np.ndarray]) -> float:
    return statistics.fmean(float(np.mean(np.asarray(case)[pick])) for case, pick in zip(by_case, picks, strict=True))


def rivals(table: Table) -> list[Contender]:
    """Return the contenders that spend a budget and are not ours."""
    return [one for one in table if one.name != OURS and one.name not in RULES]


def named(table: Table, name: str) -> Contender | None:
    """Return a contender by its name; None where its search is not there."""
    return next((one for one in table if one.name == name), None)


def best_rival(tables: Sequence[Table]) -> Contender:
    """Return the rival with the smallest mean area over all cases."""
    return min(rivals(tables[0]), key=lambda one: statistics.fmean(itertools.chain(*areas(tables, one))))


# The page ------------------------------------------------------------------------------------------------------------


def page(surfaces: Sequence[Surface], made: Replays) -> tuple[str, Mapping[str, Table]]:
    """Return the page's text, and the tables of its figure by title."""
    parts = [_head(surfaces, made.number)]
    pictured: dict[str, Table] = {}
    for split in ("held out", "development"):
        mine = [surface for surface in surfaces if surface.split == split]
        parts.append(f"## One method at a time, {split} surfaces")
        cases = singles(mine)
        tables = made.tables(cases) if cases else []
        if not tables or not tables[0]:
            parts.append(_filled(f"No {split} surface is recorded and replayed yet, so nothing is claimed here."))
            continue
        parts += [_results(tables, cases), *_targets(tables, ALONE)]
        pictured |= {case.name: table for case, table in zip(cases, tables, strict=True)}
        if split == "held out":
            parts += [_filled(WIDTHS), "### What it takes in time", _filled(TIMES), _times(tables, cases)]
            parts += [f"![Regret against the budget]({FIGURE.relative_to(PAGE.parent)})", HARDER_TITLE]
            parts += [*_harder(cases, tables, made), MISSED_TITLE, _filled(BEYOND), *_beyond(cases, made)]
    parts += ["## Methods tuned together", *_together(surfaces, made)]
    parts += ["## What a short run tells of a full one", _filled(SHORT_RUNS), fidelities.section(surfaces)]
    parts += ["## What a proxy is worth", _filled(PROXIES), measure_proxies.section(surfaces)]
    parts += [measure_proxies.models(surfaces), _filled(SMALLER_MODEL)]
    parts += ["## What is not measured here", _missing(surfaces, made)]
    return "\n\n".join(parts) + "\n", pictured


def _head(surfaces: Sequence[Surface], num_replays: int) -> str:
    names = ", ".join(f"{one.recording.surface} ({max(one.recording.num_train):,} rows)" for one in surfaces)
    text = (
        f"How good is a search for its budget? Each contender chose batch size and learning rate {num_replays} times "
        "on recorded surfaces (surfaces/README.md) instead of by training; `make replay` writes this page. A "
        "*run-equivalent* is the rows that one full trial reads, its validations included. The *regret* of a choice "
        "is how much higher its loss is than that of the best candidate, both averaged over the seeds that the replay "
        "did not select on, and smoothed over learning rates. The *area* is the mean regret over the logarithm of the "
        f"budget from {BUDGETS[0]} to {BUDGETS[-1]} run-equivalents. Each replay offers {replays.OFFERED} neighbouring "
        "learning rates of the recorded nine, drawn anew: the recorded ones are centred by a probe, so that their "
        f"middle would give the optimum away. {replays.WIDTH} trials of a method are asked for at once, by all; all "
        "begin with what the learning-rate rules expect: guided has them as its prior, the others train the rules' "
        "candidate first (`warm_start`)."
    )
    recorded = _filled(
        f"Recorded completely: {names or 'nothing yet'}. The code of the searches, the rules and the replays has "
        f"the hash {_code()}: where it differs from what the program prints, the page is of other code."
    )
    return f"# Searches, replayed\n\n{_filled(text)}\n\n{recorded}"


def _code() -> str:
    """Return the hash of all code that the numbers depend on."""
    digest = hashlib.sha256()
    for name in replays.DECIDING:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _results(tables: Sequence[Table], cases: Sequence[Case]) -> str:
    """Return the table of regrets by budget, over all cases."""
    noise = statistics.fmean(case.recorded.sd_log for case in cases)
    lines = [
        "| search | " + " | ".join(f"{budget} run-eq." for budget in BUDGETS) + " | area | worst 10 % at 16 |",
        "| --- |" + " ---: |" * (len(BUDGETS) + 2),
    ]
    for one in tables[0]:
        lines.append(f"| {one.name} | {' | '.join(_row(tables, one))} |")
    where = f"{_counted(len(cases), 'surface')} ({'; '.join(case.name for case in cases)})"
    note = (
        f"Mean regrets in percent over {where}. One seed's "
        f"loss is off by {100 * noise:.1f} % (one standard deviation): a choice between candidates that are nearer "
        "than that is a matter of luck. *Worst 10 %* is the mean of the largest tenth of the regrets."
    )
    return "\n".join(lines) + "\n\n" + _filled(note)


def _row(tables: Sequence[Table], one: Contender) -> Iterator[str]:
    found = [score for table in tables for score in table[one]]
    if len(one.budgets) == 1:  # not a matter of the budget
        cost = statistics.fmean(score.cost for score in found)
        regrets = [score.regret for score in found]
        yield f"{_percent(statistics.fmean(regrets))} (at {cost:.3g})"
        yield from [""] * len(BUDGETS)
        yield _percent(_worst(regrets))
        return
    for budget in BUDGETS:
        yield _percent(statistics.fmean(score.regret for score in found if score.budget == budget))
    yield _percent(statistics.fmean(itertools.chain(*areas(tables, one))))
    yield _percent(_worst([score.regret for score in found if score.budget == BUDGETS[-1]]))


def _times(tables: Sequence[Table], cases: Sequence[Case]) -> str:
    """Return the table of the time that each budget takes."""
    lines = ["| search | " + " | ".join(f"{budget} run-eq." for budget in BUDGETS) + " |"]
    lines.append("| --- |" + " ---: |" * len(BUDGETS))
    for one in (one for one in tables[0] if len(one.budgets) > 1):
        cells: list[str] = []
        for budget in BUDGETS:
            found = [
                (score.seconds / case.full_seconds, score.num_rounds)
                for table, case in zip(tables, cases, strict=True)
                for score in table[one]
                if score.budget == budget
            ]
            seconds, rounds = (statistics.fmean(values) for values in zip(*found, strict=True))
            cells.append(f"{seconds:.1f} ({rounds:.1f})")
        lines.append(f"| {one.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _worst(regrets: Sequence[float]) -> float:
    return statistics.fmean(sorted(regrets)[-max(1, len(regrets) // 10) :])


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _targets(tables: Sequence[Table], target: float) -> Iterator[str]:
    """Say whether ours has at most so much of the best rival's area, and what of that area is luck."""
    ours = named(tables[0], OURS)
    if ours is None or not rivals(tables[0]):
        yield _filled("The guided search or its rivals were not replayed here yet: nothing to compare.")
        return
    best = best_rival(tables)
    found = ratio(areas(tables, ours), areas(tables, best))
    word = "reached" if found.high <= target else "**missed**" if found.low > target else "not decided"
    yield _filled(
        f"Target: guided has at most {target:g} x the area of the best rival, which is {best.name} here. Measured: "
        f"{found} (95 % interval over replays): {word}."
    )
    grid = named(tables[0], "whole grid")
    if grid is not None:
        floor = statistics.fmean(score.regret for table in tables for score in table[grid])
        mean, other = (statistics.fmean(itertools.chain(*areas(tables, one))) for one in (ours, best))
        yield _filled(
            f"Whoever trains all candidates on one seed and takes the lowest loss has a regret of {_percent(floor)} %: "
            f"so much is luck with that seed. Guided's area is {_percent(mean)} %, the best rival's "
            f"{_percent(other)} %."
        )


def _harder(cases: Sequence[Case], plain: Sequence[Table], made: Replays) -> Iterator[str]:
    ours = named(plain[0], OURS)
    other = named(plain[0], RIVAL)
    lines = ["| guided, with | area | Gaussian process | ratio |", "| --- | ---: | ---: | ---: |"]
    for variant in HARDER:
        if variant.permuted or ours is None or other is None:
            continue  # one method at a time has none to exchange with
        mine = [made.scores(case, ours, variant) for case in cases]
        theirs = [made.scores(case, other, variant) for case in cases]
        if any(scores is None for scores in (*mine, *theirs)):
            continue
        a = areas([{ours: scores or ()} for scores in mine], ours)
        b = areas([{other: scores or ()} for scores in theirs], other)
        means = [statistics.fmean(itertools.chain(*found)) for found in (a, b)]
        lines.append(f"| {variant.name} | {_percent(means[0])} | {_percent(means[1])} | {ratio(a, b)} |")
    if len(lines) == 2:
        yield _filled("Not replayed yet.")
        return
    yield "\n".join(lines)
    yield _filled(f"Target: never more than {NEVER_WORSE:g} x the area of the Gaussian process.")


def _beyond(cases: Sequence[Case], made: Replays) -> Iterator[str]:
    """Say what a search comes to whose offered learning rates do not hold the best."""
    lines = ["| search | " + " | ".join(f"{budget} run-eq." for budget in BUDGETS) + " | area |"]
    lines.append("| --- |" + " ---: |" * (len(BUDGETS) + 1))
    found: list[list[list[float]]] = []
    for one in (replays.GUIDED, replays.REOPENING):
        scores = [made.scores(case, one, replays.MISSED) for case in cases]
        if any(each is None for each in scores):
            yield _filled("Not replayed yet.")
            return
        tables = [{one: each or ()} for each in scores]
        found.append(areas(tables, one))
        lines.append(f"| {one.name} | {' | '.join(list(_row(tables, one))[:-1])} |")
    inside = statistics.fmean(replays.best_inside(case, replays.MISSED, made.number) for case in cases)
    yield "\n".join([*lines, f"| best inside | {_percent(inside)} |" + " |" * len(BUDGETS)])
    yield _filled(
        f"Mean regrets in percent over the same surfaces. The area is {ratio(found[1], found[0])} x as large."
    )


def _bent(case: Case, made: Replays) -> Iterator[str]:
    """Say what knowing the curvature is worth where methods are tuned together."""
    if not case.sharpness:
        yield _filled("The curvature of these was not measured.")
        return
    lines = ["| | guided | with curvature | ratio |", "| --- | ---: | ---: | ---: |"]
    for variant, title in ((PLAIN, "published shifts"), (replays.UNPUBLISHED, "unpublished")):
        scores = {one: made.scores(case, one, variant) for one in (replays.GUIDED, replays.BENT)}
        if any(each is None for each in scores.values()):
            continue
        without, with_it = (areas([{one: each or ()}], one) for one, each in scores.items())
        means = [_percent(statistics.fmean(itertools.chain(*each))) for each in (without, with_it)]
        lines.append(f"| {title} | {' | '.join(means)} | {ratio(with_it, without)} |")
    yield "\n".join(lines) if len(lines) > 2 else _filled("Not replayed with curvature yet.")


def _together(surfaces: Sequence[Surface], made: Replays) -> Iterator[str]:
    cases = groups(surfaces)
    if not cases:
        yield _filled("No two methods are completely recorded on one base and rank yet.")
    for case in cases:
        (table,) = made.tables([case])
        known = "; the constants of guided come from the development ones among them" if case.split == "mixed" else ""
        what = f"{case.name}; rank {case.arms[0].configs[0].rank} ({case.split} surfaces{known})"
        yield _filled(f"{what}. Each method has the budget of the column.")
        if not table:
            yield _filled("Not replayed yet.")
            continue
        yield _results([table], [case])
        yield from _targets([table], TOGETHER)
        ours = named(table, OURS)
        permuted = next(variant for variant in HARDER if variant.permuted)
        scores = None if ours is None else made.scores(case, ours, permuted)
        if ours is not None and scores is not None:
            found = ratio(areas([{ours: scores}], ours), areas([table], best_rival([table])))
            yield _filled(f"With every method's prior in the next one's place, guided has {found} x that area.")
        yield _filled(BENT if case is cases[0] else "Areas with curvature:")
        yield from _bent(case, made)


def _missing(surfaces: Sequence[Surface], made: Replays) -> str:
    text = (
        "Real seconds: a full run's is the median of a machine with other work on it. Probes shorter than the smallest "
        "recorded number of rows are read off a line. A route through a smaller model with a search's budget "
        "instead of a whole sweep. Optuna's samplers have their own defaults behind the warm start: TPE draws its "
        "first 10 trials at random."
    )
    for case in singles(surfaces):
        table = made.table(case)
        absent = [one.name for one in replays.CONTENDERS if one not in table]
        if absent:
            text += f" Not replayed yet on {case.name}: {', '.join(absent)}."
    return _filled(text)


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _filled(text: str) -> str:
    return textwrap.fill(text, LINE, break_on_hyphens=False, break_long_words=False)


# The figure ----------------------------------------------------------------------------------------------------------


def draw(pictured: Mapping[str, Table]) -> None:
    """Draw regret against budget, a panel for each surface, with the noise of one seed as a line."""
    if not pictured:
        return
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    columns = min(3, len(pictured) + 1)  # the last place is the legend's
    rows = -(-(len(pictured) + 1) // columns)
    figure, places = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False)
    panels = list(places.flat)
    for panel, (title, table) in zip(panels, pictured.items(), strict=False):
        _draw_one(panel, table)
        panel.set_title(title, fontsize=8)
        panel.set_xlabel("run-equivalents")
        panel.set_ylabel("mean regret, percent")
    for panel in panels[len(pictured) :]:
        panel.axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.tight_layout()
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=120, metadata={"Software": None})


def _draw_one(panel: "Axes", table: Table) -> None:
    for number, (one, found) in enumerate(table.items()):
        if len(one.budgets) > 1:
            means = [100 * statistics.fmean(s.regret for s in found if s.budget == b) for b in BUDGETS]
            width = 2.5 if one.name == OURS else 1
            panel.plot(BUDGETS, means, marker=MARKERS[number % len(MARKERS)], ms=4, linewidth=width, label=one.name)
        else:
            level = 100 * statistics.fmean(score.regret for score in found)
            panel.axhline(level, linestyle=":" if one.search == replays.RULE else "--", color="0.5", label=one.name)
    panel.set(xscale="log", yscale="log", xticks=BUDGETS, xticklabels=map(str, BUDGETS))
    panel.set(yticks=PERCENTS, yticklabels=map(str, PERCENTS), ylim=(PERCENTS[0], PERCENTS[-1]))
    panel.minorticks_off()


if __name__ == "__main__":
    main()
