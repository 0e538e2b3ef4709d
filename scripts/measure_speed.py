"""What the packer's constants follow from: `python scripts/measure_speed.py abacus-small abacus-middle MODEL.gguf`.

For each base two curves of trained tokens per second: against the tokens of a micro-step, at ROWS rows of each trial,
and against the rows of each trial, at the tokens that were found to be enough. A first step and all that comes before
it are timed apart and taken off. From the knees of the curves it prints what `costs/packing.py` should say. Name the
bases from the smallest to the largest; nothing else should run meanwhile.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from welltuned import plan as plans
from welltuned.costs import packing
from welltuned.executors import machine
from welltuned.executors.inline import Inline
from welltuned.records import Config, Outcome, Role, Runtime, Survey, SurveyJob, Trial
from welltuned.spec import Spec

TOKENS = (512, 1024, 2048, 4096, 8192, 16384)  # of a micro-step
ROWS = (1, 2, 4, 8, 16)  # of one trial
BATCH_SIZE = max(ROWS)
ENOUGH = 0.95  # of the best rate: a knee is the first point that reaches it; assumed
SECONDS = 5.0  # a point is measured for about as long, two micro-steps at the least
GUESS = 4e11  # operations per second, for the number of steps only; assumed


@dataclass(frozen=True)
class Measured:
    """A base's two curves, tokens per second by tokens of a micro-step and by rows of a trial, and their knees."""

    base: str
    num_base_weights: int
    by_tokens: dict[int, float]
    by_rows: dict[int, float]

    @property
    def tokens(self) -> int:
        """Return the tokens of a micro-step that are enough."""
        return knee(self.by_tokens)

    @property
    def rows(self) -> int:
        """Return the rows of a trial that are enough."""
        return knee(self.by_rows)


def knee(rates: Mapping[int, float]) -> int:
    """Return the smallest size whose rate is close to the best.

    >>> knee({1: 50.0, 2: 90.0, 4: 97.0, 8: 100.0})
    4
    """
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= ENOUGH * best)


def constants(found: Sequence[Measured]) -> dict[str, float]:
    """Return what `costs/packing.py` should say, from bases of ascending size.

    MOST_TOKENS is enough on the smallest base and FEWEST_TOKENS on the largest; TARGET_FLOPS decides between, so it is
    that of the base in the middle. USUAL_ROWS holds at MOST_TOKENS, so it is that of the smallest.
    """
    middle = found[len(found) // 2]
    return {
        "MOST_TOKENS": found[0].tokens,
        "FEWEST_TOKENS": found[-1].tokens,
        "TARGET_FLOPS": 4.0 * middle.num_base_weights * middle.tokens,
        "USUAL_ROWS": found[0].rows,
    }


def configs_of(arguments: argparse.Namespace, base: str, num_trials: int, num_steps: int) -> list[Config]:
    """Return equal trials but for learning rates too small to matter."""
    is_real = arguments.data is not None and base.endswith(".gguf")
    data = {"task": "gsm8k", "data_train": [arguments.data], "max_length": 384} if is_real else {"task": "abacus"}
    spec = {
        "name": "speed",
        "model": {"base": base, "dtype": arguments.dtype},
        "task": {"num_train": 512, "num_validation": 4, "num_test": 4, **data},
        "train": {"max_steps": num_steps, "batch_size": BATCH_SIZE, "rank": arguments.rank, "num_evaluations": 1},
        "axes": {"learning_rate": [1e-7 * (1 + trial) for trial in range(num_trials)]},
    }
    return list(plans.expand(Spec.model_validate(spec)))


def rate(child: Inline, arguments: argparse.Namespace, base: str, survey: Survey, num_trials: int, rows: int) -> float:
    """Return the real tokens per second of a pack, its first optimizer step taken off."""
    step_tokens = num_trials * BATCH_SIZE * survey.mean_tokens
    guessed = step_tokens * 4 * survey.num_base_weights / GUESS
    num_steps = 1 + max(1, min(16, round(SECONDS / max(guessed, 1e-9))))
    few, many = (train(child, configs_of(arguments, base, num_trials, steps), rows) for steps in (1, num_steps))
    return (many[0] - few[0]) / max(1e-9, many[1] - few[1])


def train(child: Inline, configs: list[Config], rows: int) -> tuple[int, float]:
    """Return the real tokens and the seconds of training a pack."""
    job = packing.make_job([Trial(config, Role.SELECT) for config in configs], rows)
    outcomes = [event for event in child.run(job) if isinstance(event, Outcome)]
    return sum(outcome.num_tokens for outcome in outcomes), max(outcome.pack_seconds for outcome in outcomes)


def measure(child: Inline, arguments: argparse.Namespace, base: str) -> Measured:
    """Measure both curves of a base and print them."""
    one = configs_of(arguments, base, 1, 1)
    (survey,) = (event for event in child.run(SurveyJob("survey", one[0])) if isinstance(event, Survey))
    print(f"{base}, {arguments.dtype}: {survey.num_base_weights:,} weights, {survey.mean_tokens:.0f} tokens a row")
    train(child, one, 1)  # warm
    by_tokens: dict[int, float] = {}
    for wanted in arguments.tokens:
        num_trials = max(1, round(wanted / (packing.USUAL_ROWS * survey.mean_tokens)))
        tokens = round(num_trials * packing.USUAL_ROWS * survey.mean_tokens)
        if tokens not in by_tokens:
            by_tokens[tokens] = rate(child, arguments, base, survey, num_trials, packing.USUAL_ROWS)
            print(f"   {tokens:6,} tokens a micro-step (N {num_trials}): {by_tokens[tokens]:7,.0f}/s", flush=True)
    by_rows: dict[int, float] = {}
    for rows in ROWS:
        num_trials = max(1, round(knee(by_tokens) / (rows * survey.mean_tokens)))
        by_rows[rows] = rate(child, arguments, base, survey, num_trials, rows)
        print(f"   {rows:2} rows of each trial (N {num_trials}): {by_rows[rows]:7,.0f}/s", flush=True)
    return Measured(base, survey.num_base_weights, by_tokens, by_rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bases", nargs="+", help="from the smallest to the largest")
    parser.add_argument("--data", help="rows of GSM8K, for a .gguf base")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--tokens", type=int, nargs="*", default=TOKENS, help="of a micro-step")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Inline(Runtime("cpu", machine.num_threads(), 1e9, folder)) as child:
        found = [measure(child, arguments, base) for base in arguments.bases]
    for each in found:
        print(f"{each.base}: {each.tokens:,} tokens a micro-step and {each.rows} rows of each trial are enough")
    print("costs/packing.py, on this machine:")
    for name, value in constants(found).items():
        print(f"{name} = {value:.2g}" if isinstance(value, float) else f"{name} = {value}")


if __name__ == "__main__":
    main()
