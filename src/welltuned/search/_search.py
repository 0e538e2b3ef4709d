"""What a search is: a pure function of the plan and the results so far, so that resuming is reading the history."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from welltuned.records import Arm, Config, Named, Proposal, Result


class Plan(Protocol):
    """What a search sees of a plan."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The contenders with their configurations, a selection seed each."""
        ...

    @property
    def seed(self) -> int:
        """The study's seed, from which a search's random streams derive."""
        ...

    @property
    def budget(self) -> float | None:
        """What choosing may cost, for each method within each problem, in run-equivalents; None: all there is."""
        ...

    @property
    def width(self) -> int:
        """The trials of each method that are asked for at once."""
        ...

    @property
    def warm_start(self) -> bool:
        """Say whether a search without an expectation of its own begins where the learning-rate rules point."""
        ...

    @property
    def reopen(self) -> bool:
        """Say whether a guided search may go beyond the ends of the offered learning rates."""
        ...

    @property
    def sampler(self) -> Named:
        """The sampler of Optuna that search "optuna" asks."""
        ...

    @property
    def problem(self) -> tuple[str, ...]:
        """The fields of a cell that pose its problem: methods are compared within one and never across."""
        ...

    @property
    def cell(self) -> tuple[str, ...]:
        """The fields that define a cell, within which the learning rate is tuned."""
        ...

    @property
    def graded_tasks(self) -> frozenset[str]:
        """The tasks whose answers are graded; finalists of the others are judged by validation loss only."""
        ...

    def width_of(self, config: Config) -> int | None:
        """Return the hidden size of a configuration's base; None where the base was not looked at."""
        ...

    def sharpness_of(self, config: Config) -> float | None:
        """Return the largest eigenvalue of a method and rank at the start; None where no measurement was named."""
        ...

    def reserve_of(self, config: Config) -> int:
        """Return the learning rates that this configuration's cell may try beyond its grid."""
        ...

    def confirmations(self, config: Config, num_confirm: int) -> tuple[Config, ...]:
        """Return a winner's reruns on fresh seeds."""
        ...


def no_problems(plan: Plan) -> Sequence[str]:
    """Find nothing wrong with any plan."""
    del plan
    return ()


@dataclass(frozen=True)
class Search:
    """A search plug-in. `propose(plan, results)` names the trials that are wanted next, never finished ones.

    `problems(plan)` says before the study begins why it cannot be searched so, one line each.
    """

    summary: str
    propose: Callable[[Plan, Sequence[Result]], Proposal]
    problems: Callable[[Plan], Sequence[str]] = no_problems
