"""What several claims need: methods by their names anywhere, values in points, families of comparisons, subsets.

A claim in accuracy points is read on a loss as per cent of the best tuned loss of its problem: the protocol pairs 1
point with 1 % of the loss (docs/fairness.md).
"""

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from welltuned import rng
from welltuned.analysis.claims._claim import Answer, Verdict, judge, lacks, largest, smallest
from welltuned.analysis.estimate import Estimate
from welltuned.analysis.grid import TABLES, Mean, Place, Tuned, places, tuned
from welltuned.analysis.runs import Pairs, Run, Table

LORA = ("lora", "inita")  # as `plain` writes names; plain LoRA is Init[A]
FULL = ("full", "fft", "fullfinetuning")
FEWEST_RATES = 3  # the protocol: what a tuned baseline has at least (docs/fairness.md)
DORA, PISSA, MILORA, INIT_AB, INIT_B = ("dora",), ("pissa",), ("milora",), ("initab",), ("initb",)


def plain(name: str) -> str:
    """Return a method's name without case and punctuation.

    >>> plain("Init[AB]"), plain("init_ab"), plain("LoRA")
    ('initab', 'initab', 'lora')
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find(table: Table, names: Sequence[str]) -> str | None:
    """Return the table's own name of a method, None where it has none."""
    known = {plain(method): method for method in table.methods()}
    return next((known[name] for name in names if name in known), None)


def generator(claim: str) -> np.random.Generator:
    """Return the claim's own stream: the same table gives the same ledger."""
    return rng.stream(0, "ledger", claim)


SMALLEST = 1e-50  # a best loss below this is 0, of which nothing is a percentage; assumed


@functools.lru_cache(maxsize=TABLES)
def in_points(table: Table) -> tuple[Table, str]:
    """Return the table in accuracy points, or in per cent of the best tuned value of its problem, and the unit.

    Accuracies that are all at most 1 are shares; others are per cent already.
    """
    if table.higher_is_better:
        factor = 100.0 if max(abs(run.value) for run in table.runs) <= 1 else 1.0
        return _scaled(table, dict.fromkeys(table.problems(), factor)), "points"
    best: dict[Pairs, float] = {}
    for cell in tuned(table):
        best[cell.place.problem] = min(cell.value, best.get(cell.place.problem, cell.value))
    factors = {problem: 100.0 / value if value > SMALLEST else 1.0 for problem, value in best.items()}
    return _scaled(table, factors), "% of the best value"


def _scaled(table: Table, factors: dict[Pairs, float]) -> Table:
    def scaled(run: Run) -> Run:
        factor = factors.get(run.problem, 1.0)
        return replace(run, value=factor * run.value, sd=None if run.sd is None else factor * run.sd)

    return table.only([scaled(run) for run in table.runs])


def when_tuned(evaluate: Callable[[Table], Answer]) -> Callable[[Table], Answer]:
    """Return the evaluation on the cells whose learning rate was tuned, for a claim about tuned values.

    A cell with one or two rates was not; one with reruns only was tuned by whoever chose them. A table of methods at
    their default rates must not pass for a comparison of tuned ones.
    """

    def on_tuned_cells(table: Table) -> Answer:
        fixed = {cell.place.without("learning_rate") for cell in tuned(table) if 0 < cell.num_rates < FEWEST_RATES}
        if not fixed:
            return evaluate(table)
        where = places(table)
        dropped = {place for place in set(where) if place.without("learning_rate") in fixed}
        kept = [run for at, run in enumerate(table.runs) if where[at] not in dropped]
        if not kept:
            return lacks(f"{FEWEST_RATES} learning rates in any cell: nothing in it is tuned")
        return evaluate(table.only(kept))

    return on_tuned_cells


def only_methods(table: Table, *methods: str) -> Table:
    """Return the table of some methods' runs."""
    return table.only([run for run in table.runs if run.method in methods])


def setting(run: Run, name: str) -> str | None:
    """Return what a run says of a setting, None where it says nothing."""
    return dict(run.setting).get(name)


def by_method(cells: Iterable[Tuned], *apart: str) -> dict[Place, dict[str, list[Tuned]]]:
    """Group tuned cells by their place without learning rate, method and `apart`, then by method."""
    found: defaultdict[Place, dict[str, list[Tuned]]] = defaultdict(dict)
    for cell in cells:
        group = found[cell.place.without("learning_rate", "method", *apart)]
        group.setdefault(cell.place.method, []).append(cell)
    return found


def grid_of(members: Iterable[Mean], *apart: str) -> dict[Place, list[Mean]]:
    """Group configurations by their place without `apart`."""
    found: defaultdict[Place, list[Mean]] = defaultdict(list)
    for member in members:
        found[member.place.without(*apart)].append(member)
    return found


def both(one: Estimate, other: Estimate) -> Estimate:
    """Return the smaller of two, for "this and that"."""
    return smallest([one, other])


def change_of_sign(advantages: Sequence[Estimate], ordered: bool) -> Estimate:
    """Return the size of the largest change from ahead to behind; negative: none.

    That is max over pairs of min(advantage at one, minus that at the other), over pairs in the given order or in both.
    """
    indices = range(len(advantages))
    pairs = itertools.combinations(indices, 2) if ordered else itertools.permutations(indices, 2)
    return largest([both(advantages[first], advantages[second].negated()) for first, second in pairs])


def judge_family(
    estimates: Callable[[float], Estimate], level: float, unit: str, low: float, high: float, detail: str = ""
) -> Answer:
    """Judge an equivalence: support at 90 % (two one-sided tests at 5 %), contradiction at the simultaneous `level`."""
    answer = judge(estimates(0.9), unit, low, high, detail)
    if answer.verdict is Verdict.CONTRADICTED:
        strict = judge(estimates(level), unit, low, high, detail).verdict
        return replace(answer, verdict=strict if strict is Verdict.CONTRADICTED else Verdict.UNDECIDED)
    return answer
