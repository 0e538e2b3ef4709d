"""One trial's progress through its pack: turns, losses, evaluation points, divergence, outcome. No tensors here."""

import dataclasses
import math

import numpy as np

from welltuned.records import Outcome, Point, Status, Trial
from welltuned.train.cursor import Turn

# One declared threshold for all methods (design D6): a step whose training loss is not finite or exceeds this multiple
# of the base's step-0 validation loss has diverged; so has a run whose final validation loss is above the base's.
# Assumed: far above the batch-to-batch spread of a healthy run, far below what a run can recover from within its
# schedule.
DIVERGENCE_RATIO = 3.0

ROUNDING = 1e-3  # relative; assumed: what bfloat16 sums in other shapes may differ by where nothing was learned

SNAPSHOT_FIELDS = (
    *("reason", "frozen", "reported", "num_steps", "num_samples", "num_tokens", "num_clipped", "partial_loss"),
    *("losses", "losses_shown", "rate", "validation_nll"),
)

NOTHING = np.zeros(0, dtype=np.int64)
IDLE = Turn(NOTHING, NOTHING, 0, 0, False, 0)


def _from_step(step: int, all_turns: list[Turn]) -> list[Turn]:
    """Return the turns from an optimizer step on, with the rows read counted from there."""
    skipped = max((turn.num_samples for turn in all_turns if turn.step < step), default=0)
    rest = [turn for turn in all_turns if turn.step >= step]
    return [dataclasses.replace(turn, num_samples=turn.num_samples - skipped) for turn in rest]


class Runner:
    """The bookkeeping of one trial in a pack."""

    def __init__(self, trial: Trial, all_turns: list[Turn], lengths: np.ndarray, base_nll: float) -> None:
        self.trial, self.config, self.base_nll = trial, trial.config, base_nll
        self.turns = _from_step(trial.config.start_step, all_turns)
        self.total_steps = self.turns[-1].step + 1
        self.total_samples = self.turns[-1].num_samples
        self.lengths = lengths
        self.status: Status | None = None
        self.reason = ""
        self.frozen = self.reported = False
        self.last_turn: Turn = IDLE
        self.num_steps = self.num_samples = self.num_tokens = self.num_clipped = 0
        self.partial_loss = 0.0  # of the effective batch that is being read
        self.losses: list[float] = []
        self.losses_shown = 0  # how many of them the last point has averaged
        self.rate = 0.0
        self.evaluation_turns = self._evaluation_turns()
        self.validation_nll: float | None = None

    @property
    def steps_behind(self) -> int:
        """Return the steps taken on the whole course, those of the trial that this one goes on from included."""
        return self.config.start_step + self.num_steps

    def start(self) -> Point:
        """Return the point of step 0: every method starts as the base."""
        return Point(self.trial.id, 0, 0, 0, 0.0, None, self.base_nll)

    def turn(self, micro_step: int) -> Turn:
        """Return what to do in this micro-step; nothing once the trial is over."""
        return IDLE if self.status is not None else self.planned(micro_step)

    def planned(self, micro_step: int) -> Turn:
        """Return what was planned for this micro-step, whether or not the trial has ended by itself since."""
        return self.turns[micro_step] if micro_step < len(self.turns) else IDLE

    def read(self, turn: Turn, loss: float) -> None:
        """Take in the loss of a turn; close the effective batch and judge divergence where it ends."""
        self.last_turn = turn
        if turn is IDLE:
            return
        self.partial_loss += loss
        self.num_samples = turn.num_samples
        self.num_tokens += int(self.lengths[turn.rows].sum())
        if turn.ends_step or not math.isfinite(self.partial_loss):
            self._close_batch()

    def _close_batch(self) -> None:
        loss, self.partial_loss = self.partial_loss, 0.0
        limit = DIVERGENCE_RATIO * self.base_nll
        if not math.isfinite(loss):
            self._diverge(f"training loss {loss} at step {self.num_steps + 1}")
        elif loss > limit:
            bound = f"{DIVERGENCE_RATIO:g} x {self.base_nll:.3g} (the base's validation loss)"
            self._diverge(f"training loss {loss:.3g} at step {self.num_steps + 1} exceeds {bound}")
        else:
            self.losses.append(loss)

    def _diverge(self, reason: str) -> None:
        self.status, self.reason = Status.DIVERGED, reason

    def is_due(self) -> bool:
        """Say whether the effective batch is complete and its update is to be made."""
        return self.status is None and self.last_turn.ends_step

    def stepped(self, rate: float, was_clipped: bool) -> None:
        """Count an optimizer step."""
        self.num_steps += 1
        self.num_clipped += was_clipped
        self.rate = rate

    def _evaluation_turns(self) -> frozenset[int]:
        """Return the turns after which it is evaluated: where steps end next after even shares of the samples."""
        found: set[int] = set()
        num_passed = 0
        for place, turn in enumerate(self.turns):
            reached = turn.num_samples * self.config.num_evaluations // self.total_samples
            if turn.ends_step and reached > num_passed:
                found.add(place)
                num_passed = reached
        return frozenset(found)

    def is_evaluated_after(self, micro_step: int) -> bool:
        """Say whether the plan evaluates the trial after this many micro-steps."""
        return micro_step - 1 in self.evaluation_turns

    def evaluated(self, nll: float) -> Point:
        """Take in a validation loss and return the curve's point; the last one decides FINISHED or DIVERGED."""
        if not math.isfinite(nll):
            self._diverge(f"validation loss {nll} at step {self.num_steps}")
        elif self.steps_behind == self.total_steps:
            self._finish(nll)
        recent = self.losses[self.losses_shown :]
        self.losses_shown = len(self.losses)
        train_loss = math.fsum(recent) / len(recent) if recent else None
        shown = nll if math.isfinite(nll) else None
        return Point(self.trial.id, self.num_steps, self.num_samples, self.num_tokens, self.rate, train_loss, shown)

    def _finish(self, nll: float) -> None:
        if nll > self.base_nll * (1 + ROUNDING):
            self._diverge(f"final validation loss {nll:.4g} is above the base's {self.base_nll:.4g}")
        else:
            self.status, self.validation_nll = Status.FINISHED, nll

    def is_over(self) -> bool:
        """Say whether the trial has ended."""
        return self.status is not None

    def outcome(self, pack_seconds: float, pack_tokens: int, adapter: str | None, num_trained: int) -> Outcome:
        """Return how the trial ended; a diverged one scores the base's step-0 loss."""
        assert self.status is not None
        self.reported = True
        diverged = self.status is Status.DIVERGED
        return Outcome(
            trial_id=self.trial.id,
            status=self.status,
            reason=self.reason,
            num_steps=self.num_steps,
            num_samples=self.num_samples,
            num_tokens=self.num_tokens,
            seconds=pack_seconds * self.num_tokens / max(1, pack_tokens),
            pack_seconds=pack_seconds,
            clip_fraction=self.num_clipped / max(1, self.num_steps),
            validation_nll=self.base_nll if diverged else self.validation_nll,
            adapter=adapter,
            train_losses=tuple(self.losses),
            num_trainable=num_trained,
        )

    def snapshot(self) -> dict:
        """Return what a checkpoint keeps of the bookkeeping, as JSON values."""
        return {"status": self.status, **{name: getattr(self, name) for name in SNAPSHOT_FIELDS}}

    def restore(self, snapshot: dict) -> None:
        """Take the bookkeeping from a checkpoint."""
        self.status = None if snapshot["status"] is None else Status(snapshot["status"])
        for name in SNAPSHOT_FIELDS:
            setattr(self, name, snapshot[name])
