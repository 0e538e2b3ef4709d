"""Packed against alone in bfloat16: `python -m scripts.measure_bfloat16 --base abacus-middle`.

In float64 a pack and a trial alone are the same to 1e-9 (tests/test_conformance.py). In bfloat16 a product of more rows
may round another way, and training carries the difference on. What matters is whether it is small beside what another
seed changes: the same trials are trained in one pack and one by one, on several seeds, and three numbers are compared
for each learning rate: the largest difference of packed and alone, the spread over seeds, and the losses themselves.
"""

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from welltuned import plan as plans
from welltuned import worker
from welltuned.costs import packing
from welltuned.executors import machine
from welltuned.records import Config, JobLost, Outcome, Role, Runtime, Trial
from welltuned.spec import Spec

LARGEST = 0.005  # of the loss, relative: what the project promises
RATES = (3e-4, 1e-3, 3e-3)
HEADINGS = ("learning rate", "validation loss, packed", "alone", "largest difference", "standard deviation over seeds")


@dataclasses.dataclass(frozen=True)
class Compared:
    """One learning rate: final validation losses by seed, in nats per token."""

    learning_rate: float
    packed: tuple[float, ...]
    alone: tuple[float, ...]

    @property
    def largest_difference(self) -> float:
        """Return the largest difference of a trial packed and alone, relative to its loss alone."""
        pairs = zip(self.packed, self.alone, strict=True)
        return max(abs(one - other) / other for one, other in pairs)

    @property
    def seed_noise(self) -> float:
        """Return the standard deviation over seeds of the losses alone, relative to their mean."""
        return statistics.stdev(self.alone) / statistics.mean(self.alone)


def configs_of(base: str, rates: Sequence[float], seeds: int, samples: int, validation: int) -> list[Config]:
    """Return bfloat16 LoRA trials of each rate on each seed."""
    tree = {
        "name": "bfloat16",
        "model": {"base": base, "dtype": "bfloat16"},
        "task": {"task": "abacus", "num_train": samples, "num_validation": validation, "num_test": 4},
        "train": {"rank": 8, "batch_size": 4, "num_evaluations": 1},
        "axes": {"learning_rate": list(rates)},
        "search": {"seeds": seeds},
    }
    return list(plans.expand(Spec.model_validate(tree)))


def compare(configs: Sequence[Config], threads: int) -> list[Compared]:
    """Train the trials in one pack and one by one."""
    trials = [Trial(config, Role.SELECT) for config in configs]
    packed = _losses([trials], threads)
    alone = _losses([[trial] for trial in trials], threads)
    found: list[Compared] = []
    for rate in dict.fromkeys(config.learning_rate for config in configs):
        ids = [trial.id for trial in trials if trial.config.learning_rate == rate]
        found.append(Compared(rate, *(tuple(side[name] for name in ids) for side in (packed, alone))))
    return found


def _losses(packs: Sequence[Sequence[Trial]], threads: int) -> dict[str, float]:
    """Return the final validation loss of every trial."""
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as blobs:
        for trials in packs:
            for event in worker.run(packing.make_job(trials, 4), Runtime("cpu", threads, 1e9, blobs)):
                if isinstance(event, JobLost):
                    raise MemoryError(event.reason)
                if isinstance(event, Outcome):
                    assert event.validation_nll is not None
                    losses[event.trial_id] = event.validation_nll
    return losses


def lines(found: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Return the table."""
    return [
        (
            f"{one.learning_rate:g}",
            f"{statistics.mean(one.packed):.4f}",
            f"{statistics.mean(one.alone):.4f}",
            f"{one.largest_difference:.3%}",
            f"{one.seed_noise:.2%}",
        )
        for one in found
    ]


def main() -> None:
    """Measure, print, and add the table to a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="abacus-small")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--samples", type=int, default=512, help="training rows of a trial")
    parser.add_argument("--validation", type=int, default=64, help="validation rows")
    parser.add_argument("--threads", type=int, default=machine.num_threads())
    parser.add_argument("--write", type=Path, help="a page to add the table to")
    given = parser.parse_args()
    found = compare(configs_of(given.base, RATES, given.seeds, given.samples, given.validation), given.threads)
    rows = (HEADINGS, ("---:",) * len(HEADINGS), *lines(found))
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    print(table)
    if given.write is not None:
        given.write.write_text(given.write.read_text() + "\n" + table)


if __name__ == "__main__":
    main()
