"""The rungs that halving climbs: shares of a full course, each REDUCTION times the one below, the last the whole. Pure.

At every rung but the last a candidate is trained by a probe of that length, on the first selection seed. The probe's
schedule is annealed within its own course, so the losses at one rung are comparable, and those of two rungs are not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.costs import flops
from welltuned.records import Role, Status, Trial
from welltuned.search import _final, _space

REDUCTION = 3  # eta, between the 3 and 4 that Li et al. 2018 (Hyperband, section 2.6) advise
MOST_RUNGS = 3  # below the full course: the shortest probe is 1/27 of it; assumed
FEWEST_STEPS = 4  # optimizer steps of the shortest probe, at the largest batch; fewer say nothing; assumed


@dataclass(frozen=True)
class Ladder:
    """The rungs of a choice: the shares of its probes, ascending; then comes the full course."""

    choice: _space.Choice
    shares: tuple[float, ...]

    @property
    def top(self) -> int:
        """Return the rung of the full course."""
        return len(self.shares)

    def trials(self, candidate: _space.Candidate, rung: int) -> tuple[Trial, ...]:
        """Return what trains a candidate at a rung: a probe, or its full trials on all seeds."""
        if rung == self.top:
            return candidate.trials
        return (Trial(_space.shortened(candidate.config, self.shares[rung]), Role.PROBE),)

    def cost(self, candidate: _space.Candidate, rung: int) -> float:
        """Return what that costs in run-equivalents; each rung starts from the beginning."""
        return sum(self.choice.cost(trial) for trial in self.trials(candidate, rung))


def ladder(choice: _space.Choice) -> Ladder:
    """Return the rungs of a choice: as many as leave even the largest batch some steps."""
    fewest = min(flops.num_steps(candidate.config) for candidate in choice.candidates)
    number = sum(fewest * REDUCTION**-below >= FEWEST_STEPS for below in range(1, MOST_RUNGS + 1))
    return Ladder(choice, tuple(REDUCTION**-below for below in range(number, 0, -1)))


def num_kept(number: int, at_least: int = 1) -> int:
    """Return how many of a rung's candidates climb to the next."""
    return max(at_least, math.floor(number / REDUCTION))


def best(
    ladder: Ladder, members: Sequence[_space.Candidate], rung: int, done: _final.Done, at_least: int = 1
) -> list[_space.Candidate]:
    """Return who climbs of the candidates trained at a rung, the best first, on a tie the lower rate.

    One that diverged counts among them, and does not climb while another can.
    """
    probe_of = {one: ladder.trials(one, rung)[0] for one in members}
    ranked = sorted(members, key=lambda one: _final.rank(one, probe_of[one], done))
    sound = [one for one in ranked if done[_final.key_of(probe_of[one])].status is Status.FINISHED]
    return sound[: num_kept(len(members), at_least)] or ranked[:at_least]
