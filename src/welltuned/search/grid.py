"""Grid search: train the grid and spend the reserve, freeze each cell's best rate, rerun it on fresh seeds, grade once.

Selection sees validation loss only, and only selection trials; the test split is touched after the last training.
A diverged trial scores the base model's step-0 loss. A trial whose pack was lost to the machine has no result, so it is
wanted again; a result with the status LOST means that the study gave up on it: excluded with its reason, never scored.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from welltuned.records import Arm, Config, Proposal, Result, Role, Trial
from welltuned.search import _final, _reserve
from welltuned.search._search import Plan, Search


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want missing selection trials; then the reserve's; then the winners' reruns; then their grading; then nothing."""
    done = _final.by_trial(results)
    select = [Trial(config, Role.SELECT) for arm in plan.arms for config in arm.configs]
    if wanted := _final.missing(select, done):
        return Proposal(wanted, (), False)
    spent = [(arm, _spend(plan, arm, done)) for arm in plan.arms]
    reserved = [config for _, cells in spent for cell in cells for config in cell.wanted]
    if reserved:
        return Proposal(tuple(Trial(config, Role.SELECT) for config in reserved), (), False)
    chosen = [
        (winner, arm.num_confirm)
        for arm, cells in spent
        for winner in winners([config for cell in cells for config in cell.configs], plan.cell, done)
    ]
    return _final.finish(plan, done, chosen)


def _spend(plan: Plan, arm: Arm, done: Mapping[_final.Key, Result]) -> list[_reserve.Spent]:
    """Say of each of an arm's cells what its reserve was spent on, and what it wants next."""

    def is_done(config: Config) -> bool:
        return (config.id(), Role.SELECT) in done

    def score(config: Config) -> float | None:
        return _final.score_nats(done[config.id(), Role.SELECT])

    cells: defaultdict[tuple[object, ...], list[Config]] = defaultdict(list)
    for config in arm.configs:
        cells[tuple(getattr(config, field) for field in plan.cell)].append(config)
    return [_reserve.spend(members, plan.reserve_of(members[0]), is_done, score) for members in cells.values()]


def winners(configs: Sequence[Config], cell: Sequence[str], done: Mapping[_final.Key, Result]) -> list[Config]:
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
            losses = [_final.score_nats(done[config.id(), Role.SELECT]) for config in members]
            known = [loss for loss in losses if loss is not None]
            if known:
                scored[rate] = statistics.fmean(known)
        if scored:
            best = min(scored, key=lambda rate: (scored[rate], rate))
            chosen.append(rates[best][0])
    return chosen


SEARCH = Search(
    summary="every combination of the axes, then the reserve; each cell's best rate is rerun on fresh seeds and graded",
    propose=propose,
)
