"""Which trials train together: a pack is N trials on one base, m rows of each per micro-step. Pure and deterministic.

Batch sizes are never touched: m only says in how many pieces a batch is computed. Trials are put together that see the
same data, end together, and would like the same m; in a pack equal (method, rank) stand side by side, since their
adapters are multiplied at once, and within these the trials that see the same rows in the same order.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from welltuned.costs import compiling, memory
from welltuned.costs.flops import num_samples, trains_whole
from welltuned.errors import MachineError, problem
from welltuned.records import Config, Survey, TrainJob, Trial

# Tokens of a micro-step, to hide Python's share. abacus-middle, rank 8, batch 4, bfloat16, compiled, two AMX cores:
# 32, 37, 40 and 39 thousand tokens/s at 8, 16, 32 and 64 trials, which are 2, 4, 9 and 18 thousand tokens a micro-step.
MOST_TOKENS = 10240
FEWEST_TOKENS = 2048  # what it takes to keep large matmuls at their peak; assumed
TARGET_FLOPS = 1.2e12  # forward and backward of a micro-step; between the two bounds this decides; assumed
USUAL_ROWS = 4  # rows of one trial where a micro-step has MOST_TOKENS, fewer in proportion; assumed
MAX_WASTE = 1.05  # computed rows / real rows, because m does not divide every batch size; assumed tolerable


@dataclass(frozen=True)
class Room:
    """What the packs of one base and data set may take: bytes on a device, and the tokens a micro-step should have."""

    survey: Survey
    memory_bytes: int
    device: str
    target_tokens: int

    def fits(self, configs: Sequence[Config], micro_rows: int, recompute: bool, compiled: bool = False) -> bool:
        """Say whether a pack of these trials fits."""
        return self.needed_bytes(configs, micro_rows, recompute, compiled) <= self.memory_bytes

    def needed_bytes(self, configs: Sequence[Config], micro_rows: int, recompute: bool, compiled: bool = False) -> int:
        """Return what a pack of these trials takes."""
        return memory.estimate(configs, self.survey, micro_rows, self.device, recompute, compiled).total_bytes


def pack(
    trials: Sequence[Trial],
    survey: Survey,
    memory_bytes: int,
    device: str = "cpu",
    target_tokens: int | None = None,
) -> tuple[TrainJob, ...]:
    """Group trials into packs that fit into memory; every trial is in exactly one."""
    jobs: list[TrainJob] = []
    room = Room(survey, memory_bytes, device, target_tokens or target(survey))
    ordered = sorted(trials, key=lambda trial: (_bucket(trial.config), _cohort(trial.config), *_place(trial.config)))
    for _, members in itertools.groupby(ordered, key=lambda trial: _bucket(trial.config)):
        jobs += _pack_bucket(list(members), room)
    return tuple(jobs)


def target(survey: Survey) -> int:
    """Return the tokens that a micro-step should have.

    Fewer on a large base, whose matmuls are busy with few: trials that see the same rows need no padding at m = 1.
    """
    tokens = TARGET_FLOPS / (4 * survey.num_base_weights)
    return round(min(MOST_TOKENS, max(FEWEST_TOKENS, tokens)))


def smaller(job: TrainJob) -> tuple[TrainJob, ...]:
    """Return what to try after a pack was too large: half the rows, half the trials, then recomputed blocks, or ()."""
    if job.micro_rows > 1:
        return (reshaped(job, job.trials, job.micro_rows // 2),)
    if len(job.trials) > 1:
        half = len(job.trials) // 2
        return reshaped(job, job.trials[:half], 1), reshaped(job, job.trials[half:], 1)
    return () if job.recompute else (dataclasses.replace(job, recompute=True, resume=None),)


def reshaped(job: TrainJob, trials: Sequence[Trial], micro_rows: int) -> TrainJob:
    """Return a job that starts anew with these trials and rows, and is otherwise run in the same way."""
    fresh = make_job(trials, micro_rows)
    return dataclasses.replace(job, id=fresh.id, trials=fresh.trials, micro_rows=micro_rows, resume=None)


def make_job(trials: Iterable[Trial], micro_rows: int) -> TrainJob:
    """Return the pack of these trials; its id is the hash of theirs and of m."""
    members = tuple(trials)
    text = json.dumps([[trial.id for trial in members], micro_rows])
    return TrainJob(hashlib.sha256(text.encode()).hexdigest()[:16], members, micro_rows)


def _bucket(config: Config) -> tuple[object, ...]:
    """Return what the members of a pack have in common: data, length, and the rows they can use (up to the usual)."""
    # a trial that trains the whole model has a pack to itself
    return trains_whole(config), json.dumps(config.data_key()), -num_samples(config), min(config.batch_size, USUAL_ROWS)


def _cohort(config: Config) -> tuple[int, ...]:
    """Return what decides which rows a trial sees in which order; equal ones share tokens and embeddings."""
    return config.subset_seed, config.order_seed, config.num_train, config.num_train_epochs


def _place(config: Config) -> tuple[object, ...]:
    return config.method, config.rank, config.batch_size, config.learning_rate, config.id()


def _pack_bucket(members: list[Trial], room: Room) -> Iterator[TrainJob]:
    """Put trials together that fit uncompiled, as a worker without a compiler runs them.

    They are compiled where that pays and where the compiler, which takes some memory itself, fits, too.
    """
    usual = max(1, USUAL_ROWS * room.target_tokens // MOST_TOKENS)
    rows = min(usual, *(trial.config.batch_size for trial in members))
    is_alone = trains_whole(members[0].config)
    most = 1 if is_alone else max(1, int(room.target_tokens / (rows * room.survey.mean_tokens)))
    num_members, recompute = _fit([trial.config for trial in members], room, most)
    compiled = compiling.is_worth_it([trial.config for trial in members], room.survey)
    for part in _even_parts(members, num_members):
        configs = [trial.config for trial in part]
        rows = _rows_for(configs, room)
        while rows > 1 and not room.fits(configs, rows, recompute):
            rows -= 1
        rows = _without_waste(configs, rows)
        ordered = sorted(part, key=lambda trial: (*_place(trial.config)[:2], _cohort(trial.config)))
        fits = compiled and room.fits(configs, rows, recompute, compiled)
        yield dataclasses.replace(make_job(ordered, rows), compiled=fits, recompute=recompute)


def _fit(configs: Sequence[Config], room: Room, most: int) -> tuple[int, bool]:
    """Return the number of members that fits, and whether their blocks must be recomputed for that.

    Fewer rows before fewer trials, since that loses least; recomputing, which takes 6 operations for 4, last.
    """
    ordered = sorted(configs, key=lambda config: memory.adapter_values(config, room.survey), reverse=True)
    for recompute in (False, True):
        for num_members in range(min(most, len(configs)), 0, -1):
            if room.fits(ordered[:num_members], 1, recompute):
                return num_members, recompute
    needed = room.needed_bytes(ordered[:1], micro_rows=1, recompute=True)
    expected = f"about {needed / 2**30:.2f} GiB for one trial with one row"
    advice = "free some, or choose a smaller base, dtype bfloat16 or a lower max_length"
    raise MachineError(problem("memory", f"{room.memory_bytes / 2**30:.2f} GiB", expected, advice))


def _rows_for(configs: Sequence[Config], room: Room) -> int:
    """Return the rows per trial that fill a micro-step's tokens, at most the smallest batch."""
    wanted = round(room.target_tokens / (len(configs) * room.survey.mean_tokens))
    return max(1, min(wanted, *(config.batch_size for config in configs)))


def _without_waste(configs: Sequence[Config], room: int) -> int:
    """Return the largest m up to `room` that leaves few slots empty, m = 1 at the least."""
    for rows in range(room, 1, -1):
        waste = sum(-(-config.batch_size // rows) * rows / config.batch_size for config in configs) / len(configs)
        if waste <= MAX_WASTE:
            return rows
    return 1


def _even_parts(members: Sequence[Trial], most: int) -> Iterator[Sequence[Trial]]:
    """Split into as few parts as possible, of sizes that differ by one at most, so that they end together."""
    num_parts = -(-len(members) // most)
    bounds = [round(part * len(members) / num_parts) for part in range(num_parts + 1)]
    yield from (members[start:end] for start, end in itertools.pairwise(bounds))
