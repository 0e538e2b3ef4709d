"""The points at which curvature is measured: the start, which all trials share, and trials on their way.

The trials are trained here for as many steps as asked, as the study would train them, and looked at as they pass.
Shape letters: N trials, P numbers of a block padded to the longest.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from welltuned.curvature.blocks import padded
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.optimizer import effective_beta2
from welltuned.packing.state import PackState, grouped, site_scaling
from welltuned.records import Config, Role, Runtime, TrainJob, Trial
from welltuned.train.loop import PackRun

MICRO_ROWS = 8  # of each trial in a pass of training; assumed
OF_TRAINING = (  # settings on which the start does not depend
    *("optimizer", "batch_size", "beta1", "beta2", "beta2_batch_size", "epsilon", "momentum", "weight_decay"),
    *("max_grad_norm", "lr_scheduler_type", "lr_floor", "warmup_ratio", "warmup_steps", "num_train_epochs"),
    *("max_steps", "num_evaluations", "loraplus_lr_ratio"),
)
OF_A_CELL = ("learning_rate", "init_seed", "order_seed", "subset_seed")  # the lowest, and the first, is taken


@dataclass(frozen=True)
class Point:
    """Trials at a number of steps, in the order of their state; several only at the start, where the base is shared."""

    step: int
    configs: tuple[Config, ...]
    state: PackState

    @property
    def shared(self) -> PackState | None:
        """Return the state at which the model is linearised; None stands for the base."""
        return None if self.step == 0 else self.state

    @property
    def label(self) -> str:
        """Name the point for a screen."""
        return "at the start" if self.step == 0 else f"{self.configs[0].method} after {self.step} steps"

    def trial_id(self, config: Config) -> str:
        """Return what a row calls its trial."""
        return config.id() if self.step else start_id(config)

    def key(self, config: Config, block: str) -> tuple[object, ...]:
        """Return the key of the row of a block (`BlockRow.key`)."""
        return (self.trial_id(config), self.step, block)

    def scaling(self, block: str, number: int) -> float | None:
        """Return the multiplier of a trial at a site; None for all sites together."""
        sites = self.state.groups[0].leaves
        return site_scaling(Trial(self.configs[number], Role.SELECT), block) if block in sites else None

    def preconditioner(self, sites: Sequence[str], length: int) -> Tensor | None:
        """Return Adam's P of one trial for the blocks of some sites, or of all together where none is named, [N, P].

        P = (1 - beta1^t) (sqrt(v / (1 - beta2^t)) + epsilon), so that a step is rate * m / P with the moment m as it is
        kept (Cohen et al. 2022, arXiv 2207.14484, section 2); LoRA+'s ratio divides the P of the tensors it speeds up.
        None at the start, and for another optimizer.
        """
        config, step = self.configs[0], self.step
        if step == 0 or config.optimizer != "adamw":
            return None
        (group,) = self.state.select([0]).groups
        with torch.no_grad():
            second_NP = group.moment2_NP / (1 - effective_beta2(config) ** step)
            group.flat_NP.copy_((1 - config.beta1**step) * (second_NP.sqrt() + config.epsilon))
            for leaves in group.leaves.values():
                for name in group.parametrisation.fast:
                    leaves[name].div_(config.loraplus_lr_ratio)
        if not sites:
            return padded(group.flat_NP, length)
        parts = [[leaf.detach().flatten(1) for leaf in group.leaves[site].values()] for site in sites]
        return torch.cat([padded(torch.cat(part, dim=1), length) for part in parts])


def start_id(config: Config) -> str:
    """Return the id of what a trial's start depends on (16 hex digits)."""
    left_out = (*OF_TRAINING, "learning_rate", "order_seed")
    given = {name: value for name, value in dataclasses.asdict(config).items() if name not in left_out}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]


def chosen(configs: Sequence[Config], steps: Sequence[int]) -> dict[int, tuple[Config, ...]]:
    """Return the trials measured at each step: one of each cell, at its lowest learning rate and first seeds.

    At the start, cells that differ in training alone are one. The lowest rate, because what is asked is what the loss
    looks like there, and not what a high rate has done to the trial.
    """
    cells: dict[Config, Config] = {}
    for config in sorted(configs, key=lambda one: one.learning_rate):
        cells.setdefault(_without(config, OF_A_CELL, configs[0]), config)
    ordered = sorted(cells.values(), key=list(configs).index)
    starts: dict[Config, Config] = {}
    for config in ordered:
        starts.setdefault(_without(config, (*OF_A_CELL, *OF_TRAINING), configs[0]), config)
    return {step: tuple(starts.values()) if step == 0 else tuple(ordered) for step in steps}


def _without(config: Config, names: Sequence[str], like: Config) -> Config:
    return config.replace(**{name: getattr(like, name) for name in names})


def trained(
    model: PackedModel,
    configs: Sequence[Config],
    tables: tuple[RowTable, RowTable],
    steps: Sequence[int],
    runtime: Runtime,
    ended: list[str],
) -> Iterator[Point]:
    """Train and yield each trial as it has made one of `steps`; who ends before is named in `ended`."""
    trials = grouped([Trial(config, Role.SELECT) for config in configs])
    run = PackRun(model, TrainJob("curvature", tuple(trials), MICRO_ROWS), *tables, runtime)
    left = {(place, step) for place in range(len(trials)) for step in steps}
    while left:
        run.advance()
        for place, runner in enumerate(run.live):
            if (place, runner.num_steps) in left and not runner.is_over():
                left.remove((place, runner.num_steps))
                yield Point(runner.num_steps, (runner.config,), run.state.select([place]))
            elif runner.is_over() and any(other == place for other, _ in left):
                left = {pair for pair in left if pair[0] != place}
                ended.append(f"{runner.config.method}, batch {runner.config.batch_size}: {runner.reason}")
