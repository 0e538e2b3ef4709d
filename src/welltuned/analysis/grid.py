"""What a table says of each configuration, and of each cell once its learning rate is tuned.

A configuration is one setting of everything but the seeds. A cell is one of everything but the learning rate and the
seeds; tuning it means taking the rate with the best mean over the runs that may select, and reading its value off the
reruns that selection never saw, where there are any.

How sure a mean is comes from its own seeds (sd / sqrt(n), n - 1 degrees of freedom). A mean over one seed borrows the
standard deviation pooled over all repeated configurations of the same problem, which assumes that seeds matter alike
in all of them; where nothing was repeated its error is unknown.
"""

import dataclasses
import functools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from welltuned.analysis.estimate import CONFIDENCE, Estimate, Uncertain, t_interval, welch
from welltuned.analysis.optimum import Optimum, estimate
from welltuned.analysis.runs import Pairs, Run, Table
from welltuned.analysis.wording import label

# Tables whose grouping is remembered: a report asks some 60 analyses and claims about one table and parts of it.
TABLES = 64
NUMERIC = ("learning_rate", "batch_size", "rank", "num_train")


@dataclass(frozen=True)
class Place:
    """A configuration, or a part of it: what is not asked about, or not known, is None or left out."""

    problem: Pairs
    setting: Pairs  # only what varies within some method of the table
    num_train: int | None
    method: str
    rank: int | None
    batch_size: int | None
    learning_rate: float | None

    def without(self, *names: str) -> "Place":
        """Return the place with some of its parts removed, from problem and setting too."""
        fields: dict[str, Any] = {name: None for name in names if name in NUMERIC}
        if "method" in names:
            fields["method"] = ""
        return dataclasses.replace(
            self,
            problem=tuple(pair for pair in self.problem if pair[0] not in names),
            setting=tuple(pair for pair in self.setting if pair[0] not in names),
            **fields,
        )

    @property
    def label(self) -> str:
        """Name the place in words, without its problem."""
        parts = [("method", self.method)] if self.method else []
        parts += [
            (name, value)
            for name in ("rank", "batch_size", "learning_rate")
            if (value := getattr(self, name)) is not None
        ]
        return label((*parts, *self.setting))


@dataclass(frozen=True)
class Mean:
    """One configuration over its seeds. `sd` is None under two seeds or where the table does not say.

    A seed that several runs carry counts once, with their mean; where all carry the same one, each run counts, and the
    spread is that of the software and the machine.
    """

    place: Place
    value: float
    sd: float | None
    num_seeds: int
    num_diverged: int
    by_seed: tuple[tuple[str, float], ...]  # of the runs that name their seed
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Tuned:
    """A cell at its tuned learning rate (None where the table has no rates)."""

    place: Place
    value: float  # over the reruns where `fresh`, else what was selected on, which is too good
    error: float | None  # standard error of `value` over seeds
    dof: float | None
    own_error: bool  # the error is of this cell's own seeds; False: pooled over other configurations, or unknown
    fresh: bool
    num_seeds: int
    by_seed: tuple[tuple[str, float], ...]
    selection_value: float | None
    optimum: Optimum | None  # None where the table's rates are unknown
    num_rates: int
    num_diverged: int  # of all its runs

    @property
    def uncertain(self) -> Uncertain:
        """Return the value with what is known of its error."""
        return Uncertain(self.value, self.error, self.dof)


@dataclass(frozen=True)
class Noise:
    """The standard deviation over seeds, pooled over the repeated configurations of a problem."""

    sd: float
    dof: int


@functools.lru_cache(maxsize=TABLES)
def places(table: Table) -> tuple[Place, ...]:
    """Return the place of every run, in the runs' order, with only such settings as vary within some method."""
    values: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for method, setting in {(run.method, run.setting) for run in table.runs}:
        for name, value in setting:
            values[method, name].add(value)
    varied = {name for (_, name), found in values.items() if len(found) > 1}
    return tuple(
        Place(
            problem=run.problem,
            setting=tuple(pair for pair in run.setting if pair[0] in varied) if varied else (),
            num_train=run.num_train,
            method=run.method,
            rank=run.rank,
            batch_size=run.batch_size,
            learning_rate=run.learning_rate,
        )
        for run in table.runs
    )


@functools.lru_cache(maxsize=TABLES)
def means(table: Table, fresh: bool = False) -> tuple[Mean, ...]:
    """Return every configuration over its seeds: of the runs that may select, or of the `fresh` reruns.

    A table none of whose runs may select (accuracies of reruns, say) gives all of them either way.
    """
    where = places(table)
    wanted = not fresh and any(run.selected for run in table.runs)
    groups: defaultdict[Place, list[Run]] = defaultdict(list)
    for index, run in enumerate(table.runs):
        if run.selected == wanted:
            groups[where[index]].append(run)
    return tuple(_mean(place, groups[place]) for place in sorted(groups, key=_order))


def _order(place: Place) -> tuple[Any, ...]:
    numbers = [getattr(place, name) for name in ("num_train", "rank", "batch_size", "learning_rate")]
    sizes = [-math.inf if number is None else number for number in numbers]
    return (place.problem, place.setting, place.method, *sizes)


def _mean(place: Place, runs: Sequence[Run]) -> Mean:
    num_diverged = sum(run.diverged for run in runs)
    seeds = _repeated_seeds(runs)
    if seeds:
        values = tuple(seeds.values())
        middle, sd = statistics.fmean(values), statistics.stdev(values)
        return Mean(place, middle, sd, len(seeds), num_diverged, tuple(seeds.items()), tuple(runs))
    total = sum(run.num_seeds for run in runs)
    value = math.fsum(run.num_seeds * run.value for run in runs) / total
    known = all(run.num_seeds == 1 or run.sd is not None for run in runs)
    squares = math.fsum(
        (run.num_seeds - 1) * (run.sd or 0.0) ** 2 + run.num_seeds * (run.value - value) ** 2 for run in runs
    )
    return Mean(
        place=place,
        value=value,
        sd=math.sqrt(squares / (total - 1)) if known and total > 1 else None,
        num_seeds=total,
        num_diverged=num_diverged,
        by_seed=tuple((run.seed, run.value) for run in runs if run.seed is not None and run.num_seeds == 1),
        runs=tuple(runs),
    )


def _repeated_seeds(runs: Sequence[Run]) -> dict[str, float]:
    """Return the mean of every seed, where several are named and one of them more than once; else nothing."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for run in runs:
        if run.seed is None or run.num_seeds != 1:
            return {}
        found[run.seed].append(run.value)
    return {seed: statistics.fmean(values) for seed, values in found.items()} if 1 < len(found) < len(runs) else {}


def noise(members: Iterable[Mean]) -> dict[Pairs, Noise]:
    """Return the pooled standard deviation over seeds of each problem that has a repeated, undiverged configuration."""
    squares: defaultdict[Pairs, float] = defaultdict(float)
    dofs: defaultdict[Pairs, int] = defaultdict(int)
    for member in members:
        if member.sd is not None and not member.num_diverged:
            squares[member.place.problem] += (member.num_seeds - 1) * member.sd**2
            dofs[member.place.problem] += member.num_seeds - 1
    return {problem: Noise(math.sqrt(squares[problem] / dof), dof) for problem, dof in dofs.items() if dof}


def uncertain(member: Mean, pooled: dict[Pairs, Noise]) -> Uncertain:
    """Return a configuration's mean with its standard error: of its own seeds, else pooled, else unknown."""
    if member.sd is not None:
        return Uncertain(member.value, member.sd / math.sqrt(member.num_seeds), member.num_seeds - 1)
    shared = pooled.get(member.place.problem)
    if shared is None:
        return Uncertain(member.value, None, None)
    return Uncertain(member.value, shared.sd / math.sqrt(member.num_seeds), shared.dof)


@functools.lru_cache(maxsize=TABLES)
def tuned(table: Table) -> tuple[Tuned, ...]:
    """Return every cell at its tuned learning rate; a cell whose rate cannot be told is left out.

    A cell with reruns was tuned to the rate that they share. Else the best mean decides; the first of equals.
    """
    select: defaultdict[Place, list[Mean]] = defaultdict(list)
    reruns: defaultdict[Place, list[Mean]] = defaultdict(list)
    for member in means(table) if any(run.selected for run in table.runs) else ():
        select[member.place.without("learning_rate")].append(member)
    for member in means(table, fresh=True):
        reruns[member.place.without("learning_rate")].append(member)
    pooled = noise([member for group in (*select.values(), *reruns.values()) for member in group])
    cells = sorted({*select, *reruns}, key=_order)
    found = [_tuned(table, select.get(cell, []), reruns.get(cell, []), pooled) for cell in cells]
    return tuple(cell for cell in found if cell is not None)


def _tuned(table: Table, select: Sequence[Mean], reruns: Sequence[Mean], pooled: dict[Pairs, Noise]) -> Tuned | None:
    if reruns:
        most = max(member.num_seeds for member in reruns)
        candidates = [member for member in reruns if member.num_seeds == most]
        if len(candidates) > 1:
            return None  # reruns at several rates alike: which was selected is not known
        at = candidates[0]
    else:
        at = max(select, key=lambda member: table.sign * member.value)
    sure = uncertain(at, pooled)
    before = next((one for one in select if one.place.learning_rate == at.place.learning_rate), None)
    return Tuned(
        place=at.place,
        value=at.value,
        error=sure.error,
        dof=sure.dof,
        own_error=at.sd is not None,
        fresh=bool(reruns),
        num_seeds=at.num_seeds,
        by_seed=at.by_seed,
        selection_value=before.value if before else None,
        optimum=optimum_of(table, select),
        num_rates=len(select),
        num_diverged=sum(member.num_diverged for member in (*select, *reruns)),
    )


def optimum_of(table: Table, cell: Sequence[Mean], tolerance: float | None = None) -> Optimum | None:
    """Estimate the optimal learning rate of one cell's configurations; None where the table has no rates."""
    points = sorted(
        (member.place.learning_rate, -table.sign * member.value, member.num_diverged)
        for member in cell
        if member.place.learning_rate is not None
    )
    if not points:
        return None
    found = estimate(
        [rate for rate, _, _ in points],
        [loss for _, loss, _ in points],
        tolerance=tolerance,
        num_diverged=sum(count for _, _, count in points),
    )
    return dataclasses.replace(found, best_value=-table.sign * found.best_value)


def advantage(
    one: Mean | Tuned, other: Mean | Tuned, table: Table, pooled: dict[Pairs, Noise], level: float = CONFIDENCE
) -> Estimate:
    """Return by how much `one` is better than `other`, in the metric's unit, with an interval over seeds.

    Paired by seed (Student's t of the differences) where both have the same two or more seeds, since these share data
    order and start; else Welch's.
    """
    ours, theirs = dict(one.by_seed), dict(other.by_seed)
    if len(ours) > 1 and ours.keys() == theirs.keys() and len(ours) == one.num_seeds == other.num_seeds:
        gaps = [table.sign * (ours[seed] - theirs[seed]) for seed in ours]
        error = statistics.stdev(gaps) / math.sqrt(len(gaps))
        return t_interval(statistics.fmean(gaps), error, len(gaps) - 1, f"paired t over {len(gaps)} seeds", level)
    gap = welch(_uncertain(one, pooled), _uncertain(other, pooled), level)
    if gap.low is not None and not (_own(one) and _own(other)):
        gap = dataclasses.replace(gap, basis=f"{gap.basis}, spread pooled over other configurations")
    return gap if table.sign == 1 else gap.negated()


def _own(one: Mean | Tuned) -> bool:
    return one.own_error if isinstance(one, Tuned) else one.sd is not None


def _uncertain(one: Mean | Tuned, pooled: dict[Pairs, Noise]) -> Uncertain:
    return one.uncertain if isinstance(one, Tuned) else uncertain(one, pooled)


def cells(members: Iterable[Mean]) -> dict[Place, tuple[Mean, ...]]:
    """Group configurations into cells: everything but the learning rate, which ascends within each."""
    found: defaultdict[Place, list[Mean]] = defaultdict(list)
    for member in members:
        found[member.place.without("learning_rate")].append(member)
    return {cell: tuple(group) for cell, group in found.items()}


def pooled_noise(table: Table) -> dict[Pairs, Noise]:
    """Return the noise over all of a table's configurations, selection runs and reruns apart."""
    selected = means(table) if any(run.selected for run in table.runs) else ()
    return noise((*selected, *means(table, fresh=True)))
