"""Equal budgets: what each method may spend on selection, and the reserve that makes the methods' budgets equal.

The reserve is declared with the study and is the same rule for every method: within one problem all methods get as many
learning rates as the largest grid has, and `reserve` more for each cell of the method with the most cells. A method
spends its share evenly over its own cells, the first of them one more where it does not divide. Pure.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from welltuned.costs import flops
from welltuned.records import Arm, Config, Survey

Key = tuple[object, ...]
ROUNDING = 1e-3  # relative difference of planned tokens that is called none: they are means times counts; assumed


@dataclass(frozen=True)
class Budget:
    """What one method is planned to spend on selection within one problem."""

    method: str
    problem: Key
    num_trials: int
    num_reserve: int  # of them, chosen as the study goes
    num_tokens: float


def key(config: Config, fields: Sequence[str]) -> Key:
    """Return the values of some fields of a configuration."""
    return tuple(getattr(config, field) for field in fields)


def allot(arms: Sequence[Arm], cell: Sequence[str], problem: Sequence[str], reserve: int) -> dict[Key, int]:
    """Return the learning rates that each cell may try beyond its grid; none without a reserve."""
    grids: defaultdict[Key, defaultdict[str, dict[Key, int]]] = defaultdict(lambda: defaultdict(dict))
    for arm in arms:
        rates: defaultdict[Key, set[float]] = defaultdict(set)
        for config in arm.configs:
            place = key(config, cell)
            rates[place].add(config.learning_rate)
            grids[key(config, problem)][arm.name][place] = len(rates[place])
    allotted: dict[Key, int] = {}
    for methods in grids.values():
        goal = max(sum(cells.values()) for cells in methods.values())
        goal += reserve * max(len(cells) for cells in methods.values())
        for cells in methods.values():
            each, more = divmod(goal - sum(cells.values()), len(cells))
            for place, name in enumerate(cells):
                allotted[name] = each + (place < more) if reserve else 0
    return allotted


def budgets(
    arms: Sequence[Arm],
    surveys: Mapping[Config, Survey],
    cell: Sequence[str],
    problem: Sequence[str],
    allotted: Mapping[Key, int],
) -> tuple[Budget, ...]:
    """Return each method's budget within each problem; the tokens of a diverged trial count as planned."""
    found: list[Budget] = []
    for arm in arms:
        by_problem: defaultdict[Key, list[Config]] = defaultdict(list)
        for config in arm.configs:
            by_problem[key(config, problem)].append(config)
        for place, configs in by_problem.items():
            extra = [one for rate in _one_rate(configs, cell) for one in rate * allotted[key(rate[0], cell)]]
            tokens = sum(flops.work(config, surveys[config]).num_tokens for config in (*configs, *extra))
            found.append(Budget(arm.name, place, len(configs) + len(extra), len(extra), tokens))
    return tuple(found)


def unequal(found: Sequence[Budget]) -> tuple[tuple[Budget, ...], ...]:
    """Return the budgets of each problem in which they are not equal in tokens."""
    problems = dict.fromkeys(budget.problem for budget in found)
    groups = (tuple(budget for budget in found if budget.problem == problem) for problem in problems)
    return tuple(group for group in groups if _spread(group) > ROUNDING)


def _spread(group: Sequence[Budget]) -> float:
    tokens = [budget.num_tokens for budget in group]
    return max(tokens) / min(tokens) - 1


def _one_rate(configs: Sequence[Config], cell: Sequence[str]) -> list[list[Config]]:
    """Return one learning rate's trials of every cell; the learning rate does not change what a trial costs."""
    cells: defaultdict[Key, list[Config]] = defaultdict(list)
    for config in configs:
        cells[key(config, cell)].append(config)
    return [[one for one in members if one.learning_rate == members[0].learning_rate] for members in cells.values()]
