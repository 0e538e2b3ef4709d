"""From measurements to rows: medians scaled to all trials, rates, the fraction of the peak, whether losses agree."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.cases import Case, Contender
from benchmarks.records import Measurement
from benchmarks.work import Work

AGREEMENT = 0.005  # final losses of a trial may differ by this much, relative: the benchmark's own rule
LAST_PART = 4  # a final loss is the mean over the last quarter of the steps


@dataclass(frozen=True)
class Row:
    """One contender of a case. Seconds are medians over the repeats, scaled to all trials where some were measured."""

    contender: str
    setting: str
    num_trials: int
    num_measured: int
    seconds: float
    all_seconds: tuple[float, ...]  # of every repeat
    compile_seconds: float  # inside the seconds
    trials_per_hour: float
    target_tokens_per_second: float
    real_tokens_per_second: float
    padded_tokens_per_second: float
    peak_bytes: int
    matmul_fraction: float
    speed: float  # trials per hour over those of the contender that the case compares with
    packing_gain: float | None  # of the packed runner: trials per hour over those of one trial at a time
    num_diverged: int


@dataclass(frozen=True)
class Compared:
    """A case with its rows, and whether they count."""

    name: str
    title: str
    against: str
    target: float
    rows: tuple[Row, ...]
    largest_difference: float | None  # of final losses of a trial, relative; None where trials are not the same
    compared_trials: int

    @property
    def counts(self) -> bool:
        """Say whether the contenders did the same thing."""
        return self.largest_difference is None or self.largest_difference <= AGREEMENT


def case_seconds(contender: Contender, measured: Measurement, trial_ids: Sequence[str]) -> float:
    """Return the seconds of all trials of a contender.

    Where a sequential runner trained some only, the others count as the mean of those of their batch size, and what the
    first one took beyond its like (loading, compiling) counts once. `trial_ids` are those that were trained, in order.
    """
    if len(trial_ids) == len(contender.configs):
        return measured.seconds
    batch_of = {config.id(): config.batch_size for config in contender.configs}
    times: dict[int, list[float]] = {}
    for place, (trial, seconds) in enumerate(zip(trial_ids, measured.job_seconds, strict=True)):
        if place:
            times.setdefault(batch_of[trial], []).append(seconds)
    first = max(0.0, measured.job_seconds[0] - statistics.mean(times[batch_of[trial_ids[0]]]))
    return first + sum(statistics.mean(times[config.batch_size]) for config in contender.configs)


def final_loss(losses: Sequence[float]) -> float:
    """Return the mean over the last quarter of the steps."""
    return statistics.fmean(losses[-max(1, len(losses) // LAST_PART) :])


def largest_difference(found: Mapping[str, Measurement]) -> tuple[float | None, int]:
    """Return the largest relative difference of final losses of a trial between contenders, and the trials compared."""
    worst: float | None = None
    trials: set[str] = set()
    for one, other in itertools.combinations(found.values(), 2):
        for trial in one.losses.keys() & other.losses.keys():
            a, b = final_loss(one.losses[trial]), final_loss(other.losses[trial])
            worst = max(worst or 0.0, abs(a - b) / max(abs(a), abs(b)))
            trials.add(trial)
    return worst, len(trials)


def compare(
    case: Case,
    repeats: Mapping[str, Sequence[Measurement]],
    trained: Mapping[str, Sequence[str]],
    settings: Mapping[str, tuple[str, str]],
    works: Mapping[str, Work],
    peaks: Mapping[str, float],
) -> Compared:
    """Return the rows of a case.

    By contender: `repeats`, `trained` (ids of the trials that were trained) and `settings` (name and precision).
    `works` is by trial, `peaks` by precision.
    """
    seconds = {
        each.name: [case_seconds(each, measured, trained[each.name]) for measured in repeats[each.name]]
        for each in case.contenders
    }
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = []
    for each in case.contenders:
        work = [works[config.id()] for config in each.configs]
        mine = [works[trial] for trial in trained[each.name]]
        first = repeats[each.name][0]
        per_second = sum(item.num_tokens for item in work) / medians[each.name]
        setting, precision = settings[each.name]
        gain = medians.get("alone", 0.0) / medians[each.name] if each.name == "packed" and "alone" in medians else None
        rows.append(
            Row(
                contender=each.name,
                setting=setting,
                num_trials=len(each.configs),
                num_measured=len(trained[each.name]),
                seconds=medians[each.name],
                all_seconds=tuple(seconds[each.name]),
                compile_seconds=statistics.median(item.compile_seconds for item in repeats[each.name]),
                trials_per_hour=3600 * len(each.configs) / medians[each.name],
                target_tokens_per_second=sum(item.num_targets for item in work) / medians[each.name],
                real_tokens_per_second=per_second,
                padded_tokens_per_second=per_second * first.num_padded_tokens / sum(item.num_tokens for item in mine),
                peak_bytes=max(item.peak_bytes for item in repeats[each.name]),
                matmul_fraction=sum(item.flops for item in work) / medians[each.name] / peaks[precision],
                speed=medians[case.against] / medians[each.name],
                packing_gain=gain,
                num_diverged=sum(status == "diverged" for status in first.ended.values()),
            )
        )
    worst, num_compared = largest_difference({name: found[0] for name, found in repeats.items()})
    return Compared(case.name, case.title, case.against, case.target, tuple(rows), worst, num_compared)
