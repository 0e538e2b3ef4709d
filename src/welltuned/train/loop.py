"""The micro-step loop: one pack, from its first row to every trial's outcome (design D2, D3, D6).

Each micro-step gathers up to m rows of every live trial, runs the base once over all of them, takes the gradients of
all adapters, and lets those trials step whose effective batch is complete; a large pack's on a CPU in two halves, side
by side (crew.py). Trials that end are retired; the block is compacted at planned points only, so that a neighbour's end
changes no bit of a trial's numbers before them.
"""

import math
import time
from collections.abc import Iterator, Sequence

from welltuned.costs.pace import Pace
from welltuned.evaluate.nll import validation_nll
from welltuned.models import unpadded
from welltuned.packing import adapter_file
from welltuned.packing.adapter_file import Moments
from welltuned.packing.batch import RowTable
from welltuned.packing.blocks import available
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState, grouped, initial, num_trainable
from welltuned.records import Checkpoint, Event, Progress, Runtime, Status, TrainJob
from welltuned.train import checkpoint, cursor
from welltuned.train.crew import Crew
from welltuned.train.runner import Runner
from welltuned.train.strand import Manner, freeze_diverged

NUM_COMPACTIONS = 32  # planned points at which retired trials leave: half a period is wasted, 1.6 % on average
CHECKPOINT_SHARE = 0.05  # of the time may go into checkpoints; they are rarer where they are large
PACE_SECONDS = 10.0  # of the past that the speed shown is of, at least; assumed
PROGRESS_SECONDS = 0.5  # between signs of life; assumed


class PackRun:
    """A pack in training. `events()` runs it; everything it decides follows from the job alone."""

    def __init__(
        self, model: PackedModel, job: TrainJob, train: RowTable, validation: RowTable, runtime: Runtime
    ) -> None:
        self.model, self.job, self.train, self.validation, self.runtime = model, job, train, validation, runtime
        self.base_nll = validation_nll(model, None, validation)[0]
        trials = grouped(job.trials)
        base = model.base
        self.joined = base.reads_lines and unpadded.pays(base.dtype, base.device, job.micro_rows)
        self.runners = []
        for trial in trials:
            planned = cursor.turns(trial.config, train.num_targets, train.lengths, job.micro_rows, self.joined)
            self.runners.append(Runner(trial, planned, train.lengths, self.base_nll))
        self.num_micro_steps = max(len(runner.turns) for runner in self.runners)
        self.compact_every = max(1, math.ceil(self.num_micro_steps / NUM_COMPACTIONS))
        self.live = list(self.runners)  # in the order of the state's positions
        self.state: PackState = initial(model.base, trials, train)
        self.compiled = job.compiled and available(model.base.device)
        manner = Manner(job.micro_rows, self.joined, self.compiled, job.recompute)
        self.crew = Crew(model, runtime.threads, train, manner)
        self.crew.deal(self.state, self.live)
        self.micro_step = 0
        self.seconds = 0.0  # spent on this pack, earlier processes included
        self.pace = Pace(PACE_SECONDS)  # of tokens, in this process

    def events(self) -> Iterator[Event]:
        """Train to the end, yielding curve points, outcomes, checkpoints and signs of life."""
        if self.job.resume is not None:
            checkpoint.restore(self, self.job.resume)
        else:
            yield from (runner.start() for runner in self.runners)
        clock = saved = shown = time.monotonic()
        pause, num_tokens = self.runtime.checkpoint_seconds, 0
        self.pace.add(clock, num_tokens)
        while self.live:
            num_tokens += self.advance()
            self.seconds, clock = self.seconds + time.monotonic() - clock, time.monotonic()
            yield from self._evaluations()
            planned = self.micro_step % self.compact_every == 0 or self.micro_step >= self.num_micro_steps
            if planned or all(runner.reported for runner in self.live):  # then no neighbour is left to be disturbed
                self._compact()
            now = time.monotonic()
            self.pace.add(now, num_tokens)
            if now - shown > PROGRESS_SECONDS:
                yield self._progress()
                shown = now
            if self.live and now - saved > pause:
                blob = checkpoint.save(self)
                yield Checkpoint(self.job.id, self.micro_step, blob)
                saved = time.monotonic()
                pause = max(self.runtime.checkpoint_seconds, (saved - now) / CHECKPOINT_SHARE)
            self.seconds, clock = self.seconds + time.monotonic() - clock, time.monotonic()

    def _progress(self, note: str = "") -> Progress:
        return Progress(self.job.id, self.micro_step / self.num_micro_steps, self.pace.per_second, note)

    def advance(self) -> int:
        """Make one micro-step and nothing beside it, for those who look at the state on the way; return the tokens."""
        num_tokens = self.crew.advance(self.micro_step)
        self.micro_step += 1
        return num_tokens

    def _evaluations(self) -> Iterator[Event]:
        """Evaluate the trials that reach an evaluation point, all at once; end those that are through.

        Who diverged is computed along until it leaves the block, so that shapes change no bit of the others' numbers.
        """
        pending = [place for place, runner in enumerate(self.live) if runner.is_evaluated_after(self.micro_step)]
        if pending:
            yield self._progress("validating")  # which may take minutes
            whole = len(pending) == len(self.live)
            state = self.state if whole else self.state.select(pending, trains=False)
            values = validation_nll(self.model, state, self.validation)
            for place, value in zip(pending, values, strict=True):
                if self.live[place].status is None:
                    yield self.live[place].evaluated(value)
        freeze_diverged(self.state, self.live)
        for place, runner in enumerate(self.live):
            if runner.is_over() and not runner.reported:
                adapter = None
                if runner.status is Status.FINISHED:
                    moments = None
                    if self.runtime.keep_moments:
                        moments = Moments(runner.steps_behind, *self.state.trial_moments(place))
                    states = self.state.trial_state(place)
                    adapter = adapter_file.save(self.runtime.blobs, runner.trial, states, moments)
                pack_tokens = sum(other.num_tokens for other in self.runners)
                yield runner.outcome(self.seconds, pack_tokens, adapter, num_trainable(self.model.base, runner.trial))

    def _compact(self) -> None:
        """Let retired trials leave the block; where that takes another compilation, once they are half of it."""
        keep = [place for place, runner in enumerate(self.live) if not runner.reported]
        sizes = [sum(group.start <= place < group.stop for place in keep) for group in self.state.groups]
        if len(keep) <= len(self.live) // 2 or (len(keep) < len(self.live) and self.crew.serves(sizes)):
            self.take(keep)

    def take(self, keep: Sequence[int]) -> None:
        """Keep the trials at these places only."""
        self.state = self.state.select(keep)
        self.live = [self.live[place] for place in keep]
        self.crew.deal(self.state, self.live)
