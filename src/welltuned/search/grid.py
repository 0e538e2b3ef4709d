"""Grid search: train the grid and spend the reserve, freeze each cell's best rate, rerun it on fresh seeds, grade once.

Selection sees validation loss only, and only selection trials; the test split is touched after the last training.
A diverged trial scores the base model's step-0 loss. A trial whose pack was lost to the machine has no result, so it is
wanted again; a result with the status LOST means that the study gave up on it: excluded with its reason, never scored.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from welltuned.records import Arm, Config, Proposal, Result, Role, Status, Trial
from welltuned.search import _reserve
from welltuned.search._search import Plan, Search

Key = tuple[str, Role]


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want missing selection trials; then the reserve's; then the winners' reruns; then their grading; then nothing."""
    done = {(result.trial_id, result.role): result for result in results}
    select = [Trial(config, Role.SELECT) for arm in plan.arms for config in arm.configs]
    if missing := _missing(select, done):
        return Proposal(missing, (), False)
    spent = [(arm, _spend(plan, arm, done)) for arm in plan.arms]
    wanted = [config for _, cells in spent for cell in cells for config in cell.wanted]
    if wanted:
        return Proposal(tuple(Trial(config, Role.SELECT) for config in wanted), (), False)
    confirm = [
        Trial(rerun, Role.CONFIRM)
        for arm, cells in spent
        for winner in winners([config for cell in cells for config in cell.configs], plan.cell, done)
        for rerun in plan.confirmations(winner, arm.num_confirm)
    ]
    if missing := _missing(confirm, done):
        return Proposal(missing, (), False)
    exams = tuple(trial for trial in confirm if _wants_exam(plan, trial, done[trial.id, trial.role]))
    return Proposal((), exams, not exams)


def _spend(plan: Plan, arm: Arm, done: Mapping[Key, Result]) -> list[_reserve.Spent]:
    """Say of each of an arm's cells what its reserve was spent on, and what it wants next."""

    def is_done(config: Config) -> bool:
        return (config.id(), Role.SELECT) in done

    def score(config: Config) -> float | None:
        return score_nats(done[config.id(), Role.SELECT])

    cells: defaultdict[tuple[object, ...], list[Config]] = defaultdict(list)
    for config in arm.configs:
        cells[tuple(getattr(config, field) for field in plan.cell)].append(config)
    return [_reserve.spend(members, plan.reserve_of(members[0]), is_done, score) for members in cells.values()]


def winners(configs: Sequence[Config], cell: Sequence[str], done: Mapping[Key, Result]) -> list[Config]:
    """Return each cell's configuration with the lowest mean validation loss, the lower learning rate on a tie.

    The mean is over the seeds that have a score; a learning rate whose trials were all lost is left out.
    """
    cells: defaultdict[tuple[object, ...], defaultdict[float, list[Config]]]
    cells = defaultdict(lambda: defaultdict(list))
    for config in configs:
        cells[tuple(getattr(config, field) for field in cell)][config.learning_rate].append(config)
    chosen: list[Config] = []
    for rates in cells.values():
        scored: dict[float, float] = {}
        for rate, members in rates.items():
            losses = [score_nats(done[config.id(), Role.SELECT]) for config in members]
            known = [loss for loss in losses if loss is not None]
            if known:
                scored[rate] = statistics.fmean(known)
        if scored:
            best = min(scored, key=lambda rate: (scored[rate], rate))
            chosen.append(rates[best][0])
    return chosen


def score_nats(result: Result) -> float | None:
    """Return what a selection trial counts with; None for one that was lost or stopped."""
    if result.status is Status.DIVERGED:
        return result.base_validation_nll if result.base_validation_nll is not None else result.validation_nll
    return result.validation_nll if result.status is Status.FINISHED else None


def _missing(trials: Sequence[Trial], done: Mapping[Key, Result]) -> tuple[Trial, ...]:
    return tuple(trial for trial in trials if (trial.id, trial.role) not in done)


def _wants_exam(plan: Plan, trial: Trial, result: Result) -> bool:
    graded = trial.config.task in plan.graded_tasks
    return graded and result.status is Status.FINISHED and result.test_correct is None


SEARCH = Search(
    summary="every combination of the axes, then the reserve; each cell's best rate is rerun on fresh seeds and graded",
    propose=propose,
)
