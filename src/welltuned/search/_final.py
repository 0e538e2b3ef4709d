"""How every search ends: the chosen configurations are frozen, rerun on fresh seeds, and graded once. Pure.

The test split is touched after the last training only.
"""

import statistics
from collections.abc import Mapping, Sequence

from welltuned.records import Config, Proposal, Result, Role, Status, Trial
from welltuned.search._search import Plan
from welltuned.search._space import Candidate, Choice

Key = tuple[str, Role]


def by_trial(results: Sequence[Result]) -> dict[Key, Result]:
    """Return the results by trial and role."""
    return {(result.trial_id, result.role): result for result in results}


def finish(plan: Plan, done: Mapping[Key, Result], chosen: Sequence[tuple[Config, int]]) -> Proposal:
    """Want the reruns of the chosen configurations, each so many times; then their grading; then nothing."""
    confirm = [Trial(rerun, Role.CONFIRM) for config, number in chosen for rerun in plan.confirmations(config, number)]
    if wanted := missing(confirm, done):
        return Proposal(wanted, (), False)
    exams = tuple(trial for trial in confirm if _wants_exam(plan, trial, done[trial.id, trial.role]))
    return Proposal((), exams, not exams)


def best(choice: Choice, done: Mapping[Key, Result]) -> Candidate | None:
    """Return the candidate with the lowest mean validation loss over all selection seeds; on a tie the lower rate.

    One that was not trained on all of them is not compared: its seeds may have been the lucky ones. None: no score.
    """
    scored: list[tuple[float, float, int]] = []
    for place, candidate in enumerate(choice.candidates):
        found = [done.get((config.id(), Role.SELECT)) for config in candidate.configs]
        losses = [loss for result in found if result is not None and (loss := score_nats(result)) is not None]
        if losses and all(result is not None for result in found):
            scored.append((statistics.fmean(losses), candidate.config.learning_rate, place))
    return choice.candidates[min(scored)[2]] if scored else None


def score_nats(result: Result) -> float | None:
    """Return what a selection trial counts with; None for one that was lost or stopped."""
    if result.status is Status.DIVERGED:
        return result.base_validation_nll if result.base_validation_nll is not None else result.validation_nll
    return result.validation_nll if result.status is Status.FINISHED else None


def missing(trials: Sequence[Trial], done: Mapping[Key, Result]) -> tuple[Trial, ...]:
    """Return the trials that have no result."""
    return tuple(trial for trial in trials if (trial.id, trial.role) not in done)


def _wants_exam(plan: Plan, trial: Trial, result: Result) -> bool:
    graded = trial.config.task in plan.graded_tasks
    return graded and result.status is Status.FINISHED and result.test_correct is None
