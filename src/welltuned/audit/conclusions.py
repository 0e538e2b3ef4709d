"""Which conclusions survive: every "A is better than B by x" that a table invites, and what it would need to hold.

A conclusion is drawn for each method against the baseline, and for the best against the runner-up, on each problem. It
  does not survive     where the difference lies within the noise, read in the way kindest to the conclusion;
  survives             where the loser was tuned (at least 3 learning rates, the best not at their edge, no fewer batch
                       sizes and ranks than the winner), and the difference exceeds the noise read in the way least kind
                       to it, both with Holm's correction over all conclusions of the table and after what picking the
                       best can add is taken off;
  cannot be told       else: the table does not say enough, or not enough was tried.
Only the loser must have been tuned: a winner that was not could only have won by more.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from welltuned.analysis.grid import Mean
from welltuned.analysis.multiplicity import holm
from welltuned.analysis.runs import Pairs
from welltuned.analysis.wording import plural
from welltuned.audit import noise as noises
from welltuned.audit.configurations import group
from welltuned.audit.noise import Noise
from welltuned.audit.records import Book
from welltuned.audit.selection import Inflation, inflation
from welltuned.audit.tuned import NEEDED, NOUNS, Tuned

LEVEL = 0.05  # of a family of conclusions


class Standing(enum.StrEnum):
    """What became of a conclusion."""

    SURVIVES = "survives"
    DOES_NOT = "does not survive"
    CANNOT_TELL = "cannot be told"


@dataclass(frozen=True)
class Conclusion:
    """One "winner is better than loser by difference", in the metric's unit; the difference is > 0."""

    problem: Pairs
    winner: str
    loser: str
    winner_value: float
    loser_value: float
    difference: float
    noise: Noise
    p_value: float | None  # two-sided, noise read in the way least kind; None where that is not known
    adjusted_p: float | None  # Holm's
    inflation: Inflation
    standing: Standing
    reasons: tuple[str, ...]  # why it does not survive, or cannot be told
    scope: tuple[str, ...]  # within which it holds


def conclusions(book: Book, tuned: Sequence[Tuned], baseline: str) -> tuple[Conclusion, ...]:
    """Judge every conclusion that the table invites. Equal values invite none."""
    members = group(book.judging)
    problems = dict.fromkeys(row.problem for row in tuned)
    drawn: list[tuple[Conclusion, Tuned, Tuned]] = []
    for where in problems:
        here = [row for row in tuned if row.problem == where]
        near = [one for one in members if one.place.problem == where]
        drawn += [(_drawn(book, winner, loser, near), winner, loser) for winner, loser in _pairs(book, here, baseline)]
    adjusted = holm([one.p_value for one, _, _ in drawn])
    return tuple(
        _judged(replace(one, adjusted_p=p.adjusted), winner, loser)
        for (one, winner, loser), p in zip(drawn, adjusted, strict=True)
    )


def _pairs(book: Book, here: Sequence[Tuned], baseline: str) -> list[tuple[Tuned, Tuned]]:
    """Return (winner, loser) of every comparison on a problem: with the baseline, and the best with the runner-up."""
    ranked = sorted(here, key=lambda row: -book.judging.table.sign * row.headline.value)
    base = next((row for row in here if row.method == baseline), None)
    pairs = [(ranked[0], ranked[1])] if len(ranked) > 1 else []
    if base is not None:
        place = ranked.index(base)
        pairs += [(row, base) for row in ranked[:place]] + [(base, row) for row in ranked[place + 1 :]]
    distinct = {(one.method, other.method): (one, other) for one, other in pairs}
    return [(one, other) for one, other in distinct.values() if one.headline.value != other.headline.value]


def _drawn(book: Book, winner: Tuned, loser: Tuned, near: Sequence[Mean]) -> Conclusion:
    one, other = winner.headline, loser.headline
    found = noises.of_difference(one, other, near, book.judging)
    difference = abs(one.value - other.value)
    added = inflation(book, winner.num_configurations, None if found.high is None else found.high / math.sqrt(2))
    return Conclusion(
        problem=winner.problem,
        winner=winner.method,
        loser=loser.method,
        winner_value=one.value,
        loser_value=other.value,
        difference=difference,
        noise=found,
        p_value=None if not found.high else two_sided(difference / found.high, found.degrees),
        adjusted_p=None,
        inflation=added,
        standing=Standing.CANNOT_TELL,
        reasons=(),
        scope=(),
    )


def two_sided(statistic: float, degrees: float) -> float:
    """Return the two-sided p-value of Student's t, or of a normal variable for infinite degrees of freedom."""
    from scipy.special import ndtr, stdtr  # here, because loading scipy takes longer than `welltuned --help`

    below = ndtr(-abs(statistic)) if math.isinf(degrees) else stdtr(degrees, -abs(statistic))
    return 2 * float(below)


def _judged(one: Conclusion, winner: Tuned, loser: Tuned) -> Conclusion:
    within = _within_noise(one)
    doubts = [*_untuned(winner, loser), *_unseparated(one), *_selected(one)]
    if within:
        return replace(one, standing=Standing.DOES_NOT, reasons=(within, *_untuned(winner, loser)))
    if doubts:
        return replace(one, standing=Standing.CANNOT_TELL, reasons=tuple(doubts))
    return replace(one, standing=Standing.SURVIVES, scope=tuple(_scope(winner, loser)))


def _within_noise(one: Conclusion) -> str:
    if not one.noise.known or one.noise.low is None:
        return ""
    p = two_sided(one.difference / one.noise.low, one.noise.degrees)
    return "within the noise" if p >= LEVEL else ""


def _untuned(winner: Tuned, loser: Tuned) -> list[str]:
    """Say what the loser was not given: to lose fairly it must have been tuned."""
    rates = loser.knob("learning_rate")
    found: list[str] = []
    if rates.count is None:
        found.append(f"which learning rates {loser.method} was given is not said")
    elif not rates.passes:
        least = NEEDED["learning_rate"]
        found.append(f"{loser.method} was tuned over {plural(rates.count, 'learning rate')}, not at least {least}")
    elif rates.edge:
        found.append(
            f"{loser.method}'s best learning rate is the {EDGE[rates.edge]} tried, a better one may lie beyond"
        )
    for name in ("batch_size", "rank"):
        mine, theirs = loser.knob(name).count, winner.knob(name).count
        if mine is not None and theirs is not None and mine < theirs:
            given = f"{plural(mine, NOUNS[name])}, {winner.method} {theirs}"
            found.append(f"{loser.method} was given {given}")
    return found


EDGE = {"low": "lowest", "high": "highest"}


def _unseparated(one: Conclusion) -> list[str]:
    if one.noise.seeds is None:
        return [f"how much seeds matter is not said ({one.noise.source})"]
    if one.noise.high is None:
        return ["how much seeds matter is known from below only, since the repeats share one seed"]
    if one.noise.high == 0:
        return ["no noise at all in the repeats: they are copies, or printed too coarsely"]
    if one.p_value is not None and one.p_value >= LEVEL:
        return [f"not told apart, if the two answer independently (p = {one.p_value:.2g})"]
    if one.adjusted_p is not None and one.adjusted_p >= LEVEL:
        return [f"one of many comparisons: p = {one.p_value:.2g} alone, {one.adjusted_p:.2g} among all (Holm)"]
    return []


def _selected(one: Conclusion) -> list[str]:
    if not one.inflation.bound or not one.noise.high:
        return []
    left = max(0.0, one.difference - one.inflation.bound)
    if two_sided(left / one.noise.high, one.noise.degrees) < LEVEL:
        return []
    tried = one.inflation.num_tried
    return [f"{one.winner} is the best of {tried} by the very numbers shown: too little is left without what that adds"]


def _scope(winner: Tuned, loser: Tuned) -> list[str]:
    found: list[str] = []
    for name in ("batch_size", "rank"):
        both = sorted({*winner.knob(name).values, *loser.knob(name).values})
        if not both:
            found.append(f"at {NOUNS[name]}s that are not said")
        elif len(both) == 1:
            found.append(f"at {NOUNS[name]} {both[0]:g} only")
        else:
            found.append(f"for {NOUNS[name]}s {both[0]:g} to {both[-1]:g}")
    return found
