"""The table that analyses read: runs of anybody's, ours or a published table's, with what is known of each.

An analysis that asks only "which method, at which learning rate, batch size and rank, came to which number" takes a
`Table`, so that it serves results that welltuned did not produce. What a table does not say is None, never a guess.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.cells import score_nats
from welltuned.records import Result, Role, Status

Pairs = tuple[tuple[str, str], ...]  # names with their values
NLL, ACCURACY = "validation_nll", "test_accuracy"  # the two metrics of our own results


@dataclass(frozen=True)
class Run:
    """One training run, or the mean of `num_seeds` of them with the standard deviation `sd` over seeds.

    `value` is the metric in its own unit; a diverged run has the value that it counts with (our own results: the base
    model's loss, accuracy 0) and `diverged` set. `problem` names what must be equal for two runs to be compared (model,
    data set, size of the data): methods are compared within it and never across. `setting` holds whatever else was set,
    by name (alpha, optimizer, schedule, ...), and `scaling` is the multiplier s of y = W x + s B A x.
    """

    method: str
    value: float
    learning_rate: float | None = None
    batch_size: int | None = None
    rank: int | None = None
    seed: str | None = None
    sd: float | None = None
    num_seeds: int = 1
    num_items: int | None = None
    split: str | None = None
    diverged: bool = False
    problem: Pairs = ()
    setting: Pairs = ()
    scaling: float | None = None
    num_train: int | None = None
    num_tokens: int | None = None
    seconds: float | None = None
    flops: float | None = None
    peak_bytes: float | None = None
    selected: bool = True  # this value may choose a configuration; False: a rerun that selection never saw


@dataclass(frozen=True)
class Table:
    """Runs with the metric they are measured in."""

    runs: tuple[Run, ...]
    metric: str
    higher_is_better: bool

    def __hash__(self) -> int:
        """Return the hash of the fields, computed once: analyses are remembered by their table."""
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.runs, self.metric, self.higher_is_better))

    def better(self, one: float, other: float) -> bool:
        """Say whether `one` is strictly better than `other`."""
        return one > other if self.higher_is_better else one < other

    @property
    def sign(self) -> int:
        """Return what a value is multiplied with to make larger better."""
        return 1 if self.higher_is_better else -1

    def score(self, run: Run) -> float:
        """Return the value with the sign that makes larger better."""
        return self.sign * run.value

    def methods(self) -> tuple[str, ...]:
        """Return the methods in the order of their first appearance."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    def problems(self) -> tuple[Pairs, ...]:
        """Return the problems in the order of their first appearance."""
        return tuple(dict.fromkeys(run.problem for run in self.runs))

    def only(self, runs: Sequence[Run]) -> "Table":
        """Return a table of some of the runs."""
        return Table(tuple(runs), self.metric, self.higher_is_better)


PROBLEM = ("base", "revision", "dtype", "quantization", "task", "num_train", "num_validation", "target_modules")
SETTING = (
    *("alpha", "alpha_pattern", "rank_pattern", "dropout", "start_from", "loraplus_lr_ratio"),
    *("optimizer", "beta1", "beta2", "beta2_batch_size", "epsilon", "momentum", "weight_decay", "max_grad_norm"),
    *("lr_scheduler_type", "lr_floor", "warmup_ratio", "warmup_steps", "num_train_epochs", "max_steps"),
)


def of_results(results: Sequence[Result], metric: str = NLL) -> Table:
    """Return our own results as a table in validation NLL (selection trials and reruns) or test accuracy (reruns)."""
    if metric not in (NLL, ACCURACY):
        raise ValueError(f"metric: got {metric!r}, expected {NLL!r} or {ACCURACY!r}")
    graded = any(result.test_correct is not None for result in results)
    runs = [run for result in results if (run := run_of(result, metric, graded)) is not None]
    return Table(tuple(runs), metric, metric == ACCURACY)


def run_of(result: Result, metric: str, graded: bool) -> Run | None:
    """Return a result as a run, None where it has no number in this metric; `graded`: the study grades test answers."""
    if result.role is Role.PROBE:
        return None
    value = score_nats(result) if metric == NLL else result.test_accuracy if graded else None
    if value is None or not math.isfinite(value):
        return None
    config = result.config
    answers = result.test_correct
    return Run(
        method=config.method,
        value=value,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        rank=config.rank,
        seed=f"{config.init_seed}/{config.order_seed}/{config.subset_seed}",
        num_items=len(answers) if metric == ACCURACY and answers is not None else None,
        split="validation" if metric == NLL else "test",
        diverged=result.status is Status.DIVERGED,
        problem=tuple((name, _text(getattr(config, name))) for name in PROBLEM),
        setting=tuple((name, _text(getattr(config, name))) for name in SETTING),
        scaling=config.scaling,
        num_train=config.num_train,
        num_tokens=result.num_tokens,
        seconds=result.seconds,
        selected=metric == NLL and result.role is Role.SELECT,
    )


def _text(value: object) -> str:
    return " ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
