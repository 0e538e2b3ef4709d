"""Trainer at its best: a selection pass over its settings on a short version of a case."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks import cases, compare
from benchmarks.records import Assignment, Measurement, Setting
from welltuned.costs import packing
from welltuned.records import Config, Role, Trial

LEAST_SECONDS = 60.0  # that a setting is given: Python and its libraries are not in its projected time; assumed
SHORT_STEPS, SHORT_ROWS = 8, 96  # of a trial in the selection pass, at the least; assumed to be enough for a rate

# On a CPU the fused bfloat16 attention has a slow backward (models/attention.py), so bfloat16 is given plain attention
# too, and may choose.
REFERENCE = Setting("float32", "float32")
PRECISIONS = (
    Setting("bfloat16 weights", "bfloat16", "eager"),
    Setting("bfloat16 weights, fused attention", "bfloat16"),
    Setting("bfloat16 autocast", "float32", "eager", autocast=True),
    Setting("bfloat16 autocast, fused attention", "float32", autocast=True),
)

Measure = Callable[[Assignment, float | None], Measurement | None]  # None: it took more than these seconds


@dataclass(frozen=True)
class Tried:
    """What the selection pass found of a setting; of one that was stopped, only that it takes longer than it took."""

    setting: Setting
    rows_per_second: float | None  # inside the second trial's steps, when all that happens once has happened
    once_seconds: float | None  # loading and compiling: what the first trial took beyond the second
    trial_seconds: float | None  # what the second trial took outside its steps: wrapping the base, making a Trainer
    projected_seconds: float  # of all trials of the case in full length; where it was stopped: at the least
    largest_difference: float = 0.0  # of final losses, relative to those of float32
    is_stopped: bool = False

    @property
    def may_be_chosen(self) -> bool:
        """Say whether it trains the same trials: the same rows in the same order, to losses within the rule."""
        same = not self.setting.by_length and self.largest_difference <= compare.AGREEMENT
        return same and not self.is_stopped


def variants(precision: Setting) -> tuple[Setting, ...]:
    """Return what is tried on top of the fastest precision."""
    name = precision.name
    return (
        replace(precision, name=f"{name}, torch_compile", compiled=True),
        replace(precision, name=f"{name}, padding-free", padding_free=True),
        replace(precision, name=f"{name}, group_by_length", by_length=True),
    )


def select(configs: Sequence[Config], threads: int, measure: Measure) -> tuple[Setting, list[Tried]]:
    """Return the setting with the shortest projected time, and everything that was measured.

    group_by_length reads the rows in an order of its own, so its trials are not the same and it is never chosen, and
    neither is a precision whose final losses are so far from float32's that the row would not count. A setting that
    takes longer for two short trials than the best one so far for all trials cannot win: it is stopped. Float32 is
    measured twice and counts the second time: on a virtual machine that has given memory back to its host, whoever
    writes to that memory first is slow.
    """
    short = [_shortened(config) for config in _typical(configs)[:2]]
    jobs = tuple(packing.make_job([Trial(config, Role.SELECT)], config.batch_size) for config in short)

    def run(setting: Setting, limit: float | None = None) -> Measurement | None:
        return measure(Assignment("trainer", jobs, threads, setting), limit)

    run(REFERENCE)
    reference = run(REFERENCE)
    assert reference is not None  # without a limit it is never stopped
    tried = [_timed(REFERENCE, configs, reference, reference)]

    def consider(setting: Setting) -> None:
        limit = max(_best(tried).projected_seconds, LEAST_SECONDS)
        found = run(setting, limit)
        if found is None:
            tried.append(Tried(setting, None, None, None, limit, is_stopped=True))
        else:
            tried.append(_timed(setting, configs, found, reference))

    for setting in PRECISIONS:
        consider(setting)
    for setting in variants(_best(tried).setting):
        consider(setting)
    return _best(tried).setting, tried


def _best(tried: Sequence[Tried]) -> Tried:
    return min((item for item in tried if item.may_be_chosen), key=lambda item: item.projected_seconds)


def _timed(setting: Setting, configs: Sequence[Config], found: Measurement, reference: Measurement) -> Tried:
    num_short = _shortened(_typical(configs)[1]).num_train
    rate = num_short / found.step_seconds[1]
    num_rows = sum(config.num_train * config.num_train_epochs for config in configs)
    once = max(0.0, found.job_seconds[0] - found.job_seconds[1])
    each = found.job_seconds[1] - found.step_seconds[1]
    worst, _ = compare.largest_difference({"it": found, "reference": reference})
    return Tried(setting, rate, once, each, once + len(configs) * each + num_rows / rate, worst or 0.0)


def _typical(configs: Sequence[Config]) -> list[Config]:
    """Return the trials of the middle batch size, twice where there is one only."""
    groups = cases.by_batch(configs)
    members = groups[sorted(groups)[(len(groups) - 1) // 2]]
    return members if len(members) > 1 else members * 2


def _shortened(config: Config) -> Config:
    wanted = max(SHORT_STEPS * config.batch_size, SHORT_ROWS)
    return config.replace(num_train=min(config.num_train, wanted))
