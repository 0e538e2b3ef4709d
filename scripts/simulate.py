"""Simulated comparisons with known truth, and how often the crossed interval is right about them.

Two kinds. `Normal` cells draw the mean and the mean squares of normally distributed differences from their exact
distributions, so tens of thousands of replications take milliseconds. `Exam` cells draw right and wrong answers: an
answer is right where skill + item + item of this method + seed of this run + noise > 0, items shared by both methods,
so their answers are correlated as those of real models are; a run may diverge, and then has every answer wrong.
"""

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from welltuned.analysis import crossed
from welltuned.analysis.crossed import TAIL_90, TAIL_95, Parts
from welltuned.rng import stream

Floats = NDArray[np.float64]
Z_95 = 1.959963984540054
MARGINS = (2.0, 2.5, 3.0, 4.0, 6.0)  # margins tried for false equivalence, in standard errors of the mean
BLOCK_NUMBERS = 4_000_000  # answers drawn at a time


@dataclass(frozen=True)
class Normal:
    """A comparison by its shares of the variance of the mean; the residual has what seeds and items leave."""

    num_seeds: int
    num_items: int
    seed_share: float
    item_share: float

    @property
    def residual_share(self) -> float:
        return 1.0 - self.seed_share - self.item_share


@dataclass(frozen=True)
class Exam:
    """Two methods in an exam. Standard deviations are of the latent skill, where the noise has 1."""

    num_seeds: int
    num_items: int
    difference: float  # of the methods' accuracies, before divergence
    seed_sd: float
    own_item_sd: float  # of what an item has for one method only
    item_sd: float = 1.5  # of what it has for both
    accuracy: float = 0.6  # theirs
    divergence: tuple[float, float] = (0.0, 0.0)  # the chance of a run of ours, theirs

    @property
    def true_difference(self) -> float:
        """Return the expected difference, diverged runs counted as all wrong."""
        ours, theirs = 1 - self.divergence[0], 1 - self.divergence[1]
        return (self.accuracy + self.difference) * ours - self.accuracy * theirs


@dataclass(frozen=True)
class Draws:
    """Replications: estimated means, their mean squares, the true difference and the true standard error."""

    means: Floats
    parts: Parts
    truth: float
    standard_error: float


@dataclass(frozen=True)
class Record:
    """How often the interval was right, in shares of the replications; `error` is that of a rate of 5 %."""

    coverage: float
    width: float  # mean width, relative to the known-variance interval's
    false_equivalent: float  # at a true difference of the margin, the worst of MARGINS
    error: float


def normal_draws(cell: Normal, num: int, seed: int = 0, truth: float = 0.0) -> Draws:
    """Return replications of normal differences with a standard error of 1."""
    generator = stream(seed, "normal", *(str(value) for value in dataclasses.astuple(cell)))
    seeds_df, items_df = cell.num_seeds - 1, cell.num_items - 1

    def mean_square(expected: float, df: int) -> Floats:
        return expected * generator.chisquare(df, num) / df

    parts = Parts(
        seeds=mean_square(cell.seed_share + cell.residual_share, seeds_df),
        items=mean_square(cell.item_share + cell.residual_share, items_df),
        residual=mean_square(cell.residual_share, seeds_df * items_df),
        seeds_df=seeds_df,
        items_df=np.float64(items_df),
    )
    return Draws(truth + generator.standard_normal(num), parts, truth, 1.0)


def exam_draws(cell: Exam, num: int, seed: int = 0) -> Draws:
    """Return replications of an exam. The true standard error is the means' standard deviation over them."""
    generator = stream(seed, "exam", *(str(value) for value in dataclasses.astuple(cell)))
    block = max(1, BLOCK_NUMBERS // (cell.num_seeds * cell.num_items))
    blocks = []
    for start in range(0, num, block):
        answers = _differences(cell, min(block, num - start), generator)
        blocks.append((answers.mean((-2, -1)), crossed.parts_of([answers])))
    means = np.concatenate([means for means, _ in blocks])
    fields = ("seeds", "items", "residual")
    joined = {name: np.concatenate([vars(parts)[name] for _, parts in blocks]) for name in fields}
    parts = Parts(**joined, seeds_df=cell.num_seeds - 1, items_df=np.float64(cell.num_items - 1))
    return Draws(means, parts, cell.true_difference, float(means.std(ddof=1)))


def record(draws: Draws) -> Record:
    """Return how often the crossed interval was right about these replications."""
    half95, half90 = crossed.half_width(draws.parts, TAIL_95), crossed.half_width(draws.parts, TAIL_90)
    off = draws.means - draws.truth
    wrong = [np.mean((off <= -half90) & (off >= half90 - 2 * d * draws.standard_error)) for d in MARGINS]
    return Record(
        coverage=float(np.mean(np.abs(off) <= half95)),
        width=float(np.mean(half95)) / (Z_95 * draws.standard_error),
        false_equivalent=float(max(wrong)),
        error=math.sqrt(0.05 * 0.95 / len(off)),
    )


def found(draws: Draws) -> float:
    """Return the share of replications whose 95 % interval does not hold 0."""
    return float(np.mean(np.abs(draws.means) > crossed.half_width(draws.parts, TAIL_95)))


def alternatives(draws: Draws) -> dict[str, tuple[float, float]]:
    """Return coverage and relative mean width of other intervals on the same replications."""
    parts = draws.parts
    rest = parts.items - parts.residual
    plain = np.maximum(parts.seeds + rest, 1e-12)
    floored = np.maximum(parts.seeds, parts.residual) + rest
    halves = {
        "seeds-only t": -stdtrit(parts.seeds_df, TAIL_95) * np.sqrt(parts.seeds),
        "items only": Z_95 * np.sqrt(parts.items),
        "Satterthwaite t": _satterthwaite(plain, parts.seeds, parts.seeds_df),
        "Satterthwaite t, components >= 0": _satterthwaite(
            floored, np.maximum(parts.seeds, parts.residual), parts.seeds_df
        ),
        "t of S - 1 for all of V": -stdtrit(parts.seeds_df, TAIL_95) * np.sqrt(floored),
        "crossed (ours)": crossed.half_width(parts, TAIL_95),
    }
    off = np.abs(draws.means - draws.truth)
    return {
        name: (float(np.mean(off <= half)), float(np.mean(half)) / (Z_95 * draws.standard_error))
        for name, half in halves.items()
    }


def least_width(num_seeds: int, coverage: float = 0.93) -> float:
    """Return the relative mean width of Student's t at `coverage` where only seeds vary.

    No interval that scales with the data and holds `coverage` for every seed variance is shorter there: its half width
    is a multiple of the seeds' standard deviation, and this is the smallest multiple.
    """
    df = num_seeds - 1
    mean_sd = math.sqrt(2 / df) * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2))
    return float(-stdtrit(df, (1 - coverage) / 2)) * mean_sd / Z_95


def _satterthwaite(variance: Floats, seeds: Floats, seeds_df: float) -> Floats:
    degrees = seeds_df * np.square(np.maximum(variance / np.maximum(seeds, 1e-12), 1.0))
    return -stdtrit(degrees, TAIL_95) * np.sqrt(variance)


def _differences(cell: Exam, num: int, generator: np.random.Generator) -> Floats:
    shape = (num, cell.num_seeds, cell.num_items)
    shared = cell.item_sd * generator.standard_normal((num, 1, cell.num_items), dtype=np.float32)
    ours = _answers(cell, cell.accuracy + cell.difference, cell.divergence[0], shared, shape, generator)
    return ours - _answers(cell, cell.accuracy, cell.divergence[1], shared, shape, generator)


def _answers(cell, accuracy, divergence, shared, shape, generator) -> Floats:
    """Draw right (1) and wrong (0). The threshold gives the accuracy over all seeds and items exactly."""
    num, num_seeds, num_items = shape
    sd = math.sqrt(1 + cell.item_sd**2 + cell.own_item_sd**2 + cell.seed_sd**2)
    latent = generator.standard_normal(shape, dtype=np.float32) + shared
    if cell.own_item_sd:
        latent += cell.own_item_sd * generator.standard_normal((num, 1, num_items), dtype=np.float32)
    latent += cell.seed_sd * generator.standard_normal((num, num_seeds, 1), dtype=np.float32)
    finished = generator.random((num, num_seeds, 1)) >= divergence
    return ((latent > -sd * ndtri(accuracy)) & finished).astype(np.float64)


def equal_methods(num_methods: int, cell: Normal, num: int, seed: int = 0) -> Floats:
    """Return values [replications, methods, seeds, items] of methods that are equal, their differences as in `cell`."""
    generator = stream(seed, "methods", num_methods, *(str(value) for value in dataclasses.astuple(cell)))
    shape = (num, num_methods, cell.num_seeds, cell.num_items)
    sizes = (cell.num_seeds, cell.num_items, cell.num_seeds * cell.num_items)
    shares = (cell.seed_share, cell.item_share, cell.residual_share)
    seed_sd, item_sd, residual_sd = (math.sqrt(share * size) for share, size in zip(shares, sizes, strict=True))
    values = residual_sd * generator.standard_normal(shape)
    values += seed_sd * generator.standard_normal((*shape[:3], 1))
    return values + item_sd * generator.standard_normal((num, num_methods, 1, cell.num_items))


def false_best(num_methods: int, cell: Normal, num: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return how often some pair of k equal methods differs: by its own p, and adjusted."""
    values = equal_methods(num_methods, cell, num)
    own = alpha / math.comb(num_methods, 2)  # what `multiplicity.all_pairs` adjusts to alpha
    plain, adjusted = np.zeros(num, dtype=bool), np.zeros(num, dtype=bool)
    for one, other in itertools.combinations(range(num_methods), 2):
        pair = values[:, one] - values[:, other]
        parts, mean = crossed.parts_of([pair]), np.abs(pair.mean((-2, -1)))
        plain |= mean > crossed.half_width(parts, alpha / 2)
        adjusted |= mean > crossed.half_width(parts, own / 2)
    return float(plain.mean()), float(adjusted.mean())
