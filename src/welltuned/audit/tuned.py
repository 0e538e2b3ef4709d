"""What was tuned for whom: the learning rates, batch sizes, ranks and seeds that each method was given on each problem.

The criterion of a tuned baseline is that of the audit of 64 papers in "Learning Rate Matters" (arXiv 2602.04998): at
least 3 learning rates, 3 batch sizes and 2 ranks. What a table does not say is None, which neither meets nor fails it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from welltuned.analysis.grid import Mean
from welltuned.analysis.runs import Pairs
from welltuned.audit import edges
from welltuned.audit.configurations import best, group, key_of, of
from welltuned.audit.records import TEST_ROW, Book
from welltuned.errors import InputError, problem

NEEDED = {"learning_rate": 3, "batch_size": 3, "rank": 2}  # arXiv 2602.04998, its criterion
NOUNS = {"learning_rate": "learning rate", "batch_size": "batch size", "rank": "rank"}
USUAL = "lora"  # the baseline's name, in any case


@dataclass(frozen=True)
class Knob:
    """A knob of one method on one problem: the values it was given, and whether the best lies on their edge."""

    name: str
    values: tuple[float, ...]  # distinct, ascending; empty: the table does not say
    num_at_best: int  # of them, those among which the best was found (edges.py)
    edge: str | None  # of these: "low" | "high" | "" inside | None: one value only, or unknown

    @property
    def count(self) -> int | None:
        """Return how many values were tried, None where the table does not say."""
        return len(self.values) or None

    @property
    def passes(self) -> bool | None:
        """Say whether there are enough for a tuned baseline, None where the table does not say."""
        return None if self.count is None else self.count >= NEEDED[self.name] and not self.is_tied

    @property
    def is_tied(self) -> bool:
        """Say whether a learning rate was varied only together with the batch size or the rank: none was tuned."""
        return self.name == "learning_rate" and len(self.values) > 1 and self.num_at_best < 2


@dataclass(frozen=True)
class Tuned:
    """What one method was given on one problem, and what it came to."""

    method: str
    problem: Pairs
    knobs: tuple[Knob, ...]
    num_configurations: int
    num_runs: int
    num_seeds: int | None  # distinct seeds; None: the table does not say
    num_diverged: int
    chosen: Mean  # the configuration with the best mean; in a study, of those that were rerun
    headline: Mean | None  # the same configuration where it is judged; None: it is not

    @property
    def passes(self) -> bool | None:
        """Say whether it was tuned by the criterion: None where the table does not say enough to tell."""
        verdicts = [knob.passes for knob in self.knobs]
        return False if False in verdicts else None if None in verdicts else True

    def knob(self, name: str) -> Knob:
        """Return a knob by its name."""
        return next(knob for knob in self.knobs if knob.name == name)


def tuned(book: Book) -> tuple[Tuned, ...]:
    """Return what each method was given on each problem, in the table's order."""
    chosen, judged = group(book.choosing), group(book.judging)
    keys = dict.fromkeys((run.problem, run.method) for run in book.choosing.table.runs)
    by_key = {key_of(one): one for one in judged}
    return tuple(_tuned(book, of(chosen, method, where), by_key) for where, method in keys)


def _tuned(book: Book, mine: Sequence[Mean], judged: Mapping[tuple[object, ...], Mean]) -> Tuned:
    runs = [run for one in mine for run in one.runs]
    seeds = {run.seed for run in runs if run.seed is not None}
    stated = max(run.num_seeds for run in runs)
    rerun = [one for one in mine if key_of(one) in judged] if book.fresh and book.judged_by != TEST_ROW else []
    winner = best(rerun or mine, book.choosing)  # a search need not rerun the lowest loss of all
    return Tuned(
        method=winner.place.method,
        problem=winner.place.problem,
        knobs=tuple(_knob(name, mine, winner) for name in NEEDED),
        num_configurations=len(mine),
        num_runs=sum(run.num_seeds for run in runs),
        num_seeds=len(seeds) or (stated if "num_seeds" in book.stated else None),
        num_diverged=sum(one.num_diverged for one in mine),
        chosen=winner,
        headline=judged.get(key_of(winner)) if book.fresh else winner,
    )


def _knob(name: str, mine: Sequence[Mean], winner: Mean) -> Knob:
    values = tuple(sorted({value for one in mine if (value := edges.value_of(one, name)) is not None}))
    found = edges.tried(name, mine, winner)
    return Knob(name, values, len(found), edges.edge(found, edges.value_of(winner, name)))


def baseline(methods: Sequence[str], wanted: str | None) -> str:
    """Return the baseline's name as the table has it: the one asked for, else lora. Raises InputError without one."""
    name = USUAL if wanted is None else wanted
    found = [method for method in methods if method.casefold() == name.casefold()]
    exact = [method for method in found if method == name]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    expected = f"one of {', '.join(methods[:NAMED])}{' and more' if len(methods) > NAMED else ''}"
    got = f"no method called '{name}'" if not found else f"{len(found)} methods called '{name}' in other letters"
    raise InputError(problem("baseline", got, expected, "write --baseline NAME"))


NAMED = 12  # methods named in a message before "and more"; assumed
