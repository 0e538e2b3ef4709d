"""Which conclusions survive: every "A is better than B by x" that a table invites, and what it would need to hold.

A conclusion is drawn for each method against the baseline, and for the best against the runner-up, on each problem. It
  does not survive     where the difference lies within the noise, read in the way kindest to the conclusion;
  survives             where the loser was tuned (at least 3 learning rates, the best not at their edge, no fewer batch
                       sizes and ranks than the winner), and the difference exceeds the noise read in the way least kind
                       to it, both with Holm's correction over all conclusions of the table and after what picking the
                       best can add is taken off; it is said of whom, at which configurations, and where inside of
                       what was tried the other one is ahead;
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
from welltuned.audit.configurations import group, repeats_seed
from welltuned.audit.noise import Noise
from welltuned.audit.records import Book
from welltuned.audit.scope import scope
from welltuned.audit.selection import Inflation, inflation
from welltuned.audit.tuned import NEEDED, NOUNS, Tuned
from welltuned.audit.wording import listed

LEVEL = 0.05  # of a family of conclusions


class Standing(enum.StrEnum):
    """What became of a conclusion."""

    SURVIVES = "survives"
    DOES_NOT = "does not survive"
    CANNOT_TELL = "cannot be told"


@dataclass(frozen=True)
class Conclusion:
    """One "winner is better than loser by difference", in the metric's unit; the difference is > 0.

    Where one has no number of the kind that judges, who is called the winner is the better by the numbers that chose.
    """

    problem: Pairs
    winner: str
    loser: str
    winner_value: float | None  # None, as the next two: one of them has no number of the kind that judges
    loser_value: float | None
    difference: float | None
    noise: Noise
    p_value: float | None  # two-sided, noise read in the way least kind; None where that is not known
    adjusted_p: float | None  # Holm's
    inflation: Inflation
    standing: Standing
    reasons: tuple[str, ...]  # why it does not survive, or cannot be told
    scope: tuple[str, ...]  # within which it holds


def conclusions(book: Book, tuned: Sequence[Tuned], baseline: str) -> tuple[Conclusion, ...]:
    """Judge every conclusion that the table invites. Equal values invite none."""
    members, tried = group(book.judging), group(book.choosing)
    problems = dict.fromkeys(row.problem for row in tuned)
    drawn: list[tuple[Conclusion, Tuned, Tuned]] = []
    for where in problems:
        here = [row for row in tuned if row.problem == where]
        near = [one for one in members if one.place.problem == where]
        drawn += [(_drawn(book, winner, loser, near), winner, loser) for winner, loser in _pairs(book, here, baseline)]
    adjusted = holm([one.p_value for one, _, _ in drawn])
    return tuple(
        _judged(book, replace(one, adjusted_p=p.adjusted), winner, loser, tried)
        for (one, winner, loser), p in zip(drawn, adjusted, strict=True)
    )


def _pairs(book: Book, here: Sequence[Tuned], baseline: str) -> list[tuple[Tuned, Tuned]]:
    """Return (winner, loser) of every comparison on a problem: with the baseline, and the best with the runner-up."""
    shown = [(row, row.headline.value) for row in here if row.headline is not None]
    ranked = [row for row, _ in sorted(shown, key=lambda pair: -book.judging.table.sign * pair[1])]
    pairs = [(ranked[0], ranked[1])] if len(ranked) > 1 else []
    base = next((row for row in here if row.method == baseline), None)
    for row in here:
        if base is not None and row is not base:
            both = row in ranked and base in ranked
            order = ranked if both else sorted(here, key=lambda one: -book.choosing.table.sign * one.chosen.value)
            pairs.append((row, base) if order.index(row) < order.index(base) else (base, row))
    distinct = {(one.method, other.method): (one, other) for one, other in pairs}
    return [(one, other) for one, other in distinct.values() if not _equal(one.headline, other.headline)]


def _equal(one: Mean | None, other: Mean | None) -> bool:
    return one is not None and other is not None and one.value == other.value


def _drawn(book: Book, winner: Tuned, loser: Tuned, near: Sequence[Mean]) -> Conclusion:
    one, other = winner.headline, loser.headline
    found, difference = noises.UNKNOWN, None
    if one is not None and other is not None:
        found = noises.of_difference(one, other, near, book.judging)
        difference = abs(one.value - other.value)
    added = inflation(book, winner.num_configurations, None if found.high is None else found.high / math.sqrt(2))
    return Conclusion(
        problem=winner.problem,
        winner=winner.method,
        loser=loser.method,
        winner_value=one.value if one is not None else None,
        loser_value=other.value if other is not None else None,
        difference=difference,
        noise=found,
        p_value=two_sided(difference / found.high, found.high_degrees) if difference and found.high else None,
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


def _judged(book: Book, one: Conclusion, winner: Tuned, loser: Tuned, tried: Sequence[Mean]) -> Conclusion:
    unread = _not_comparable(book, winner, loser)
    if unread:
        return replace(one, reasons=tuple(unread))
    within = _within_noise(one)
    doubts = [*_untuned(winner, loser), *_unseparated(one), *_selected(one)]
    if within:
        return replace(one, standing=Standing.DOES_NOT, reasons=(within, *_untuned(winner, loser)))
    if doubts:
        return replace(one, reasons=tuple(doubts))
    return replace(one, standing=Standing.SURVIVES, scope=tuple(scope(winner, loser, tried, book.choosing)))


def _not_comparable(book: Book, winner: Tuned, loser: Tuned) -> list[str]:
    """Say who has no number of the kind that judges, and whose repeats differ in more than the seed."""
    rows = (winner, loser)
    bare = [f"{row.method} has no {book.judged_by} of its best configuration" for row in rows if row.headline is None]
    columns = listed(book.unread)
    mixed = [
        f"repeats of {row.method} that have the same seed differ in {columns}, which was not read"
        for row in rows
        if columns and row.headline is not None and repeats_seed(row.headline)
    ]
    return [*bare, *mixed]


def _within_noise(one: Conclusion) -> str:
    if not one.noise.low or not one.difference:
        return ""
    p = two_sided(one.difference / one.noise.low, one.noise.low_degrees)
    return "within the noise" if p >= LEVEL else ""


def _untuned(winner: Tuned, loser: Tuned) -> list[str]:
    """Say what the loser was not given: to lose fairly it must have been tuned."""
    rates = loser.knob("learning_rate")
    found: list[str] = []
    if rates.count is None:
        found.append(f"which learning rates {loser.method} was given is not said")
    elif rates.count < NEEDED["learning_rate"]:
        least = NEEDED["learning_rate"]
        found.append(f"{loser.method} was tuned over {plural(rates.count, 'learning rate')}, not at least {least}")
    elif rates.is_tied:
        found.append(f"{loser.method} was given one learning rate at its best batch size and rank")
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
    if not one.inflation.bound or not one.noise.high or one.difference is None:
        return []
    left = max(0.0, one.difference - one.inflation.bound)
    if two_sided(left / one.noise.high, one.noise.high_degrees) < LEVEL:
        return []
    tried = one.inflation.num_tried
    return [f"{one.winner} is the best of {tried} by the very numbers shown: too little is left without what that adds"]
