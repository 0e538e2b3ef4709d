"""What a reader must know before believing the numbers: every doubt that the results themselves can raise.

Edge optima come first, since they alone can turn a ranking round; housekeeping comes last.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from welltuned import plugins
from welltuned.analysis.cells import Cell, group
from welltuned.analysis.summary import PROBLEM, SummaryRow, summarise, winners
from welltuned.analysis.wording import plural, rate_text
from welltuned.records import Declaration, Result, Role, Status

FEW_STEPS = 32  # optimizer steps; assumed: a schedule with its warm-up says little below
UNEQUAL = 0.02  # relative difference of the tokens spent on selection that is worth a word; assumed
NAMED = 6  # cells named in one caveat before "and so many more"; assumed


@dataclass(frozen=True)
class Caveat:
    """One doubt. A serious one can change a ranking; the others are for the record."""

    kind: str
    serious: bool
    text: str


@dataclass(frozen=True)
class _Facts:
    results: Sequence[Result]
    declaration: Declaration
    cells: tuple[Cell, ...]
    rows: tuple[SummaryRow, ...]


def caveats(results: Sequence[Result], declaration: Declaration) -> tuple[Caveat, ...]:
    """Return every caveat that applies, in the order a reader should meet them."""
    facts = _Facts(results, declaration, group(results, declaration.cell), tuple(summarise(results, declaration.cell)))
    return tuple(caveat for check in CHECKS for caveat in check(facts))


def _edges_of(facts: _Facts) -> list[tuple[SummaryRow, str]]:
    """Return every cell with the edge that its best learning rate lies on.

    A search with a budget tries few rates in a cell: its choice is judged beside all that it tried with the method.
    """
    if facts.declaration.budget is None:
        return [(row, row.optimum.edge) for row in facts.rows if row.optimum is not None]
    found: list[tuple[SummaryRow, str]] = []
    for row in winners(facts.rows):
        tried = {result.config.learning_rate for result in _tried(facts, row)}
        ends = {min(tried): "low", max(tried): "high"} if len(tried) > 1 else dict.fromkeys(tried, "both")
        found.append((row, ends.get(row.config.learning_rate, "")))
    return found


def _tried(facts: _Facts, row: SummaryRow) -> list[Result]:
    """Return what was trained to choose this row's method within its problem, probes included."""
    mine = (
        result for result in facts.results if result.role is not Role.CONFIRM and result.config.method == row.method
    )
    return [result for result in mine if all(getattr(result.config, name) == value for name, value in row.problem)]


def _edges(facts: _Facts) -> list[Caveat]:
    found: list[Caveat] = []
    sides = {"low": "lowest", "high": "highest"}
    edges = _edges_of(facts)
    for side, word in sides.items():
        rows = [row for row, edge in edges if edge == side]
        if rows:
            shown = _named([f"{row.label} ({rate_text(row.selected_rate)})" for row in rows])
            text = f"The best learning rate is the {word} tried in {shown}: a better one may lie beyond."
            found.append(Caveat("edge", True, text))
    single = [row.label for row, edge in edges if edge == "both"]
    if single:
        text = f"No learning rate stands out between others in {_named(single)}: the learning rate is not tuned there."
        found.append(Caveat("edge", True, text))
    return found


def _batch_edges(facts: _Facts) -> list[Caveat]:
    found: list[str] = []
    for row in winners(facts.rows):
        batches = {other.batch_size for other in facts.rows if other.method == row.method}
        if len(batches) > 1 and row.batch_size in (min(batches), max(batches)):
            side = "smallest" if row.batch_size == min(batches) else "largest"
            found.append(f"{row.method} (the {side}, {row.batch_size})")
    text = f"The best batch size is on the edge of those tried for {', '.join(found)}: a better one may lie beyond."
    return [Caveat("batch edge", False, text)] if found else []


def _diverged(facts: _Facts) -> list[Caveat]:
    counts = Counter(result.config.method for result in facts.results if result.status is Status.DIVERGED)
    if not counts:
        return []
    totals = Counter(result.config.method for result in facts.results)
    shown = ", ".join(f"{method} {counts[method]} of {totals[method]}" for method in sorted(counts))
    fresh = sum(result.status is Status.DIVERGED and result.role is Role.CONFIRM for result in facts.results)
    text = (
        f"{plural(sum(counts.values()), 'trial')} diverged ({shown}). Each counts with the base's loss and accuracy 0."
    )
    if fresh:
        text += f" {fresh} of them {'was a rerun' if fresh == 1 else 'were reruns'} of a selected configuration."
    return [Caveat("diverged", bool(fresh), text)]


def _seeds(facts: _Facts) -> list[Caveat]:
    found: list[Caveat] = []
    chosen = facts.rows if facts.declaration.budget is None else winners(facts.rows)
    unconfirmed = [row.label for row in chosen if not row.fresh]
    if unconfirmed:
        text = f"No fresh-seed rerun of {_named(unconfirmed)}: its loss was selected on and is too good."
        found.append(Caveat("single seed", True, text))
    single = [row.label for row in facts.rows if len(row.fresh) == 1]
    if single:
        text = f"A single fresh seed, hence no interval, in {_named(single)}."
        found.append(Caveat("single seed", True, text))
    if any(row.num_selection_seeds == 1 for row in facts.rows):
        text = "Selection saw one seed for each learning rate, so that chance has a part in which one was chosen."
        found.append(Caveat("single seed", False, text))
    return found


def _budgets(facts: _Facts) -> list[Caveat]:
    trials: Counter[str] = Counter()
    tokens: defaultdict[str, int] = defaultdict(int)
    for result in facts.results:
        if result.role is not Role.CONFIRM:
            trials[result.config.method] += 1
            tokens[result.config.method] += result.num_tokens
    if len(trials) < 2:
        return []
    same_trials = len(set(trials.values())) == 1
    same_tokens = max(tokens.values()) <= (1 + UNEQUAL) * min(tokens.values())
    if same_tokens and (same_trials or facts.declaration.budget is not None):
        return []
    shown = ", ".join(f"{method} {plural(trials[method], 'trial')} and {tokens[method]:,} tokens" for method in trials)
    if facts.declaration.budget is not None:
        had = f"Every method could spend {facts.declaration.budget:g} run-equivalents, and they spent {shown}"
        return [Caveat("budget", False, f"{had}; a diverged trial ends early, and a search may be done before.")]
    why = "; a diverged trial ends early" if same_trials else ""
    return [Caveat("budget", not same_trials, f"The methods were not tuned at equal cost: {shown}{why}.")]


def _steps(facts: _Facts) -> list[Caveat]:
    few = [
        f"{row.label} ({plural(row.num_steps, 'step')})"
        for row in facts.rows
        if row.num_steps < FEW_STEPS and row.num_diverged < row.num_trials
    ]
    text = f"Fewer than {FEW_STEPS} optimizer steps in {_named(few)}: the schedule hardly unfolds there."
    return [Caveat("few steps", False, text)] if few else []


def _in_bfloat16(facts: _Facts) -> list[str]:
    """Return the shipped methods that were trained in bfloat16."""
    methods = {result.config.method for result in facts.results if result.config.dtype == "bfloat16"}
    return sorted(methods.intersection(plugins.names("methods")))


def _delta_form(facts: _Facts) -> list[Caveat]:
    """Say where the published form of a method has a rounding that ours has not (design decision 0001)."""
    methods = [name for name in _in_bfloat16(facts) if plugins.load("methods", name).parametrisation().anchors]
    if not methods:
        return []
    names = " and ".join(methods)
    text = (
        f"{names} train as differences to an untouched base. The published form stores W - s B0 A0, rounded here to "
        "bfloat16, so that theirs starts off the base model and ours does not: these numbers are the kinder ones."
    )
    return [Caveat("delta form", False, text)]


def _rounding(facts: _Facts) -> list[Caveat]:
    """Say who loses in bfloat16 what is kept here (decision 0042, where it was measured)."""
    if not any(result.config.dtype == "bfloat16" for result in facts.results):
        return []
    text = (
        "In bfloat16 what an adapter adds is rounded together with the base's output. PEFT adds it to an output that "
        "is rounded already, and a merged model rounds it with the weights: both lose small changes and read higher "
        "losses with the same adapter, most of all after short trials at low learning rates."
    )
    whole = [name for name in _in_bfloat16(facts) if plugins.load("methods", name).parametrisation().whole]
    if not whole or len({result.config.method for result in facts.results}) == 1:
        return [Caveat("rounding", False, text)]
    lost = (
        f"What {' and '.join(whole)} changes is rounded with the weights, small changes are lost: compare in float32."
    )
    return [Caveat("rounding", True, f"{text} {lost}")]


def _environments(facts: _Facts) -> list[Caveat]:
    environments = facts.declaration.environments
    if len(environments) < 2:
        return []
    parsed = [json.loads(environment) for environment in environments]
    names = sorted({name for one in parsed for name in one})
    differing = [name for name in names if len({json.dumps(one.get(name), sort_keys=True) for one in parsed}) > 1]
    text = f"The trials ran in {len(environments)} environments; these differ: {', '.join(differing)}."
    return [Caveat("environments", False, text)]


def _data(facts: _Facts) -> list[Caveat]:
    found: list[Caveat] = []
    for survey in facts.declaration.surveys:
        if survey.num_duplicates:
            count = f"{plural(survey.num_duplicates, 'training row')} {'has' if survey.num_duplicates == 1 else 'have'}"
            found.append(Caveat("duplicates", True, f"{count} a prompt that also stands in validation or test."))
        if survey.num_truncated:
            found.append(Caveat("truncated", False, f"{_rows(survey.num_truncated)} cut at the maximum length."))
        if survey.num_dropped:
            text = f"{_rows(survey.num_dropped)} dropped, because no completion was left within the maximum length."
            found.append(Caveat("dropped", False, text))
    return found


def _reads(facts: _Facts) -> list[Caveat]:
    count = facts.declaration.num_test_reads
    if not count:
        return []
    text = f"The test split was read for {plural(count, 'rerun')}, each after selection was frozen."
    if facts.declaration.hindsight:
        text += " Then, after the verdict was stored, an oracle pass read it for the adapters of selection."
    return [Caveat("test reads", False, text)]


def _mixed_problems(facts: _Facts) -> list[Caveat]:
    fields = [name for name in facts.declaration.cell if name in PROBLEM]
    count = len({row.problem for row in facts.rows})
    if count < 2:
        return []
    text = f"The study holds {count} problems ({', '.join(fields)} vary): numbers compare within each only."
    return [Caveat("problems", False, text)]


def _lost(facts: _Facts) -> list[Caveat]:
    found: list[Caveat] = []
    if facts.declaration.num_lost:
        text = f"{plural(facts.declaration.num_lost, 'job')} lost to the machine and run again; no score was lost."
        found.append(Caveat("lost", False, text))
    never = [result for result in facts.results if result.status in (Status.LOST, Status.STOPPED)]
    for status, why in ((Status.LOST, "lost to the machine"), (Status.STOPPED, "stopped early")):
        count = sum(result.status is status for result in never)
        if count:
            pronoun = "it" if count == 1 else "them"
            text = f"{plural(count, 'trial')} {why}, without a score: averages leave {pronoun} out."
            found.append(Caveat("unscored", True, text))
    return found


def _unfinished(facts: _Facts) -> list[Caveat]:
    if facts.declaration.finished:
        return []
    done, planned = len(facts.results), facts.declaration.num_planned
    share = f"{done} of {plural(planned, 'trial')} have ended" if planned else f"{plural(done, 'trial')} ended so far"
    return [Caveat("unfinished", True, f"The study is unfinished: {share}. Every number here may still change.")]


CHECKS: tuple[Callable[[_Facts], list[Caveat]], ...] = (
    _edges,
    _diverged,
    _seeds,
    _budgets,
    _batch_edges,
    _steps,
    _mixed_problems,
    _delta_form,
    _rounding,
    _environments,
    _data,
    _reads,
    _lost,
    _unfinished,
)


def _named(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    shown = [f"“{name}”" if "," in name else name for name in names[:NAMED]]
    return "; ".join(shown) + (f"; and {rest} more" if rest > 0 else "")


def _rows(count: int) -> str:
    return f"{plural(count, 'training row')} {'was' if count == 1 else 'were'}"
