"""What each cell and each method came to: the learning rate that selection chose, and what fresh seeds then gave.

Selection reads validation only. The interval is over fresh seeds; the standard error over test items is stated beside
it and never mixed in, because the seeds of a cell answer the same items.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis import optimum
from welltuned.analysis.cells import Cell, group, score_nats
from welltuned.analysis.interval import Interval, over_seeds
from welltuned.analysis.wording import Key, label
from welltuned.records import Config, Result, Status

# Axes that pose another problem: methods are compared within one value of these and never across.
PROBLEM = frozenset(
    (
        *("base", "revision", "dtype", "quantization", "target_modules"),
        *("task", "data_train", "data_validation", "data_test"),
        *("prompt_template", "num_train", "subset", "num_validation", "num_test", "split_seed", "max_length"),
    )
)


@dataclass(frozen=True)
class FreshRun:
    """One fresh-seed rerun; runs of two cells with equal `seeds` are a pair."""

    seeds: tuple[int, int, int]  # init, order, subset
    nll: float | None
    accuracy: float | None
    diverged: bool


@dataclass(frozen=True)
class SummaryRow:
    """One cell's outcome. What is missing is None, and `reason` says why."""

    key: Key
    problem: Key  # the part of the key that poses the problem
    label: str
    method: str
    batch_size: int
    config: Config  # the selected configuration with one of its seeds
    num_rates: int
    selected_rate: float | None
    optimum: optimum.Optimum | None
    selection_nll: float | None  # at the selected rate; optimistic, because it was selected on
    num_selection_seeds: int
    fresh: tuple[FreshRun, ...]
    fresh_nll: Interval | None
    test_accuracy: Interval | None
    item_error: float | None  # standard error of the accuracy over test items
    num_items: int | None
    num_steps: int
    num_trials: int
    num_diverged: int
    clip_fraction: float | None
    num_trainable: int
    is_winner: bool  # of its method within its problem: lowest selection NLL, of the cells that were rerun if any were
    reason: str


def summarise(results: Sequence[Result], cell: Sequence[str]) -> tuple[SummaryRow, ...]:
    """Return one row for each cell that has a trial, the winner of each method marked."""
    graded = any(result.test_correct is not None for result in results)
    cells = group(results, cell)
    rows = [_row(member, graded) for member in cells]
    best: dict[tuple[Key, str], tuple[tuple[bool, float], SummaryRow]] = {}
    for member, row in zip(cells, rows, strict=True):
        place = (row.problem, row.method)
        # A search with a budget reruns its choice alone, and may choose by more than the lowest loss.
        rank = (not member.confirm, math.inf if row.selection_nll is None else row.selection_nll)
        if row.selection_nll is not None and (place not in best or rank < best[place][0]):
            best[place] = rank, row
    winning = {id(row) for _, row in best.values()}
    return tuple(dataclasses.replace(row, is_winner=id(row) in winning) for row in rows)


def winners(rows: Sequence[SummaryRow]) -> tuple[SummaryRow, ...]:
    """Return the winning cell of every method, in the order of the rows."""
    return tuple(row for row in rows if row.is_winner)


def _row(cell: Cell, graded: bool) -> SummaryRow:
    selected = cell.selected_rate
    at_selected = cell.rate(selected)
    fresh = tuple(_fresh(result, graded) for result in cell.confirm if result.status is not Status.LOST)
    nlls = [run.nll for run in fresh if run.nll is not None]
    accuracies = [run.accuracy for run in fresh if run.accuracy is not None]
    item_error, num_items = _items(cell.confirm)
    trials = cell.select + cell.confirm
    chosen = next((result.config for result in trials if result.config.learning_rate == selected), cell.config)
    return SummaryRow(
        key=cell.key,
        problem=tuple(part for part in cell.key if part[0] in PROBLEM),
        label=label(cell.key) if cell.key else cell.config.method,
        method=cell.config.method,
        batch_size=cell.config.batch_size,
        config=chosen,
        num_rates=len(cell.rates),
        selected_rate=selected,
        optimum=optimum.of_cell(cell),
        selection_nll=at_selected.mean_nll if at_selected else None,
        num_selection_seeds=len(at_selected.nlls) if at_selected else 0,
        fresh=fresh,
        fresh_nll=over_seeds(nlls) if nlls else None,
        test_accuracy=over_seeds(accuracies, 0.0, 1.0) if accuracies else None,
        item_error=item_error,
        num_items=num_items,
        num_steps=max(result.num_steps for result in trials),
        num_trials=len(trials),
        num_diverged=sum(result.status is Status.DIVERGED for result in trials),
        clip_fraction=statistics.fmean(result.clip_fraction for result in trials),
        num_trainable=max(result.num_trainable for result in trials),
        is_winner=False,
        reason=_reason(selected, fresh, accuracies, graded),
    )


def _fresh(result: Result, graded: bool) -> FreshRun:
    config = result.config
    accuracy = result.test_accuracy if graded else None  # a diverged run counts as 0 only where others are graded
    seeds = (config.init_seed, config.order_seed, config.subset_seed)
    return FreshRun(seeds, score_nats(result), accuracy, result.status is Status.DIVERGED)


def _items(confirm: Sequence[Result]) -> tuple[float | None, int | None]:
    """Return the standard error over items of the accuracy averaged over seeds, and the number of items."""
    answers = [result.test_correct for result in confirm if result.test_correct is not None]
    if not answers or len({len(answer) for answer in answers}) != 1:
        return None, None
    num_items = len(answers[0])
    runs = len(answers) + sum(result.status is Status.DIVERGED and result.test_correct is None for result in confirm)
    shares = [sum(seeds) / runs for seeds in zip(*answers, strict=True)]
    return (statistics.stdev(shares) / math.sqrt(num_items) if num_items > 1 else None), num_items


def _reason(selected: float | None, fresh: Sequence[FreshRun], accuracies: Sequence[float], graded: bool) -> str:
    if selected is None:
        return "no selection trial has a score yet"
    if not fresh:
        return "no fresh-seed rerun has ended"
    if not graded:
        return "the study grades no test answers"
    return "" if accuracies else "the test split has not been graded yet"
