"""The verdict of a study: each method's best cell against the baseline's, on the same fresh seeds and the same items.

A method's best cell is the one that selection chose on validation loss. Of it and of the baseline's the reruns on fresh
seeds are paired: accuracy as an array seeds x test items, loss as one number a seed. What is missing on either
side is left out of both; a diverged rerun is not missing, it counts as all wrong, or as the base's loss. The interval
is `crossed`'s and the verdict `verdict`'s, of each pair on its own: 'better' needs its 95 % interval beyond the margin.
Holm's correction over all pairs of the study is of the p of "different from 0" only, and is shown beside the verdict.

Pure: results and declared terms to a `Comparison`, which carries the hash of what it was computed from.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from welltuned.analysis import crossed, multiplicity, paired, power
from welltuned.analysis.cells import key_of, score_nats
from welltuned.analysis.interval import over_seeds
from welltuned.analysis.summary import SummaryRow, summarise, winners
from welltuned.analysis.verdict import Kind, Margin, decide
from welltuned.analysis.wording import Key, label, plural, rate_text
from welltuned.records import Best, Comparison, Forgetting, Pair, Result, Retained, Role, Status

ACCURACY, LOSS = "accuracy", "loss"
AIMS = {Kind.BETTER: "that it is better", Kind.WORSE: "that it is worse", Kind.EQUIVALENT: "equivalence"}
Seeds = tuple[int, int, int]


@dataclass(frozen=True)
class Terms:
    """What was declared for one problem. `margin` is a share of the items, or a share of the baseline's loss."""

    problem: Key
    metric: str  # ACCURACY, LOSS
    margin: float
    margin_reason: str


@dataclass(frozen=True)
class _Side:
    """One method's best cell and its reruns on fresh seeds."""

    row: SummaryRow
    runs: Mapping[Seeds, Result]

    @property
    def label(self) -> str:
        return f"{self.row.label}, learning rate {rate_text(self.row.selected_rate)}"


def compare(
    results: Sequence[Result],
    retained: Sequence[Retained],
    cell: Sequence[str],
    baseline: str,
    terms: Sequence[Terms],
    spec_hash: str,
) -> Comparison:
    """Return the comparison of every other method with the baseline, within each problem."""
    sides = _sides(results, cell)
    pairs: list[Pair] = []
    best: list[Best] = []
    for one in terms:
        mine = {side.row.method: side for side in sides if side.row.problem == one.problem}
        others = [name for name in mine if name != baseline]
        if baseline in mine:
            pairs += [_pair(mine[name], mine[baseline], one) for name in others]
        best += _best(mine, one)
    adjusted = multiplicity.holm([pair.p_value for pair in pairs])
    corrected = (dataclasses.replace(pair, p_holm=each.adjusted) for pair, each in zip(pairs, adjusted, strict=True))
    inputs = _hash(sides, retained, baseline, terms, spec_hash)
    return Comparison(baseline, tuple(corrected), tuple(best), tuple(_forgetting(sides, retained)), inputs)


def _sides(results: Sequence[Result], cell: Sequence[str]) -> list[_Side]:
    sides: list[_Side] = []
    for row in winners(summarise(results, cell)):
        confirm = (one for one in results if one.role is Role.CONFIRM and key_of(one.config, cell) == row.key)
        sides.append(_Side(row, {_seeds(one): one for one in confirm if one.status is not Status.LOST}))
    return sides


def _seeds(result: Result) -> Seeds:
    return result.config.init_seed, result.config.order_seed, result.config.subset_seed


# One pair -------------------------------------------------------------------------------------------------------------


def _pair(ours: _Side, theirs: _Side, terms: Terms) -> Pair:
    reason = f"no fresh seed has a {terms.metric} of both"
    unpaired = Pair(
        problem=_words(terms.problem),
        method=ours.row.method,
        baseline=theirs.row.method,
        method_label=ours.label,
        baseline_label=theirs.label,
        metric=terms.metric,
        method_value=None,
        baseline_value=None,
        num_seeds=0,
        num_items=None,
        margin=terms.margin,
        difference=None,
        low=None,
        high=None,
        low_90=None,
        high_90=None,
        p_value=None,
        p_holm=None,
        verdict=Kind.UNDECIDED.value,
        words=f"undecided: {reason}",
        decides="run the study again where the machine does not lose its reruns",
        reason=reason,
    )
    arrays = _arrays([ours, theirs], terms.metric)
    return _judged(unpaired, arrays[0], arrays[1], terms) if arrays else unpaired


def _judged(pair: Pair, one: paired.Floats, other: paired.Floats, terms: Terms) -> Pair:
    """Return the pair with what its values say, one row a shared seed."""
    interval = crossed.interval(paired.differences(one, other))
    margin = _margin(terms, float(other.mean()))
    verdict = decide(interval, margin)
    return dataclasses.replace(
        pair,
        method_value=float(one.mean()),
        baseline_value=float(other.mean()),
        num_seeds=interval.num_seeds,
        num_items=interval.num_items if terms.metric == ACCURACY else None,
        margin=margin.value,
        difference=interval.mean,
        low=interval.low95,
        high=interval.high95,
        low_90=interval.low90,
        high_90=interval.high90,
        p_value=interval.p_value(),
        verdict=verdict.kind.value,
        words=verdict.words,
        decides=_decides(interval, margin) if verdict.kind is Kind.UNDECIDED else "",
        reason=interval.reason,
    )


def _margin(terms: Terms, baseline_value: float) -> Margin:
    if terms.metric == ACCURACY:
        return Margin(terms.margin, True, terms.margin_reason)
    return Margin(terms.margin * baseline_value, False, terms.margin_reason)


def _decides(interval: crossed.CrossedInterval, margin: Margin) -> str:
    """Say what would decide it, if the difference stayed where it is."""
    needed = power.more_needed(interval, margin)
    ways = [plural(needed.seeds, "more fresh seed")] if needed.seeds else []
    ways += [plural(needed.items, "more test item")] if needed.items else []
    if not ways and needed.both:
        ways = [f"{plural(needed.both[0], 'more fresh seed')} and {plural(needed.both[1], 'more test item')}"]
    aim = f" to show {AIMS[needed.aim]}" if needed.aim and ways else ""
    return f"about {' or '.join(ways)}{aim}" if ways else needed.reason


# Values ---------------------------------------------------------------------------------------------------------------


def _arrays(sides: Sequence[_Side], metric: str) -> list[paired.Floats]:
    """Return each side's values on the seeds that all of them have, seeds x items; [] where nothing pairs."""
    shared = sorted(seeds for seeds in sides[0].runs if all(_has(side.runs.get(seeds), metric) for side in sides))
    if metric == LOSS:
        losses = [[[score_nats(side.runs[seeds])] for seeds in shared] for side in sides]
        return [np.array(rows, dtype=np.float64) for rows in losses] if shared else []
    graded = [run.test_correct for side in sides for run in side.runs.values() if run.test_correct is not None]
    if not shared or not graded:
        return []
    num_items = len(graded[0])  # of one test split
    return [paired.correct_rows([side.runs[seeds].test_correct for seeds in shared], num_items) for side in sides]


def _has(result: Result | None, metric: str) -> bool:
    if result is None:
        return False
    if metric == LOSS:
        return score_nats(result) is not None
    return result.test_correct is not None or result.status is Status.DIVERGED


# Beside the pairs -----------------------------------------------------------------------------------------------------


def _best(sides: Mapping[str, _Side], terms: Terms) -> list[Best]:
    """Say which of three methods or more is best; of two, the pair says it."""
    if len(sides) < 3:
        return []
    arrays = _arrays(list(sides.values()), terms.metric)
    if not arrays:
        return []
    found = multiplicity.best_of(dict(zip(sides, arrays, strict=True)), terms.metric == ACCURACY)
    return [Best(_words(terms.problem), found.best, found.is_best, found.p, found.reason)]


def _forgetting(sides: Sequence[_Side], retained: Sequence[Retained]) -> Iterator[Forgetting]:
    for side in sides:
        ids = {run.trial_id for run in side.runs.values()}
        for text in dict.fromkeys(event.text for event in retained):
            mine = [event for event in retained if event.text == text and event.trial_id in ids]
            if mine:
                nll = over_seeds([event.nll for event in mine])
                yield Forgetting(
                    problem=_words(side.row.problem),
                    method=side.row.method,
                    text=text,
                    num_tokens=mine[0].num_tokens,
                    base_nll=mine[0].base_nll,
                    nll=nll.mean,
                    low=nll.low,
                    high=nll.high,
                    num_seeds=nll.num_seeds,
                )


def _words(problem: Key) -> str:
    return label(problem) if problem else ""


def _hash(
    sides: Sequence[_Side], retained: Sequence[Retained], baseline: str, terms: Sequence[Terms], spec_hash: str
) -> str:
    """Hash everything that a comparison is computed from."""
    runs = sorted(
        (side.label, run.trial_id, run.status, score_nats(run), run.test_correct)
        for side in sides
        for run in side.runs.values()
    )
    texts = sorted((event.trial_id, event.text_hash, event.base_nll, event.nll) for event in retained)
    declared = [dataclasses.astuple(one) for one in terms]
    text = json.dumps([spec_hash, baseline, declared, runs, texts], allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
