"""Shares of variance against statsmodels, against hand-made balanced sums, and against planted answers."""

import dataclasses
import itertools
import time

import numpy as np
import pandas
import pytest

import planted
from welltuned import rng
from welltuned.analysis import attribution
from welltuned.analysis.runs import Table

NAMES = {"learning_rate": "C(rate)", "batch_size": "C(batch)", "method": "C(method)", "rank": "C(rank)"}


def levels_of(drop=0.0, seeds=2):
    """Return levels of a factorial design with some runs missing at random."""
    random = rng.stream(0, "design", str(drop))
    full = [
        {"learning_rate": rate, "batch_size": batch, "method": method, "rank": None, "seed": None}
        for rate, batch, method, _ in itertools.product((1e-4, 1e-3, 1e-2), (4, 16), ("a", "b", "c"), range(seeds))
    ]
    return [level for level in full if random.random() >= drop]


def values_of(levels):
    random = rng.stream(1, "values")
    effect = {1e-4: 0.0, 1e-3: 1.0, 1e-2: -0.5, 4: 0.2, 16: -0.3, "a": 0.0, "b": 0.3, "c": 0.1}
    return [
        sum(effect[level[name]] for name in ("learning_rate", "batch_size", "method"))
        + (0.7 if (level["learning_rate"], level["batch_size"]) == (1e-2, 16) else 0.0)
        + 0.1 * float(random.normal())
        for level in levels
    ]


@pytest.mark.parametrize("drop", [0.0, 0.15])
def test_type_two_sums_of_squares_are_those_of_statsmodels(drop):
    import statsmodels.formula.api as api
    from statsmodels.stats import anova

    levels = levels_of(drop)
    values = values_of(levels)
    found = attribution.decompose(values, levels)
    frame = pandas.DataFrame(
        {"y": values}
        | {short: [level[name] for level in levels] for name, short in
           (("learning_rate", "rate"), ("batch_size", "batch"), ("method", "method"))}
    )  # fmt: skip
    terms = "C(rate) + C(batch) + C(method) + C(rate):C(batch) + C(rate):C(method) + C(batch):C(method)"
    expected = anova.anova_lm(api.ols(f"y ~ {terms}", frame).fit(), typ=2)
    for term in found.terms:
        row = expected.loc[":".join(NAMES[name] for name in term.factors)]
        assert term.sum_of_squares == pytest.approx(row["sum_sq"], rel=1e-8)
        assert term.dof == row["df"]
    assert found.residual_dof == expected.loc["Residual", "df"]
    assert found.balanced == (drop == 0)


def test_in_a_balanced_design_the_shares_are_those_of_level_means_and_add_up():
    levels = levels_of()
    values = np.array(values_of(levels))
    found = attribution.decompose(values, levels)
    total = ((values - values.mean()) ** 2).sum()
    for name in ("learning_rate", "batch_size", "method"):
        means = {key: values[[level[name] == key for level in levels]].mean() for key in {one[name] for one in levels}}
        squares = sum((means[level[name]] - values.mean()) ** 2 for level in levels)
        assert found.share(name) == pytest.approx(squares / total)
    assert sum(term.share for term in found.terms) + found.residual == pytest.approx(1)
    assert found.confounded == 0


def test_an_unbalanced_design_says_how_much_cannot_be_told_apart():
    levels = levels_of(0.3)
    found = attribution.decompose(values_of(levels), levels)
    shares = sum(term.share for term in found.terms) + found.residual
    assert not found.balanced
    assert found.confounded == pytest.approx(1 - shares) and found.confounded != 0


def test_batch_size_that_only_moves_the_optimal_rate_matters_raw_and_not_when_tuned():
    """The answer to "is it the batch size or the learning rate?" on a planted surface."""
    table = planted.table(
        lambda run: planted.valley(run, -3.25 + 0.5 * np.log10(run.batch_size / 16), 0.7, 0.2),
        batches=(4, 16, 64), methods=("lora", "pissa"), seeds=3, noise=0.002,
        rates=tuple(10 ** (-3.25 + exponent * np.log10(2)) for exponent in range(-4, 5)),
    )  # fmt: skip
    (found,) = attribution.attribution(table)
    assert found.raw.balanced
    assert found.raw.share("learning_rate", "batch_size") > 0.3
    assert found.raw.share("learning_rate") > 10 * found.raw.share("method")
    assert found.tuned.sd < 0.05 * found.raw.sd


def test_seeds_are_a_factor_where_configurations_share_them():
    table = planted.table(
        lambda run: planted.valley(run, -2.5, 0.7) + 0.05 * int(run.seed), seeds=3, methods=("a", "b")
    )
    (found,) = attribution.attribution(table)
    assert found.raw.share("seed") > 0.05
    alone = table.only([dataclasses.replace(run, seed=f"{at}") for at, run in enumerate(table.runs)])
    (apart,) = attribution.attribution(alone)
    assert apart.raw.share("seed") == 0 and apart.raw.residual > 0.05


def test_nothing_varies_says_so():
    table = planted.table(lambda run: 0.5, rates=(1e-3,), seeds=1)
    (found,) = attribution.attribution(Table(table.runs, "accuracy", True))
    assert found.raw is None and found.tuned is None
    assert found.reason == "no factor varies, or all values are equal: raw and tuned"


def test_redrawn_shares_scatter_around_the_decomposition():
    table = planted.table(
        lambda run: planted.valley(run, -2.5, 0.7) - 0.01 * np.log2(run.batch_size),
        batches=(4, 16),
        seeds=3,
        noise=0.01,
    )
    (found,) = attribution.redrawn_raw(table, rng.stream(0, "shares"))
    draws = found.draws["learning_rate",]
    assert abs(np.mean(draws) - found.values["learning_rate",]) < 0.05
    assert 0 < np.std(draws) < 0.05
    (tuned,) = attribution.redrawn_tuned(table, rng.stream(0, "shares"))
    assert set(tuned.draws) == {("batch_size",)}


def _reference(values, levels, terms):
    """Return the residual sum of squares of a least-squares fit on a mean and the indicators of some terms."""
    columns = [np.ones(len(values))]
    for term in terms:
        keys = [tuple(level[name] for name in term) for level in levels]
        columns += [np.array([key == one for key in keys], float) for one in sorted(set(keys))]
    design = np.stack(columns, axis=1)
    fitted = design @ np.linalg.lstsq(design, np.array(values), rcond=None)[0]
    return ((values - fitted) ** 2).sum(), np.linalg.matrix_rank(design)


@pytest.mark.parametrize("drop", [0.0, 0.5, 0.8])
def test_sums_of_squares_are_those_of_least_squares_where_cells_are_empty(drop):
    random = rng.stream(7, "empty", str(drop))
    full = [
        {"learning_rate": rate, "batch_size": batch, "rank": rank, "method": "a", "seed": seed}
        for rate, batch, rank, seed in itertools.product(range(7), (4, 16, 64), (8, 32), "01")
    ]
    levels = [level for level in full if random.random() >= drop]
    values = [1000 + float(random.normal()) for _ in levels]
    found = attribution.decompose(values, levels)
    every = [term.factors for term in found.terms]
    for term in found.terms:
        others = [other for other in every if not set(term.factors) <= set(other)]
        (without, rank_without), (with_it, rank_with) = (
            _reference(values, levels, terms) for terms in (others, [*others, term.factors])
        )
        assert term.sum_of_squares == pytest.approx(without - with_it, rel=1e-6, abs=1e-6)
        assert term.dof == rank_with - rank_without
    left, rank = _reference(values, levels, every)
    total = ((np.array(values) - np.mean(values)) ** 2).sum()
    assert found.residual == pytest.approx(left / total, abs=1e-9) and found.residual_dof == len(values) - rank


def test_a_table_of_many_runs_is_decomposed_in_seconds():
    """11,328 runs at 59 rates took 47 s while every term had a singular value decomposition of all runs."""
    levels = [
        {"learning_rate": rate, "batch_size": batch, "rank": rank, "method": method, "seed": seed}
        for rate, batch, rank, method, seed in itertools.product(range(59), (4, 8, 16, 32), (8, 16), "abc", range(8))
    ]
    begun = time.process_time()
    attribution.decompose(list(rng.stream(0, "many").normal(size=len(levels))), levels)
    assert time.process_time() - begun < 10  # measured: 0.4 s
