"""What a planned study will cost: trials, tokens, operations, time and memory, its reruns and their grading included.

A search with a budget chooses its trials as it goes. In their place stand as many full trials as the budget pays for,
spread evenly over what there is to choose from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from welltuned import plugins
from welltuned.costs import flops, memory
from welltuned.plan import Plan
from welltuned.records import Arm, Config, Survey, TrainJob
from welltuned.spec import SettingRow


@dataclass(frozen=True)
class ArmRow:
    """One arm's budget: selection trials, winners, reruns, and the real tokens of the selection trials."""

    name: str
    num_select: int  # of the grid; with a budget, what there is to choose from
    num_reserve: int  # selection trials that are chosen as the study goes
    budget: float | None  # what choosing may cost in all, in run-equivalents; None: the grid and the reserve
    num_winners: int  # that are rerun: one of each cell; with a budget, one of each problem
    num_confirm: int  # in all
    num_tokens: int  # of selection, the reserve's too
    num_trainable: tuple[int, int]  # smallest and largest of its configurations
    scalings: tuple[float, ...]  # effective multipliers, ascending
    axes: tuple[tuple[str, int], ...]  # each axis with its number of values


@dataclass(frozen=True)
class Speed:
    """How fast a machine trains: the rate of operations, and what every token costs beside its operations."""

    flops_per_second: float
    token_seconds: float
    is_measured: bool = True  # False: assumed, since this machine was too busy

    def seconds(self, num_tokens: float, operations: float) -> float:
        """Return the time of this much work."""
        return num_tokens * self.token_seconds + operations / self.flops_per_second


@dataclass(frozen=True)
class Cost:
    """What the whole study takes, reruns and grading included; with a budget, as if it were spent on full trials."""

    num_trials: int
    num_packs: int  # of the selection trials
    largest_pack: int  # trials
    micro_rows: int  # of each trial, in the pack that needs most memory
    num_pack: int  # trials of that pack
    num_tokens: int  # of training
    flops: float
    seconds: float
    seconds_from: str  # where the estimate comes from
    memory: memory.Memory  # of the pack that needs most


@dataclass(frozen=True)
class Summary:
    """A plan as data for the screen: every setting, every arm, the cost, and the notes."""

    settings: tuple[SettingRow, ...]
    arms: tuple[ArmRow, ...]
    cost: Cost
    notes: tuple[str, ...]


def summary(plan: Plan, memory_bytes: int, speeds: Mapping[str, Speed] | float, device: str = "cpu") -> Summary:
    """Return everything that `plan` shows.

    `speeds` is this machine's for each precision, or the tokens per second at which the study's own trials trained.
    """
    rows = tuple(_budget(arm, plan) for arm in plan.arms)
    return Summary(plan.spec.rows(), rows, _cost(plan, memory_bytes, speeds, device), plan.notes)


def _budget(arm: Arm, plan: Plan) -> ArmRow:
    winners = plan.winners[arm]
    own = [one for one in plan.budgets if one.method == arm.name]
    trained = [flops.num_trainable(config, plan.survey_of(config)) for config in arm.configs]
    return ArmRow(
        name=arm.name,
        num_select=len(arm.configs),
        num_reserve=sum(one.num_reserve for one in own),
        budget=None if plan.budget is None else plan.budget * len(own),
        num_winners=len(winners),
        num_confirm=len(winners) * arm.num_confirm,
        num_tokens=round(sum(one.num_tokens for one in own)),
        num_trainable=(min(trained), max(trained)),
        scalings=tuple(sorted({config.scaling for config in arm.configs})),
        axes=tuple((field, len(values)) for field, values in plan.spec.axes_of(arm.name).items()),
    )


def _cost(plan: Plan, memory_bytes: int, speeds: Mapping[str, Speed] | float, device: str) -> Cost:
    won = [(config, arm.num_confirm) for arm, configs in plan.winners.items() for config in configs]
    reruns = [config for config, number in won for _ in range(number)]
    # A reserve belongs to a cell, and so does a winner where there is no budget; with one there is no reserve.
    reserve = [config for config, _ in won for _ in range(plan.reserve_of(config) * plan.spec.search.seeds)]
    configs = [trial.config for trial in plan.trials()] + reserve + reruns
    work = [flops.work(config, plan.survey_of(config)) for config in configs]
    num_tokens = sum(item.num_tokens for item in work)
    exams = [config for config in reruns if config.task in plan.graded_tasks]
    parts = [
        *((config.dtype, item.num_tokens, item.train_flops) for config, item in zip(configs, work, strict=True)),
        *((config.dtype, 0.0, item.validation_flops) for config, item in zip(configs, work, strict=True)),
        *((config.dtype, 0.0, exam_flops(config, plan.survey_of(config))) for config in exams),
    ]
    operations = sum(count for _, _, count in parts)
    if isinstance(speeds, Mapping):
        seconds = sum(speeds[dtype].seconds(tokens, count) for dtype, tokens, count in parts)
        measured = all(speeds[config.dtype].is_measured for config in configs)
        origin = "from a short measurement of this machine" if measured else "assumed for two cores, not measured"
    else:  # evaluating is as fast, per operation, as training was measured to be
        seconds = num_tokens / speeds * operations / sum(item.train_flops for item in work)
        origin = f"measured {speeds:,.0f} tokens/s"
    jobs = plan.packs(memory_bytes, device)
    job, need = max(((job, _pack_memory(job, plan, device)) for job in jobs), key=lambda pair: pair[1].total_bytes)
    return Cost(
        num_trials=len(configs),
        num_packs=len(jobs),
        largest_pack=max(len(job.trials) for job in jobs),
        num_pack=len(job.trials),
        micro_rows=job.micro_rows,
        num_tokens=round(num_tokens),
        flops=operations,
        seconds=seconds,
        seconds_from=origin,
        memory=need,
    )


def _pack_memory(job: TrainJob, plan: Plan, device: str) -> memory.Memory:
    configs = [trial.config for trial in job.trials]
    how = device, job.recompute, job.compiled
    return memory.estimate(configs, plan.survey_of(configs[0]), job.micro_rows, *how)


def exam_flops(config: Config, survey: Survey) -> float:
    """Return the operations of reading every test prompt and writing the longest answer that is allowed."""
    num_tokens = survey.mean_tokens - survey.mean_target_tokens + plugins.load("tasks", config.task).max_new_tokens
    weights = survey.num_base_weights + survey.num_head_weights + flops.num_added(config, survey)
    weights += flops.num_frozen(config, survey)
    return math.ceil(config.num_test * num_tokens) * flops.FORWARD * weights
