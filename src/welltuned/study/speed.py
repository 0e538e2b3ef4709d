"""How fast this machine trains: two short packs of the bundled bases, timed once and kept in the user's cache.

A small base shows what a token costs beside its operations, a larger one the rate of operations. They are trained as
every pack is, by the same worker, so that whatever makes training fast or slow here is in the numbers.
"""

import dataclasses
import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from welltuned import plan as plans
from welltuned.costs import flops, packing
from welltuned.errors import MachineError
from welltuned.executors.inline import Inline
from welltuned.plan_cost import Speed
from welltuned.records import Config, Event, Job, JobLost, Outcome, Role, Survey, SurveyJob, Trial
from welltuned.spec import Spec
from welltuned.study.options import Options
from welltuned.study.surveys import cache_folder, source_version

BASES = ("abacus-small", "abacus-large")
NUM_TRIALS, BATCH_SIZE, NUM_STEPS = 16, 4, 8  # about 35,000 tokens: a few seconds for both bases on two cores; assumed
NUM_RUNS = 2  # of which the faster counts: the first warms up, and either may meet another program
# Code that decides how fast training is.
SOURCES = ("train", "packing", "methods", "models", "objectives", "study/speed.py")


def speed(options: Options, dtype: str) -> Speed:
    """Return the speed of training in a precision on this machine, from the cache where it was measured before."""
    file = _cache(options, dtype)
    known = _read(file)
    if known is None:
        known = _measure(options, dtype)
        _write(file, known)
    return known


def _measure(options: Options, dtype: str) -> Speed:
    """Solve seconds / token = token_seconds + (operations / token) / rate, of a small and a larger base."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = options.runtime(folder, options.new_threads())
        with Inline(runtime, options.entry) as executor:
            small, large = (_timed(executor, base, dtype) for base in BASES)
    seconds, operations = large.seconds - small.seconds, large.operations - small.operations
    if min(seconds, operations) <= 0:  # the machine was busy with something else while the small one trained
        return Speed(large.operations / large.seconds, 0.0)
    rate = operations / seconds
    return Speed(rate, max(0.0, small.seconds - small.operations / rate))


@dataclass(frozen=True)
class _PerToken:
    seconds: float
    operations: float


def _timed(executor: Inline, base: str, dtype: str) -> _PerToken:
    """Train a short pack and return what a token of it took."""
    configs = _configs(base, dtype)
    (survey,) = (event for event in _events(executor, SurveyJob("speed", configs[0])) if isinstance(event, Survey))
    pack = packing.make_job([Trial(config, Role.SELECT) for config in configs], BATCH_SIZE)
    runs = [[event for event in _events(executor, pack) if isinstance(event, Outcome)] for _ in range(NUM_RUNS)]
    seconds = min(max(outcome.pack_seconds for outcome in outcomes) for outcomes in runs)
    num_tokens = sum(outcome.num_tokens for outcome in runs[0])
    work = [flops.work(config, survey) for config in configs]
    operations = sum(item.train_flops for item in work) / sum(item.num_tokens for item in work)
    return _PerToken(seconds / num_tokens, operations)


def _events(executor: Inline, job: Job) -> Iterator[Event]:
    for event in executor.run(job):
        if isinstance(event, JobLost):
            raise MachineError(
                f"this machine's speed: the worker that measures it was lost ({event.reason}); free some memory and "
                "run again"
            )
        yield event


def _configs(base: str, dtype: str) -> list[Config]:
    """Return LoRA trials with learning rates too small to matter."""
    spec = {
        "name": "speed",
        "model": {"base": base, "dtype": dtype},
        "task": {"task": "abacus", "num_train": 64, "num_validation": 4, "num_test": 4},
        "train": {"method": "lora", "batch_size": BATCH_SIZE, "max_steps": NUM_STEPS, "num_evaluations": 1},
        "axes": {"learning_rate": [1e-7 * (1 + trial) for trial in range(NUM_TRIALS)]},
    }
    return list(plans.expand(Spec.model_validate(spec)))


def _cache(options: Options, dtype: str) -> Path:
    """Return the file of this machine, these threads, and the code that trains."""
    facts = (platform.node(), platform.processor(), platform.machine(), options.device, options.new_threads(), dtype)
    digest = hashlib.sha256(json.dumps([*facts, options.entry, source_version(SOURCES)]).encode())
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
