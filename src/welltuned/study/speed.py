"""How fast this machine trains: two short packs of the bundled bases, timed once and kept in the user's cache.

A small base shows what a token costs beside its operations, a larger one the rate of operations. They are trained as
every pack is, by the same worker, so that whatever makes training fast or slow here is in the numbers. A plan does not
wait long for it: where the machine is too busy to be done in time, a speed is assumed, said to be, and not kept.
Whoever gives a budget in time gets it from a short pack of their own model instead, which nothing bounds.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from welltuned import plan as plans
from welltuned.costs import compiling, flops, packing
from welltuned.errors import MachineError
from welltuned.executors.inline import LATE, Inline
from welltuned.executors.machine import cache_folder
from welltuned.plan_cost import Speed
from welltuned.records import Config, Event, Job, JobLost, Outcome, Role, Survey, SurveyJob, TrainJob, Trial
from welltuned.spec import Spec
from welltuned.study.options import Note, Observer, Options, silent
from welltuned.study.surveys import source_version

BASES = ("abacus-small", "abacus-large")
NUM_TRIALS, BATCH_SIZE, NUM_STEPS = 16, 4, 4  # about 17,000 tokens: a second or two a base on two cores; assumed
MOST_SECONDS = 20.0  # that a plan waits for a speed, loading torch included; assumed
ASSUMED = Speed(
    compiling.FLOPS_PER_SECOND, compiling.TOKEN_SECONDS, is_measured=False
)  # two cores: measured for the packer
OWN_TRIALS = 2  # side by side; packs of a guided search have one to five, a lone trial is slowest; assumed
OWN_STEPS = (1, 6)  # of two short packs of a user's own model; assumed
OWN_VALIDATION = 4  # rows; the time of a validation follows from that of training
TINY = 1e-7  # a learning rate too small to matter
NUM_RUNS = 2  # of which the faster counts: the first warms up, and either may meet another program
# Code that decides how fast training is.
SOURCES = ("train", "packing", "methods", "models", "objectives", "study/speed.py")


class _LateError(Exception):
    """The time is up."""


def speed(options: Options, dtype: str, observe: Observer = silent) -> Speed:
    """Return the speed of training in a precision on this machine, from the cache where it was measured before.

    One that cannot be measured within `MOST_SECONDS` is assumed. What takes time, and what is assumed, is observed.
    """
    file = _cache(options, dtype)
    known = _read(file)
    if known is not None:
        return known
    observe(Note(f"measuring once how fast this machine trains in {dtype} (at most {MOST_SECONDS:.0f} s)"))
    try:
        measured = _measure(options, dtype, time.monotonic() + MOST_SECONDS)
    except _LateError:
        observe(
            Note(
                f"not measured within {MOST_SECONDS:.0f} s, so the speed of two cores is assumed for the time below; "
                "plan again when this machine is less busy"
            )
        )
        return ASSUMED
    _write(file, measured)
    return measured


def own_rate(config: Config, survey: Survey, options: Options, observe: Observer = silent) -> float:
    """Return the real tokens per second at which trials like this one train together on this machine: never assumed.

    What a pack takes once, such as memory that was never touched, is in both of two packs and leaves with the shorter.
    """
    observe(Note(f"timing two short packs of {config.base}, to say how many trials the time allows"))
    with tempfile.TemporaryDirectory() as folder:
        runtime = options.runtime(folder, options.new_threads())
        with Inline(runtime, options.entry) as executor:
            short, long = (_trained(executor, _own_pack(config, survey, options, steps), None) for steps in OWN_STEPS)
    seconds, num_tokens = long.seconds - short.seconds, long.num_tokens - short.num_tokens
    if min(seconds, num_tokens) <= 0:  # the machine was busy with something else while the shorter one trained
        return long.num_tokens / long.seconds
    return num_tokens / seconds


def _own_pack(config: Config, survey: Survey, options: Options, num_steps: int) -> TrainJob:
    changes = {"max_steps": num_steps, "num_train_epochs": 1, "num_evaluations": 1, "num_validation": OWN_VALIDATION}
    few = [config.replace(learning_rate=TINY * (1 + trial), **changes) for trial in range(OWN_TRIALS)]
    trials = [Trial(one, Role.SELECT) for one in few]
    return packing.pack(trials, survey, options.new_memory_bytes(), options.device)[0]


def _measure(options: Options, dtype: str, deadline: float) -> Speed:
    """Solve seconds / token = token_seconds + (operations / token) / rate, of a small and a larger base."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = options.runtime(folder, options.new_threads())
        with Inline(runtime, options.entry) as executor:
            small, large = (_timed(executor, base, dtype, deadline) for base in BASES)
    seconds, operations = large.seconds - small.seconds, large.operations - small.operations
    if min(seconds, operations) <= 0:  # the machine was busy with something else while the small one trained
        return Speed(large.operations / large.seconds, 0.0)
    rate = operations / seconds
    return Speed(rate, max(0.0, small.seconds - small.operations / rate))


@dataclass(frozen=True)
class _PerToken:
    seconds: float
    operations: float


def _timed(executor: Inline, base: str, dtype: str, deadline: float) -> _PerToken:
    """Train a short pack and return what a token of it took."""
    configs = _configs(base, dtype)
    looked = _events(executor, SurveyJob("speed", configs[0]), deadline)
    (survey,) = (event for event in looked if isinstance(event, Survey))
    pack = packing.make_job([Trial(config, Role.SELECT) for config in configs], BATCH_SIZE)
    runs = [_trained(executor, pack, deadline) for _ in range(NUM_RUNS)]
    seconds = min(run.seconds / run.num_tokens for run in runs)
    work = [flops.work(config, survey) for config in configs]
    operations = sum(item.train_flops for item in work) / sum(item.num_tokens for item in work)
    return _PerToken(seconds, operations)


@dataclass(frozen=True)
class _Trained:
    seconds: float
    num_tokens: int


def _trained(executor: Inline, pack: TrainJob, deadline: float | None) -> _Trained:
    """Train a pack and return what it took."""
    outcomes = [event for event in _events(executor, pack, deadline) if isinstance(event, Outcome)]
    seconds = max(outcome.pack_seconds for outcome in outcomes)
    return _Trained(seconds, sum(outcome.num_tokens for outcome in outcomes))


def _events(executor: Inline, job: Job, deadline: float | None) -> Iterator[Event]:
    for event in executor.run(job, deadline):
        if isinstance(event, JobLost):
            if event.reason == LATE:
                raise _LateError
            raise MachineError(
                f"this machine's speed: the worker that measures it was lost ({event.reason}); free some memory and "
                "run again"
            )
        yield event


def _configs(base: str, dtype: str) -> list[Config]:
    """Return LoRA trials that learn nothing."""
    spec = {
        "name": "speed",
        "model": {"base": base, "dtype": dtype},
        "task": {"task": "abacus", "num_train": 64, "num_validation": 4, "num_test": 4},
        "train": {"method": "lora", "batch_size": BATCH_SIZE, "max_steps": NUM_STEPS, "num_evaluations": 1},
        "axes": {"learning_rate": [TINY * (1 + trial) for trial in range(NUM_TRIALS)]},
    }
    return list(plans.expand(Spec.model_validate(spec)))


def _cache(options: Options, dtype: str) -> Path:
    """Return the file of this machine, these threads, this torch, and the code that trains."""
    machine = (platform.node(), platform.processor(), platform.machine(), options.device, options.new_threads(), dtype)
    code = (options.entry, source_version(SOURCES), importlib.metadata.version("torch"))
    digest = hashlib.sha256(json.dumps([*machine, *code]).encode())
    return cache_folder() / "speeds" / f"{digest.hexdigest()[:16]}.json"


def _read(file: Path) -> Speed | None:
    try:
        return Speed(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write(file: Path, speed: Speed) -> None:
    """Keep it for the next time; a cache that cannot be written costs seconds then and nothing else."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(speed)))
    except OSError:
        return
