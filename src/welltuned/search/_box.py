"""Learning rates beyond those offered: a guided search goes on outward where the best may lie past an end. Pure.

A candidate beyond the ends exists for every setting of the axes. Which of them there are follows from the results:
those whose rate was tried, and one step further on a side where the best of the known rates is likelier that end than
any inside. So nobody extends the range of the method he likes: the rule is the same for all, and fixed beforehand.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from welltuned.records import Config, Result, Role
from welltuned.search._options import Floats
from welltuned.search._space import Candidate, Choice

DIGITS = 10  # significant, as of a named grid: equal to the bit on machines whose pow() rounds differently
LIKELY = 0.5  # probability of an end from which on the search looks beyond it


def with_tried(choice: Choice, results: Sequence[Result]) -> Choice:
    """Return a choice with the learning rates that were tried beyond the offered ones."""
    offered = rates(choice)
    tried = {result.config.learning_rate for result in choice.results(results, Role.SELECT, Role.PROBE)}
    return _with(choice, sorted(rate for rate in tried if not offered[0] <= rate <= offered[-1]))


def with_next(choice: Choice, draws_SC: Floats, favourite: int) -> Choice:
    """Return a choice with one more learning rate beyond each end where the best one may be.

    `draws_SC` are of the candidates' log losses; rates are compared at the favourite's setting of everything else.
    """
    known = rates(choice)
    if len(known) == 1:
        return choice  # nobody asked for the learning rate to be tuned
    setting = _setting(choice.candidates[favourite])
    same = [place for place, candidate in enumerate(choice.candidates) if _setting(candidate) == setting]
    same.sort(key=lambda place: choice.candidates[place].config.learning_rate)
    best = draws_SC[:, same].argmin(axis=1)
    beyond: list[float] = []
    if float((best == 0).mean()) > LIKELY:
        beyond.append(known[0] * known[0] / known[1])
    if float((best == len(same) - 1).mean()) > LIKELY:
        beyond.append(known[-1] * known[-1] / known[-2])
    return _with(choice, [float(f"{rate:.{DIGITS}g}") for rate in beyond])


def rates(choice: Choice) -> list[float]:
    """Return the learning rates of a choice's candidates, ascending."""
    return sorted({candidate.config.learning_rate for candidate in choice.candidates})


def _with(choice: Choice, beyond: Iterable[float]) -> Choice:
    """Add candidates at these rates, one for each setting of the axes, behind those that are there."""
    first: dict[Config, Candidate] = {}
    for candidate in choice.candidates:
        first.setdefault(_setting(candidate), candidate)
    added = (
        Candidate(tuple(config.replace(learning_rate=rate) for config in candidate.configs))
        for rate in beyond
        for candidate in first.values()
    )
    return dataclasses.replace(choice, candidates=(*choice.candidates, *added))


def _setting(candidate: Candidate) -> Config:
    return candidate.config.replace(learning_rate=1.0)
