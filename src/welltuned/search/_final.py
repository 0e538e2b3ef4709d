"""How every search runs and ends: it trains, then what it chose is rerun on fresh seeds and graded once. Pure.

The test split is touched after the last training only. A search with a budget is written as rounds: a generator for
each choice that yields trials and goes on when all of them have ended. It is started anew each time and reads nothing
but the results of what it yielded, so resuming is going through the same rounds again, in whatever order these came.
"""

import functools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from welltuned.records import Config, Proposal, Result, Role, Status, Trial
from welltuned.search._search import Plan
from welltuned.search._space import Candidate, Choice, choices

Key = tuple[str, Role]
Done = Mapping[Key, Result]
Rounds = Callable[[Plan, Choice, Done], Iterator[Sequence[Trial]]]


def conduct(plan: Plan, results: Sequence[Result], rounds: Rounds) -> Proposal:
    """Want every choice's open round, then the reruns of each one's best, then their grading; then nothing."""
    done = by_trial(results)
    found = choices(plan)
    if wanted := tuple(trial for choice in found for trial in pending(rounds(plan, choice, done), done)):
        return Proposal(wanted, (), False)
    return finish(plan, done, [(won.config, choice.num_confirm) for choice in found if (won := best(choice, done))])


def pending(rounds: Iterator[Sequence[Trial]], done: Done) -> tuple[Trial, ...]:
    """Return what is missing of the first round that has not ended."""
    return next((wanted for trials in rounds if (wanted := missing(trials, done))), ())


def by_trial(results: Sequence[Result]) -> dict[Key, Result]:
    """Return the results by trial and role."""
    return {(result.trial_id, result.role): result for result in results}


@functools.lru_cache(maxsize=1 << 16)
def key_of(trial: Trial) -> Key:
    """Return what a trial's result is found by; searches ask again and again, and an id is a hash of everything."""
    return trial.id, trial.role


def finish(plan: Plan, done: Done, chosen: Sequence[tuple[Config, int]]) -> Proposal:
    """Want the reruns of the chosen configurations, each so many times; then their grading; then nothing."""
    confirm = [Trial(rerun, Role.CONFIRM) for config, number in chosen for rerun in plan.confirmations(config, number)]
    if wanted := missing(confirm, done):
        return Proposal(wanted, (), False)
    exams = tuple(trial for trial in confirm if _wants_exam(plan, trial, done[trial.id, trial.role]))
    return Proposal((), exams, not exams)


def best(choice: Choice, done: Done) -> Candidate | None:
    """Return the candidate with the lowest mean validation loss over the selection seeds; on a tie the lower rate.

    One that was not trained on all of them is not compared: its seeds may have been the lucky ones. None: no score.
    """
    scored = [
        (loss, candidate.config.learning_rate, place)
        for place, candidate in enumerate(choice.candidates)
        if (loss := mean_score(candidate, done)) is not None
    ]
    return choice.candidates[min(scored)[2]] if scored else None


def mean_score(candidate: Candidate, done: Done) -> float | None:
    """Return the mean loss over the selection seeds but the lost ones; None: not on all of them yet, or no score."""
    found = [done.get(key_of(trial)) for trial in candidate.trials]
    losses = [loss for result in found if result is not None and (loss := score_nats(result)) is not None]
    return statistics.fmean(losses) if losses and all(result is not None for result in found) else None


def score_nats(result: Result) -> float | None:
    """Return what a selection trial counts with; None for one that was lost or stopped."""
    if result.status is Status.DIVERGED:
        return result.base_validation_nll if result.base_validation_nll is not None else result.validation_nll
    return result.validation_nll if result.status is Status.FINISHED else None


def rank(candidate: Candidate, trial: Trial, done: Done) -> tuple[float, float]:
    """Return what candidates are sorted by: the loss of a trial of theirs, then the rate; last is who has no score."""
    loss = score_nats(done[key_of(trial)])
    return math.inf if loss is None else loss, candidate.config.learning_rate


def missing(trials: Sequence[Trial], done: Done) -> tuple[Trial, ...]:
    """Return the trials that have no result."""
    return tuple(trial for trial in trials if key_of(trial) not in done)


def _wants_exam(plan: Plan, trial: Trial, result: Result) -> bool:
    graded = trial.config.task in plan.graded_tasks
    return graded and result.status is Status.FINISHED and result.test_correct is None
