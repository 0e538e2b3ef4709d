"""Which knob the metric's variance belongs to: learning rate, batch size, rank, method, seed, and their interactions.

Estimator: analysis of variance of every run's value on the factors that vary, as categories, with all main effects and
two-way interactions of the hyperparameters; the seed is a main effect. A term's share is eta^2 = SS / SS_total with
type II sums of squares: what the term adds to all terms that do not contain it. In a balanced design (every
combination equally often) these are the classical orthogonal ones and the shares with the residual add up to 1. In an
unbalanced one they need not, `balanced` is False, and `confounded` is the part that no single term can claim. The
residual holds higher interactions, and the seeds where they are not a factor.

Asked twice: of all runs that may select, and of each cell's tuned value. The first answers what a study that fixes its
hyperparameters is at the mercy of, the second what is left once the learning rate is tuned: "is it the batch size or
the learning rate?" (Lee & Lee 2026 against "Learning Rate Matters" 2026). A share is of the values that were tried: a
wider range of a knob gives it a larger share, so that shares compare within one design and not between designs.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from welltuned.analysis.grid import Place, Tuned, places, pooled_noise, tuned
from welltuned.analysis.runs import Run, Table

TOLERANCE = 1e-10  # of the largest count: a smaller pivot is a column that the others make up. Assumed
KNOBS = ("learning_rate", "batch_size", "rank", "method")


@dataclass(frozen=True)
class Term:
    """A main effect (one factor) or an interaction (two)."""

    factors: tuple[str, ...]
    sum_of_squares: float
    dof: int
    share: float  # of the total sum of squares


@dataclass(frozen=True)
class Variance:
    """One decomposition."""

    terms: tuple[Term, ...]
    residual: float  # share
    residual_dof: int
    confounded: float  # share that the terms cannot be told apart in; 0 in a balanced design
    balanced: bool
    num_values: int
    sd: float  # of the values decomposed

    def share(self, *factors: str) -> float:
        """Return the share of one term; 0 where the factor does not vary."""
        return next((term.share for term in self.terms if set(term.factors) == set(factors)), 0.0)


@dataclass(frozen=True)
class Attribution:
    """A problem's variance before and after tuning the learning rate; None, with `reason`, where nothing varies."""

    place: Place  # problem, training rows and settings
    raw: Variance | None
    tuned: Variance | None
    reason: str


@dataclass(frozen=True)
class Shares:
    """The shares of a problem with their redrawn twins (a parametric bootstrap over seeds)."""

    place: Place
    values: dict[tuple[str, ...], float]
    draws: dict[tuple[str, ...], np.ndarray] | None  # None: no configuration was run under two seeds
    balanced: bool


def attribution(table: Table) -> tuple[Attribution, ...]:
    """Return the attribution of every problem of the table."""
    raw, cells = _runs(table), _cells(table)
    return tuple(_of_problem(place, runs, cells.get(place, [])) for place, runs in raw.items())


def redrawn_raw(table: Table, generator: np.random.Generator, num_draws: int = 200) -> tuple[Shares, ...]:
    """Return the shares over all runs of every problem, each run's value redrawn with the noise of its problem."""
    noise = pooled_noise(table)
    found: list[Shares] = []
    for place, runs in _runs(table).items():
        pooled = noise.get(place.problem)
        errors = None if pooled is None else ([pooled.sd] * len(runs), [float(pooled.dof)] * len(runs))
        shares = _redrawn(
            place, [run.value for run in runs], [_levels(run) for run in runs], errors, generator, num_draws
        )
        found += [shares] if shares else []
    return tuple(found)


def redrawn_tuned(table: Table, generator: np.random.Generator, num_draws: int = 200) -> tuple[Shares, ...]:
    """Return the shares over the tuned values of every problem, each cell's mean redrawn with its own error."""
    found: list[Shares] = []
    for place, cells in _cells(table).items():
        levels = [_knobs(cell) for cell in cells]
        errors = [cell.error for cell in cells if cell.error is not None]
        dofs = [cell.dof for cell in cells if cell.dof is not None]
        known = (errors, dofs) if len(errors) == len(dofs) == len(cells) else None
        shares = _redrawn(place, [cell.value for cell in cells], levels, known, generator, num_draws)
        found += [shares] if shares else []
    return tuple(found)


def _redrawn(
    place: Place,
    values: Sequence[float],
    levels: Sequence[Mapping[str, object]],
    errors: tuple[Sequence[float], Sequence[float]] | None,
    generator: np.random.Generator,
    num_draws: int,
) -> Shares | None:
    whole = decompose(values, levels)
    if whole is None:
        return None
    terms = [term.factors for term in whole.terms]
    draws = None
    if errors is not None:
        noise_NK = generator.standard_t(np.asarray(errors[1])[:, None], size=(len(values), num_draws))
        y_NK = np.asarray(values)[:, None] + np.asarray(errors[0])[:, None] * noise_NK
        sums, *_ = _sums(y_NK, terms, levels)
        totals = ((y_NK - y_NK.mean(axis=0)) ** 2).sum(axis=0)
        draws = {term: sums[term] / totals for term in terms}
    return Shares(place, {term.factors: term.share for term in whole.terms}, draws, whole.balanced)


def _runs(table: Table) -> dict[Place, list[Run]]:
    found: defaultdict[Place, list[Run]] = defaultdict(list)
    where = places(table)
    problems = {place: _problem(place) for place in set(where)}
    marked = any(run.selected for run in table.runs)
    for index, run in enumerate(table.runs):
        if run.selected == marked:
            found[problems[where[index]]].append(run)
    return {
        place: runs if _swept(runs) else [replace(run, learning_rate=None) for run in runs]
        for place, runs in found.items()
    }


def _swept(runs: Sequence[Run]) -> bool:
    """Say whether some cell has two learning rates; where none has, the rates are a consequence and no factor."""
    rates: defaultdict[tuple[object, ...], set[float | None]] = defaultdict(set)
    for run in runs:
        rates[run.method, run.batch_size, run.rank].add(run.learning_rate)
    return any(len(found) > 1 for found in rates.values())


def _cells(table: Table) -> dict[Place, list[Tuned]]:
    found: defaultdict[Place, list[Tuned]] = defaultdict(list)
    for cell in tuned(table):
        found[_problem(cell.place)].append(cell)
    return found


def _problem(place: Place) -> Place:
    return place.without("learning_rate", "batch_size", "rank", "method")


def _of_problem(place: Place, runs: Sequence[Run], cells: Sequence[Tuned]) -> Attribution:
    before = decompose([run.value for run in runs], [_levels(run) for run in runs])
    values, levels = _tuned_values(cells)
    after = decompose(values, levels) if values else None
    missing = " and ".join(name for name, found in (("raw", before), ("tuned", after)) if found is None)
    reason = f"no factor varies, or all values are equal: {missing}" if missing else ""
    return Attribution(place, before, after, reason)


def _levels(run: Run) -> dict[str, object]:
    levels: dict[str, object] = {name: getattr(run, name) for name in KNOBS}
    return levels | {"seed": run.seed}


def _knobs(cell: Tuned) -> dict[str, object]:
    knobs: dict[str, object] = {name: getattr(cell.place, name) for name in KNOBS if name != "learning_rate"}
    return knobs | {"seed": None}


def _tuned_values(cells: Sequence[Tuned]) -> tuple[list[float], list[dict[str, object]]]:
    """Return a value for each cell and seed where all cells name their seeds, else one for each cell."""
    values: list[float] = []
    levels: list[dict[str, object]] = []
    seeded = all(cell.by_seed for cell in cells)
    for cell in cells:
        for seed, value in cell.by_seed if seeded else (("", cell.value),):
            values.append(value)
            levels.append(_knobs(cell) | {"seed": seed if seeded else None})
    return values, levels


def decompose(values: Sequence[float], levels: Sequence[Mapping[str, object]]) -> Variance | None:
    """Return the type II decomposition; None where no factor varies or all values are equal.

    Seeds are a factor only where each is shared by several configurations and takes part in them evenly enough to be
    told from them: where every run has a seed of its own they are residual.
    """
    y = np.asarray(values, dtype=float)
    total = float(((y - y.mean()) ** 2).sum())
    factors = [name for name in levels[0] if _varies(name, levels)]
    if not factors or total <= 1e-24 * max(1.0, float((y**2).sum())):
        return None
    terms = _terms(factors)
    sums, full, dofs, rank = _sums(y[:, None], terms, levels)
    balanced = _balanced(factors, levels)
    shares = [float(sums[term][0]) / total for term in terms]
    left = 1 - float(full[0]) / total - sum(shares)
    found = tuple(
        Term(term, float(sums[term][0]), dofs[term], share) for term, share in zip(terms, shares, strict=True)
    )
    return Variance(
        terms=found,
        residual=float(full[0]) / total,
        residual_dof=len(y) - rank,
        confounded=0.0 if balanced else left,
        balanced=balanced,
        num_values=len(y),
        sd=float(y.std(ddof=1)),
    )


def _varies(name: str, levels: Sequence[Mapping[str, object]]) -> bool:
    counts = Counter(level[name] for level in levels)
    if len(counts) < 2:
        return False
    return name != "seed" or (None not in counts and max(counts.values()) > 1)


@dataclass(frozen=True)
class _Design:
    """A mean and the indicator columns of all terms, N values x P columns, held by their products X'X and X'y alone.

    X'X counts values, so that it is exact, and P is the number of levels: neither the cost of a factorisation nor that
    of a redrawn column grows with N.
    """

    where: dict[tuple[str, ...], np.ndarray]  # the columns of a term
    gram_PP: np.ndarray
    matrix_PN: Any  # sparse

    def explained(self, terms: Sequence[tuple[str, ...]], products_PK: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the sums of squares of K centred columns that a mean and these terms explain, and their rank.

        With the pivoted Cholesky factor L L' of X'X, cut at its rank: the squares of L^-1 X'y.
        """
        from scipy.linalg import get_lapack_funcs, solve_triangular

        chosen = np.concatenate([[0], *(self.where[term] for term in terms)])
        gram = self.gram_PP[np.ix_(chosen, chosen)]
        (pstrf,) = get_lapack_funcs(("pstrf",), (gram,))
        factor, pivots, rank, _ = pstrf(gram, tol=TOLERANCE * gram.max(), lower=1)
        kept = chosen[pivots[:rank] - 1]
        projected = solve_triangular(factor[:rank, :rank], products_PK[kept], lower=True)
        return (projected**2).sum(axis=0), int(rank)


def _design(terms: Sequence[tuple[str, ...]], levels: Sequence[Mapping[str, object]]) -> _Design:
    from scipy import sparse

    size = len(levels)
    codes, where, width = [np.zeros(size, dtype=int)], {}, 1
    for term in terms:
        keys = [tuple(level[name] for name in term) for level in levels]
        index = {key: width + column for column, key in enumerate(dict.fromkeys(keys))}
        codes.append(np.array([index[key] for key in keys]))
        where[term] = np.arange(width, width + len(index))
        width += len(index)
    columns = np.concatenate(codes)
    rows = np.tile(np.arange(size), len(codes))
    matrix = sparse.csr_array((np.ones(len(columns)), (columns, rows)), shape=(width, size))
    return _Design(where, (matrix @ matrix.T).toarray(), matrix)


def _terms(factors: Sequence[str]) -> list[tuple[str, ...]]:
    pairs = itertools.combinations([name for name in factors if name != "seed"], 2)
    return [*((name,) for name in factors), *pairs]


def _sums(
    y_NK: np.ndarray, terms: Sequence[tuple[str, ...]], levels: Sequence[Mapping[str, object]]
) -> tuple[dict[tuple[str, ...], np.ndarray], np.ndarray, dict[tuple[str, ...], int], int]:
    """Return K columns' type II sums of squares by term, the residual ones, the terms' degrees of freedom, the rank."""
    design = _design(terms, levels)
    centred_NK = y_NK - y_NK.mean(axis=0)
    products_PK = design.matrix_PN @ centred_NK
    sums: dict[tuple[str, ...], np.ndarray] = {}
    dofs: dict[tuple[str, ...], int] = {}
    for term in terms:
        others = [other for other in terms if not set(term) <= set(other)]
        without, rank_without = design.explained(others, products_PK)
        with_it, rank_with = design.explained([*others, term], products_PK)
        sums[term] = np.maximum(with_it - without, 0.0)
        dofs[term] = rank_with - rank_without
    whole, rank = design.explained(terms, products_PK)
    return sums, np.maximum((centred_NK**2).sum(axis=0) - whole, 0.0), dofs, rank


def _balanced(factors: Sequence[str], levels: Sequence[Mapping[str, object]]) -> bool:
    counts = Counter(tuple(level[name] for name in factors) for level in levels)
    cells = 1
    for name in factors:
        cells *= len({level[name] for level in levels})
    return len(counts) == cells and len(set(counts.values())) == 1
