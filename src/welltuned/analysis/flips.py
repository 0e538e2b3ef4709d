"""Which ranking a study would have found that fixes its configuration, against the ranking of the tuned methods.

For two methods and every configuration (learning rate, batch size, rank) that both were run at: which is ahead there,
by how much, and does that contradict the tuned verdict, in which each method has the best configuration of its own.
The flip rate is the share of the shared configurations whose order is the opposite of the tuned one; equal values
count as no flip. Intervals are over seeds (grid.advantage); without repeats there are none and only signs are counted.
The configurations that the PiSSA and MiLoRA papers fixed are marked where the grid has them, else its nearest point.
Source: the observation is that of "Learning Rate Matters" (2026), whose own tables
contain both published orders.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.estimate import Estimate
from welltuned.analysis.grid import Mean, Place, Tuned, advantage, means, pooled_noise, tuned
from welltuned.analysis.published import PUBLISHED, Nearest, nearest
from welltuned.analysis.runs import Table
from welltuned.analysis.tunability import best_of


@dataclass(frozen=True)
class FixedOutcome:
    """What a study that fixes this configuration finds."""

    place: Place  # without the method
    advantage: Estimate  # of `one` over `other`, larger is better for `one`; in the metric's unit
    ahead: str  # the method that is ahead; "" where they are equal
    flipped: bool  # contradicts the tuned verdict of its problem
    diverged: tuple[str, ...]  # the methods with a diverged run here


@dataclass(frozen=True)
class TunedVerdict:
    """The comparison in which each method has its own best configuration."""

    place: Place  # problem, training rows and settings
    one_place: Place
    other_place: Place
    advantage: Estimate  # of `one`
    ahead: str  # by the values alone; `advantage.sign` says whether beyond seed noise
    fresh: bool  # on reruns that selection never saw


@dataclass(frozen=True)
class Flips:
    """All of it, for one pair."""

    one: str
    other: str
    configurations: tuple[FixedOutcome, ...]
    verdicts: tuple[TunedVerdict, ...]  # one for each problem that has both
    published: tuple[tuple[Nearest, FixedOutcome], ...]
    reason: str  # why there is nothing to compare; "" where there is

    def side(self, method: str) -> tuple[FixedOutcome, ...]:
        """Return the configurations at which a method is ahead."""
        return tuple(outcome for outcome in self.configurations if outcome.ahead == method)

    @property
    def flip_rate(self) -> float | None:
        """Return the share of configurations that contradict the tuned verdict; None where there are none."""
        if not self.configurations:
            return None
        return sum(outcome.flipped for outcome in self.configurations) / len(self.configurations)

    @property
    def significant(self) -> tuple[FixedOutcome, ...]:
        """Return the configurations whose 95 % interval excludes 0."""
        return tuple(outcome for outcome in self.configurations if outcome.advantage.sign)


def flips(table: Table, one: str, other: str) -> Flips:
    """Compare two methods at all shared fixed configurations and when tuned."""
    known = table.methods()
    for method in (one, other):
        if method not in known:
            raise ValueError(f"method: got {method!r}, expected one of {', '.join(known)}")
    noise = pooled_noise(table)
    grid: defaultdict[Place, dict[str, Mean]] = defaultdict(dict)
    for member in means(table):
        grid[member.place.without("method")][member.place.method] = member
    shared = {place: pair for place, pair in grid.items() if one in pair and other in pair}
    verdicts = _verdicts(table, one, other)
    ahead = {verdict.place: verdict.ahead for verdict in verdicts}
    outcomes: list[FixedOutcome] = []
    for place, pair in shared.items():
        gap = advantage(pair[one], pair[other], table, noise)
        leader = _leader(gap.value, one, other)
        tuned_leader = ahead.get(_problem(place), "")
        flipped = bool(leader and tuned_leader and leader != tuned_leader)
        diverged = tuple(method for method in (one, other) if pair[method].num_diverged)
        outcomes.append(FixedOutcome(place, gap, leader, flipped, diverged))
    reason = "" if outcomes else f"{one} and {other} were never run at the same learning rate, batch size and rank"
    return Flips(one, other, tuple(outcomes), verdicts, _published(outcomes), reason)


def _published(outcomes: Sequence[FixedOutcome]) -> tuple[tuple[Nearest, FixedOutcome], ...]:
    by_place = {outcome.place: outcome for outcome in outcomes}
    found = [nearest(fixed, by_place) for fixed in PUBLISHED]
    return tuple((near, by_place[near.place]) for near in found if near is not None)


def _verdicts(table: Table, one: str, other: str) -> tuple[TunedVerdict, ...]:
    groups: defaultdict[Place, dict[str, list[Tuned]]] = defaultdict(dict)
    for cell in tuned(table):
        groups[_problem(cell.place)].setdefault(cell.place.method, []).append(cell)
    found: list[TunedVerdict] = []
    for place, methods in groups.items():
        if one in methods and other in methods:
            ours, theirs = best_of(methods[one], table.sign), best_of(methods[other], table.sign)
            gap = advantage(ours, theirs, table, {})
            leader = _leader(gap.value, one, other)
            found.append(TunedVerdict(place, ours.place, theirs.place, gap, leader, ours.fresh and theirs.fresh))
    return tuple(found)


def _problem(place: Place) -> Place:
    return place.without("learning_rate", "batch_size", "rank", "method")


def _leader(advantage: float, one: str, other: str) -> str:
    return one if advantage > 0 else other if advantage < 0 else ""
