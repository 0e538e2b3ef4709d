"""The protocol of a comparison: what a plan must keep before `compare` trains anything, and what its verdict rests on.

Everything here is known before the first run, from the study file and the survey of the data, and is shown by `plan`:
the baseline, the metric, the margin, what the sizes of the splits can resolve, and how many fresh seeds that takes.
The rules are docs/fairness.md's; the numbers that they rest on are named beside the constants below.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from welltuned import plan as plans
from welltuned.analysis import power
from welltuned.analysis.wording import label
from welltuned.costs import budget
from welltuned.errors import InputError, problem
from welltuned.plan import Plan
from welltuned.spec import Spec

ACCURACY, LOSS = "accuracy", "loss"
FINE_POINTS, COARSE_POINTS = 1.0, 2.0  # docs/fairness.md: 1 point if the items allow it, else 2
FEWEST_SEEDS = 2  # an interval over seeds needs as many


@dataclass(frozen=True)
class Ground:
    """What the verdicts within one problem rest on; shares are of 1, and None is what the metric does not have."""

    problem: tuple[tuple[str, object], ...]
    metric: str
    margin_points: float | None  # of accuracy
    margin_loss: float | None  # share of the baseline's loss
    num_validation: int
    num_test: int
    validation_error: float  # standard error of one accuracy at 50 %
    test_error: float
    num_seeds: int
    seeds_needed: int | None  # to tell a difference of the margin; None: no number of seeds would do, the items are few
    items_needed: int | None  # to tell it whatever the number of seeds; None where seeds are enough


def metric_of(spec: Spec, graded_tasks: Iterable[str], task: str) -> str:
    """Return the metric of the verdict on a task: the declared one, or accuracy where the task is graded."""
    if spec.compare.metric != "auto":
        return spec.compare.metric
    return ACCURACY if task in graded_tasks else LOSS


def margin_points(declared: float | None, num_items: int) -> float:
    """Return the margin in points of accuracy: the declared one, or 1 where the test items can show equivalence, or 2."""
    if declared is not None:
        return declared
    return FINE_POINTS if num_items >= power.items_for_equivalence(FINE_POINTS / 100) else COARSE_POINTS


def check(plan: Plan) -> None:
    """Raise InputError with everything that keeps this plan from being a fair comparison."""
    problems = [*_contenders(plan), *_metric(plan), *_budgets(plan)]
    if problems:
        raise InputError(problems)


def _contenders(plan: Plan) -> Iterable[str]:
    methods, baseline = plan.spec.method_names(), plan.spec.compare.baseline
    if len(methods) < 2:
        yield problem(
            "compare", f"the one method {methods[0]}", "two or more", 'write [axes] method = ["lora", "pissa"]'
        )
    elif baseline not in methods:
        advice = f'write [compare] baseline = "{methods[0]}", for instance'
        yield problem("compare.baseline", baseline, f"one of the study's methods: {', '.join(methods)}", advice)
    if plan.spec.search.fresh_seeds < FEWEST_SEEDS:
        expected = f"at least {FEWEST_SEEDS}, since a verdict has an interval over fresh seeds"
        yield problem("search.fresh_seeds", plan.spec.search.fresh_seeds, expected, "write fresh_seeds = 5 in [search]")


def _metric(plan: Plan) -> Iterable[str]:
    tasks = sorted({config.task for arm in plan.arms for config in arm.configs} - plan.graded_tasks)
    if plan.spec.compare.metric == ACCURACY and tasks:
        expected = f"a metric of every task: the answers of {', '.join(tasks)} are not graded"
        yield problem("compare.metric", ACCURACY, expected, 'write metric = "loss" or "auto" in [compare]')


def _budgets(plan: Plan) -> Iterable[str]:
    for group in budget.unequal(plan.budgets):
        advice = "give every method as many learning rates, or set reserve = 2 in [search], which makes them equal"
        if plan.spec.search.reserve:
            advice = "give every method as many cells and epochs: a reserve adds learning rates and nothing else"
        yield f"compare: got unequal budgets for selection ({plans.budgets_text(group)}), expected equal tokens; {advice}"


def grounds(plan: Plan) -> tuple[Ground, ...]:
    """Return what the verdicts rest on, for each problem of the study."""
    found: dict[tuple[object, ...], Ground] = {}
    for config in (config for arm in plan.arms for config in arm.configs):
        place = budget.key(config, plan.problem)
        if place not in found:
            survey = plan.survey_of(config)
            metric = metric_of(plan.spec, plan.graded_tasks, config.task)
            named = tuple(zip(plan.problem, place, strict=True))
            found[place] = _ground(plan, named, metric, survey.num_validation, survey.num_test)
    return tuple(found.values())
