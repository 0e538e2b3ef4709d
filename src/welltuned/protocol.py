"""The protocol of a comparison: what a plan must keep before `compare` trains anything, and what its verdict rests on.

Everything here is known before the first run, from the study file and the survey of the data, and is shown by `plan`:
the baseline, the metric, the margin, what the sizes of the splits can resolve, and how many fresh seeds that takes.
The rules are docs/fairness.md's; the numbers that they rest on are named beside the constants below.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from welltuned import plan as plans
from welltuned.analysis import power
from welltuned.analysis.comparison import ACCURACY, LOSS, Terms
from welltuned.analysis.verdict import Margin, accuracy_margin
from welltuned.analysis.wording import Key, label, plural
from welltuned.costs import budget
from welltuned.errors import InputError, problem
from welltuned.plan import Plan
from welltuned.records import Survey

FEWEST_SEEDS = 2  # an interval over seeds needs as many


@dataclass(frozen=True)
class Ground:
    """What the verdicts within one problem rest on."""

    problem: Key
    metric: str  # "accuracy", "loss"
    margin: Margin | None  # of accuracy; that of the loss is a share of what the baseline will come to
    margin_loss: float
    num_validation: int
    num_test: int
    num_seeds: int

    def terms(self) -> Terms:
        """Return what the analysis needs of it."""
        if self.margin is not None:
            return Terms(self.problem, self.metric, self.margin.value, self.margin.reason)
        return Terms(self.problem, self.metric, self.margin_loss, "declared as a share of the baseline's loss")


def grounds(plan: Plan) -> tuple[Ground, ...]:
    """Return what the verdicts rest on, for each problem of the study."""
    found: dict[tuple[object, ...], Ground] = {}
    for config in (config for arm in plan.arms for config in arm.configs):
        place = budget.key(config, plan.problem)
        if place not in found:
            named = tuple(zip(plan.problem, place, strict=True))
            found[place] = _ground(plan, named, config.task, plan.survey_of(config))
    return tuple(found.values())


def _ground(plan: Plan, named: Key, task: str, survey: Survey) -> Ground:
    declared = plan.spec.compare
    auto = ACCURACY if task in plan.graded_tasks else LOSS
    metric = auto if declared.metric == "auto" else declared.metric
    margin = None
    if metric == ACCURACY and declared.margin_points is None:
        margin = accuracy_margin(survey.num_test)
    elif metric == ACCURACY and declared.margin_points is not None:
        margin = Margin(declared.margin_points / 100, True, "declared")
    return Ground(
        problem=named,
        metric=metric,
        margin=margin,
        margin_loss=declared.margin_loss,
        num_validation=survey.num_validation,
        num_test=survey.num_test,
        num_seeds=plan.spec.search.fresh_seeds,
    )


def lines(ground: Ground, baseline: str) -> list[str]:
    """Say in words what a verdict rests on and what the sizes can resolve, as `plan` shows it."""
    where = f" on {label(ground.problem)}" if ground.problem else ""
    if ground.margin is None:
        loss = f"within {100 * ground.margin_loss:g} % of its loss on {plural(ground.num_validation, 'validation row')}"
        return [f"verdict{where}: against {baseline}, {loss}, over {plural(ground.num_seeds, 'fresh seed')}"]
    needed = power.seeds_needed(power.accuracy_spread(), ground.num_test, ground.margin)
    margin = f"accuracy, margin {ground.margin.text} ({ground.margin.reason})"
    wanted = [
        f"{plural(seeds, 'fresh seed')} to {aim}"
        for seeds, aim in ((needed.to_see, "see a difference of the margin"), (needed.to_equate, "show equivalence"))
        if seeds is not None
    ]
    wanted += [needed.reason] if needed.reason else []
    ours = plural(ground.num_seeds, "fresh seed")
    return [
        f"verdict{where}: against {baseline} on {margin}",
        f"sizes:   standard error of one accuracy at 50 %: validation {_error(ground.num_validation)} points "
        f"({ground.num_validation:,} rows), test {_error(ground.num_test)} points ({ground.num_test:,})",
        f"seeds:   {ours}; with a chance of {100 * needed.power:g} %: {'; '.join(wanted)}",
    ]


def _error(num_items: int) -> str:
    return f"{100 * math.sqrt(0.25 / num_items):.1f}"


def check(plan: Plan) -> None:
    """Raise InputError with everything that keeps this plan from being a fair comparison."""
    problems = [*_contenders(plan), *_metric(plan), *_budgets(plan)]
    if problems:
        raise InputError(problems)


def _contenders(plan: Plan) -> Iterable[str]:
    methods, baseline = plan.spec.method_names(), plan.spec.compare.baseline
    if len(methods) < 2:
        got = f"the one method {', '.join(methods)}"
        yield f'compare: got {got}, expected two or more; write [axes] method = ["lora", "pissa"]'
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
        got = f"unequal budgets for selection ({plans.budgets_text(group)})"
        yield f"compare: got {got}, expected equal tokens; {advice}"
