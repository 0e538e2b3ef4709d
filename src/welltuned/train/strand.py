"""A strand: some trials of a pack, with modules of their own, for one thread to train while others train the rest.

All that a strand writes is its own: its modules, its trials' runners, and views of its trials' numbers. Which trials it
has follows from the pack alone, so that threads, whichever is ahead, change no bit. Shape letters: N trials of the
strand, K target positions of all rows, trial-major.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from welltuned.evaluate.nll import sums
from welltuned.objectives import causal_lm
from welltuned.packing import lines, optimizer
from welltuned.packing.batch import RowTable
from welltuned.packing.dropout import Dropout, key
from welltuned.packing.linear import PackedModel
from welltuned.packing.lines import Lines
from welltuned.packing.state import PackState
from welltuned.records import Status
from welltuned.train.cursor import Turn
from welltuned.train.runner import IDLE, Runner
from welltuned.train.schedule import learning_rate


@dataclass(frozen=True)
class Manner:
    """How a pack is computed."""

    micro_rows: int  # of a trial in a micro-step, at most
    joined: bool  # a trial's rows are read one behind the other
    compiled: bool
    recompute: bool


@dataclass(frozen=True)
class Strand:
    """Some trials of a pack; `runners` are in the order of the state's positions."""

    model: PackedModel
    state: PackState
    runners: Sequence[Runner]
    table: RowTable
    manner: Manner

    def advance(self, micro_step: int) -> int:
        """Make a micro-step: forward and backward for one turn of every trial, then the steps due.

        Return the tokens read. Up to the last of the gradients it changes nothing, so that what fails before can be
        tried again. When its trials have all ended it waits for those of others.
        """
        turns = [runner.turn(micro_step) for runner in self.runners]
        is_over = all(turn is IDLE for turn in turns)
        loss_N = [0.0] * len(turns) if is_over else self._losses(micro_step, turns)
        for runner, turn, loss in zip(self.runners, turns, loss_N, strict=True):
            runner.read(turn, loss)
        freeze_diverged(self.state, self.runners)
        self._step()
        return sum(int(self.table.lengths[turn.rows].sum()) for turn in turns)

    def _losses(self, micro_step: int, turns: list[Turn]) -> list[float]:
        """Accumulate the gradients of these turns; return each one's share of its effective batch's loss."""
        read = self._lines(micro_step, [turn.rows for turn in turns])
        dropout = self._dropout(micro_step, read)
        return self._backward(read, dropout, [turn.num_targets for turn in turns])

    def _lines(self, micro_step: int, rows: list[np.ndarray]) -> Lines:
        """Return the lines of a micro-step, as long as all planned for it need: who has ended changes no bit."""
        planned = [runner.planned(micro_step).rows for runner in self.runners]
        size = lines.needed(self.table, planned, self.manner.joined)
        return lines.gather(self.table, rows, self.manner.micro_rows, size, self.manner.joined)

    def _dropout(self, micro_step: int, read: Lines) -> Dropout | None:
        """Return the dropout of a micro-step, or None where no trial has any."""
        if not any(runner.config.dropout for runner in self.runners):
            return None
        keys = []
        for runner in self.runners:
            turn = runner.turn(micro_step)
            empty = [0] * (self.manner.micro_rows - len(turn.places))
            keys.append([key(runner.config, turn.step, int(place)) for place in turn.places] + empty)
        rates = [runner.config.dropout for runner in self.runners]
        device, num_trials = self.model.base.device, len(self.runners)
        rate_N = torch.tensor(rates, dtype=torch.float64, device=device)
        slots = read.row_LS.view(num_trials, -1), read.position_LS.view(num_trials, -1)
        return Dropout(torch.tensor(keys, device=device), rate_N, *slots)

    def _backward(self, read: Lines, dropout: Dropout | None, num_targets: list[int]) -> list[float]:
        """Accumulate the gradients of the lines read; return each trial's share of its effective batch's loss."""
        base = self.model.base
        weight_N = torch.tensor([1 / max(1, count) for count in num_targets], dtype=torch.float64, device=base.device)
        with self.model.bound(self.state, dropout, self.manner.compiled, self.manner.recompute, read.places):
            features = base.features(read.ids_LS, read.told_LS)
            chosen_KF = features.flatten(0, 1).index_select(0, read.positions_K)
            weights_K = weight_N[read.trial_K].to(torch.promote_types(base.dtype, torch.float32))
            total, loss_K = causal_lm.weighted_loss(chosen_KF, base.head, read.targets_K, weights_K, base.vocab_size)
            self.state.accumulate(total)
        return (sums(loss_K, read.trial_K, len(self.runners)) * weight_N).tolist()

    def _step(self) -> None:
        """Update the trials whose effective batch is complete."""
        for group in self.state.groups:
            members = self.runners[group.start : group.stop]
            due = [place for place, runner in enumerate(members) if runner.is_due()]
            if not due:
                continue
            chosen = [members[place] for place in due]
            rates = [learning_rate(runner.config, runner.steps_behind, runner.total_steps) for runner in chosen]
            counts = [runner.steps_behind + 1 for runner in chosen]
            configs = [runner.config for runner in chosen]
            clipped = optimizer.step(self.model.base, group, due, configs, rates, counts)
            for runner, rate, was_clipped in zip(chosen, rates, clipped, strict=True):
                runner.stepped(rate, was_clipped)


def freeze_diverged(state: PackState, runners: Sequence[Runner]) -> None:
    """Freeze trials whose loss says they diverged: zero their numbers, so that nothing non-finite flows on."""
    for place, runner in enumerate(runners):
        if runner.status is Status.DIVERGED and not runner.frozen:
            runner.frozen = True
            state.zero(place)
