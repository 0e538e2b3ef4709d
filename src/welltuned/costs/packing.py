"""Which trials train together: a pack is N trials on one base, m rows of each per micro-step. Pure and deterministic.

Batch sizes are never touched: m only says in how many pieces a batch is computed. Trials are put together that see the
same data, end together, and would like the same m; in a pack equal (method, rank) stand side by side, since their
adapters are multiplied at once, and within these the trials that see the same rows in the same order.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence

from welltuned.costs import memory
from welltuned.costs.flops import num_samples
from welltuned.errors import MachineError, problem
from welltuned.records import Config, Survey, TrainJob, Trial

MOST_TOKENS = 8192  # of a micro-step: what it takes to hide Python's share on the smallest models; assumed
FEWEST_TOKENS = 2048  # what it takes to keep large matmuls at their peak; assumed
TARGET_FLOPS = 1.2e12  # forward and backward of a micro-step; between the two bounds this decides; assumed
USUAL_ROWS = 4  # rows of one trial where a micro-step has MOST_TOKENS, fewer in proportion; assumed
MAX_WASTE = 1.05  # computed rows / real rows, because m does not divide every batch size; assumed tolerable


def pack(
    trials: Sequence[Trial], survey: Survey, memory_bytes: int, target_tokens: int | None = None
) -> tuple[TrainJob, ...]:
    """Group trials into packs that fit into memory; every trial is in exactly one."""
    jobs: list[TrainJob] = []
    target_tokens = target_tokens or target(survey)
    ordered = sorted(trials, key=lambda trial: (_bucket(trial.config), _cohort(trial.config), *_place(trial.config)))
    for _, members in itertools.groupby(ordered, key=lambda trial: _bucket(trial.config)):
        jobs += _pack_bucket(list(members), survey, memory_bytes, target_tokens)
    return tuple(jobs)


def target(survey: Survey) -> int:
    """Return the tokens that a micro-step should have.

    Fewer on a large base, whose matmuls are busy with few: trials that see the same rows need no padding at m = 1.
    """
    tokens = TARGET_FLOPS / (4 * survey.num_base_weights)
    return round(min(MOST_TOKENS, max(FEWEST_TOKENS, tokens)))


def smaller(job: TrainJob) -> tuple[TrainJob, ...]:
    """Return what to try after a pack was too large for the machine: half the rows, then half the trials, or ()."""
    if job.micro_rows > 1:
        return (make_job(job.trials, job.micro_rows // 2),)
    if len(job.trials) > 1:
        half = len(job.trials) // 2
        return make_job(job.trials[:half], 1), make_job(job.trials[half:], 1)
    return ()


def make_job(trials: Iterable[Trial], micro_rows: int) -> TrainJob:
    """Return the pack of these trials; its id is the hash of theirs and of m."""
    members = tuple(trials)
    text = json.dumps([[trial.id for trial in members], micro_rows])
    return TrainJob(hashlib.sha256(text.encode()).hexdigest()[:16], members, micro_rows)


def _bucket(config: Config) -> tuple[object, ...]:
    """Return what the members of a pack have in common: data, length, and the rows they can use (up to the usual)."""
    return json.dumps(config.data_key()), -num_samples(config), min(config.batch_size, USUAL_ROWS)


def _cohort(config: Config) -> tuple[int, ...]:
    """Return what decides which rows a trial sees in which order; equal ones share tokens and embeddings."""
    return config.subset_seed, config.order_seed, config.num_train, config.num_train_epochs


def _place(config: Config) -> tuple[object, ...]:
    return config.method, config.rank, config.batch_size, config.learning_rate, config.id()


def _pack_bucket(members: list[Trial], survey: Survey, memory_bytes: int, target_tokens: int) -> Iterator[TrainJob]:
    usual = max(1, USUAL_ROWS * target_tokens // MOST_TOKENS)
    rows = min(usual, *(trial.config.batch_size for trial in members))
    most = max(1, int(target_tokens / (rows * survey.mean_tokens)))
    num_members = _fit([trial.config for trial in members], survey, memory_bytes, most)
    for part in _even_parts(members, num_members):
        configs = [trial.config for trial in part]
        room = _rows_for(configs, survey, target_tokens)
        while room > 1 and _bytes(configs, survey, room) > memory_bytes:
            room -= 1
        room = _without_waste(configs, room)
        yield make_job(sorted(part, key=lambda trial: (*_place(trial.config)[:2], _cohort(trial.config))), room)


def _fit(configs: Sequence[Config], survey: Survey, memory_bytes: int, most: int) -> int:
    """Return the number of members that fits, with fewer rows before fewer trials, since that loses least."""
    largest = max(configs, key=lambda config: memory.adapter_values(config, survey))
    num_members = min(most, len(configs))
    while True:
        needed = _bytes([largest] * num_members, survey, micro_rows=1)
        if needed <= memory_bytes:
            return num_members
        if num_members == 1:
            expected = f"about {needed / 2**30:.2f} GiB for one trial with one row"
            advice = "free some, or choose a smaller base, dtype bfloat16 or a lower max_length"
            raise MachineError(problem("memory", f"{memory_bytes / 2**30:.2f} GiB", expected, advice))
        num_members = max(1, num_members // 2)


def _rows_for(configs: Sequence[Config], survey: Survey, target_tokens: int) -> int:
    """Return the rows per trial that fill a micro-step's tokens, at most the smallest batch."""
    wanted = round(target_tokens / (len(configs) * survey.mean_tokens))
    return max(1, min(wanted, *(config.batch_size for config in configs)))


def _without_waste(configs: Sequence[Config], room: int) -> int:
    """Return the largest m up to `room` that leaves few slots empty, m = 1 at the least."""
    for rows in range(room, 1, -1):
        waste = sum(-(-config.batch_size // rows) * rows / config.batch_size for config in configs) / len(configs)
        if waste <= MAX_WASTE:
            return rows
    return 1


def _bytes(configs: Sequence[Config], survey: Survey, micro_rows: int) -> int:
    return memory.estimate(configs, survey, micro_rows).total_bytes


def _even_parts(members: Sequence[Trial], most: int) -> Iterator[Sequence[Trial]]:
    """Split into as few parts as possible, of sizes that differ by one at most, so that they end together."""
    num_parts = -(-len(members) // most)
    bounds = [round(part * len(members) / num_parts) for part in range(num_parts + 1)]
    yield from (members[start:end] for start, end in itertools.pairwise(bounds))
