"""The search that records a surface: every cell on the first seed, more seeds near each cell's best, one finalist.

A cell is a batch size at a number of training rows. Selection seeds beyond the first are trained only where the
learning rate is within a factor of WITHIN of the cell's best, since a tuner's regret is decided there. The best cell of
the largest number of rows is rerun on fresh seeds and graded. Used by scripts/record_surfaces.py; fixed with the
manifest.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from welltuned.records import Arm, Config, Proposal, Result, Role, Trial
from welltuned.search import _final
from welltuned.search._search import Plan, Search

WITHIN = 4.0  # of issue and manifest: learning rates this near to the best are trained on all seeds
TOLERANCE = 1e-6  # relative, of rates written in decimals


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want the first seed everywhere, then the others near the best, then the finalist's reruns and their grading."""
    done = _final.by_trial(results)
    first = [Trial(config, Role.SELECT) for arm in plan.arms for config in arm.configs if config.init_seed == 0]
    if wanted := _final.missing(first, done):
        return Proposal(wanted, (), False)
    near = [Trial(config, Role.SELECT) for arm in plan.arms for config in _near(arm, done)]
    if wanted := _final.missing(near, done):
        return Proposal(wanted, (), False)
    return _final.finish(plan, done, [(_finalist(arm, done), arm.num_confirm) for arm in plan.arms])


def _near(arm: Arm, done: Mapping[_final.Key, Result]) -> Iterator[Config]:
    """Yield the configurations on later seeds whose learning rate is near their cell's best on the first seed."""
    best: dict[tuple[int, int], tuple[float, float]] = {}
    for config in arm.configs:
        score = _score(config, done)
        if config.init_seed == 0 and score is not None:
            cell = (config.num_train, config.batch_size)
            best[cell] = min(best.get(cell, (score, config.learning_rate)), (score, config.learning_rate))
    for config in arm.configs:
        found = best.get((config.num_train, config.batch_size))
        if config.init_seed > 0 and found is not None:
            ratio = max(config.learning_rate / found[1], found[1] / config.learning_rate)
            if ratio <= WITHIN * (1 + TOLERANCE):
                yield config


def _finalist(arm: Arm, done: Mapping[_final.Key, Result]) -> Config:
    """Return the configuration of the largest size with the lowest mean loss over all its seeds."""
    largest = max(config.num_train for config in arm.configs)
    losses: defaultdict[tuple[int, float], list[float]] = defaultdict(list)
    firsts: dict[tuple[int, float], Config] = {}
    for config in (config for config in arm.configs if config.num_train == largest):
        setting = (config.batch_size, config.learning_rate)
        firsts.setdefault(setting, config)
        if (score := _score(config, done)) is not None:
            losses[setting].append(score)
    most = max(len(found) for found in losses.values())
    settled = {setting: statistics.fmean(found) for setting, found in losses.items() if len(found) == most}
    return firsts[min(settled, key=lambda setting: (settled[setting], setting))]


def _score(config: Config, done: Mapping[_final.Key, Result]) -> float | None:
    result = done.get((config.id(), Role.SELECT))
    return None if result is None else _final.score_nats(result)


SEARCH = Search(
    summary="one seed everywhere, three where the learning rate is near the best, and one finalist that is graded",
    propose=propose,
)
