"""What choosing on the test data would have shown, beside what was chosen on validation: the bias that a study avoids.

Every selection trial's test accuracy is known after an oracle pass, which the verdict precedes. For each method: the
configuration with the lowest mean validation loss (the study's own choice) and the one with the highest mean test
accuracy, both with their accuracy on the seeds that selection saw, and the choice's accuracy on fresh seeds. The second
is at least the first, by construction; the difference is what a table that reports its best test number has gained.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from welltuned.analysis.cells import Cell, group
from welltuned.analysis.summary import SummaryRow, summarise
from welltuned.analysis.wording import Key, label, rate_text
from welltuned.records import Hindsight, Result, Status

Scored = tuple[float, str]  # accuracy, and the configuration in words


def hindsight(
    results: Sequence[Result], oracle: Mapping[str, Sequence[bool]], cell: Sequence[str]
) -> tuple[Hindsight, ...]:
    """Return one row for each method and problem that has a choice and oracle scores.

    `oracle` holds the graded answers of selection trials. A diverged trial counts as 0, as everywhere.
    """
    rows = {row.key: row for row in summarise(results, cell)}
    members: defaultdict[tuple[Key, str], list[Cell]] = defaultdict(list)
    for one in group(results, cell):
        members[rows[one.key].problem, rows[one.key].method].append(one)
    found = (_row(cells, [rows[one.key] for one in cells], oracle) for cells in members.values())
    return tuple(row for row in found if row is not None)


def _row(cells: Sequence[Cell], rows: Sequence[SummaryRow], oracle: Mapping[str, Sequence[bool]]) -> Hindsight | None:
    scored: dict[tuple[Key, float], Scored] = {}
    for cell in cells:
        for rate in cell.rates:
            trials = [one for one in cell.select if one.config.learning_rate == rate.learning_rate]
            values = [value for one in trials if (value := _accuracy(one, oracle)) is not None]
            if values:
                text = f"{label(cell.key)}, learning rate {rate_text(rate.learning_rate)}"
                scored[cell.key, rate.learning_rate] = (statistics.fmean(values), text)
    chosen = next((row for row in rows if row.is_winner), None)
    place = None if chosen is None or chosen.selected_rate is None else (chosen.key, chosen.selected_rate)
    if chosen is None or place not in scored:
        return None
    best = max(scored.values(), key=lambda one: one[0])
    return Hindsight(
        problem=label(chosen.problem) if chosen.problem else "",
        method=chosen.method,
        num_candidates=len(scored),
        chosen_label=scored[place][1],
        chosen_accuracy=scored[place][0],
        best_label=best[1],
        best_accuracy=best[0],
        fresh_accuracy=chosen.test_accuracy.mean if chosen.test_accuracy else None,
    )


def _accuracy(result: Result, oracle: Mapping[str, Sequence[bool]]) -> float | None:
    if result.status is Status.DIVERGED:
        return 0.0
    answers = oracle.get(result.trial_id)
    return None if answers is None else statistics.fmean(answers)
