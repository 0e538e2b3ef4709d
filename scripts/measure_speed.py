"""Tokens per second against the shape of a pack: `python scripts/measure_speed.py abacus-small abacus-middle`.

For each base: N trials with m rows of each, first ever more trials with the same m, then the same tokens with ever
larger m; at last a pack of which half the trials end after a tenth of the steps, against one where all go on. What
`costs/packing.py` says to be measured was measured so; nothing else should run meanwhile.
"""

import argparse
import tempfile

from welltuned import plan as plans
from welltuned.costs import packing
from welltuned.executors import machine
from welltuned.executors.inline import Inline
from welltuned.records import Config, Outcome, Role, Runtime, Survey, SurveyJob, Trial
from welltuned.spec import Spec

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)  # trials, at ROWS rows of each
ROWS = 4
DIVIDED = 128  # rows of all trials, at ever larger m
RETIRING_TRIALS, RETIRING_STEPS, RETIRED_STEPS = 32, 60, 6


def configs_of(
    arguments: argparse.Namespace, base: str, num_trials: int, batch_size: int, num_steps: int | None = None
) -> list[Config]:
    """Return equal trials but for learning rates too small to matter."""
    num_steps = num_steps or max(1, arguments.rows // (num_trials * batch_size))
    data = {"task": "gsm8k", "data_train": [arguments.data]} if arguments.data else {"task": "abacus"}
    train = {"max_steps": num_steps, "batch_size": batch_size, "rank": arguments.rank, "num_evaluations": 1}
    spec = {
        "name": "speed",
        "model": {"base": base, "dtype": arguments.dtype},
        "task": {"num_train": 512, "num_validation": 4, "num_test": 4, **data},
        "train": train,
        "axes": {"learning_rate": [1e-7 * (1 + trial) for trial in range(num_trials)]},
    }
    return list(plans.expand(Spec.model_validate(spec)))


def measure(executor: Inline, configs: list[Config], micro_rows: int) -> tuple[float, float]:
    """Return the real tokens per second of training a pack, and the seconds."""
    job = packing.make_job([Trial(config, Role.SELECT) for config in configs], micro_rows)
    outcomes = [event for event in executor.run(job) if isinstance(event, Outcome)]
    seconds = max(outcome.pack_seconds for outcome in outcomes)
    return sum(outcome.num_tokens for outcome in outcomes) / seconds, seconds


def retiring(executor: Inline, arguments: argparse.Namespace, base: str) -> float:
    """Return the time of a pack of which half ends early, relative to one where all go on."""
    whole = configs_of(arguments, base, RETIRING_TRIALS, ROWS, RETIRING_STEPS)
    half = [config.replace(max_steps=RETIRED_STEPS) for config in whole[::2]] + whole[1::2]
    measure(executor, whole, ROWS)  # warm
    return measure(executor, half, ROWS)[1] / measure(executor, whole, ROWS)[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bases", nargs="+")
    parser.add_argument("--data", help="rows of GSM8K instead of abacus problems")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2048, help="rows to train on for each reading")
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS, help=f"trials, at {ROWS} rows of each")
    parser.add_argument("--m", type=int, default=ROWS)
    parser.add_argument("--divided", type=int, default=DIVIDED, help="rows of all trials at ever larger m; 0: none")
    parser.add_argument("--retire", action="store_true", help="and the pack of which half ends early")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Inline(Runtime("cpu", machine.num_threads(), 1e9, folder)) as child:
        for base in arguments.bases:
            one = configs_of(arguments, base, 1, ROWS)[0]
            (survey,) = (event for event in child.run(SurveyJob("survey", one)) if isinstance(event, Survey))
            print(
                f"{base}, {arguments.dtype}, {survey.num_base_weights:,} weights, {survey.mean_tokens:.0f} tokens a row"
            )
            shapes = [(width, arguments.m, arguments.m) for width in arguments.widths]
            rows = (1, 4, 16, 64) if arguments.divided else ()
            shapes += [(arguments.divided // m, m, 64) for m in rows if m <= arguments.divided]
            for num_trials, micro_rows, batch_size in shapes:
                rate, _ = measure(child, configs_of(arguments, base, num_trials, batch_size), micro_rows)
                tokens = num_trials * micro_rows * survey.mean_tokens
                shape = f"N {num_trials:3}, m {micro_rows:2}, batch {batch_size:2}: {tokens:6,.0f} tokens a micro-step"
                print(f"   {shape}, {rate:7,.0f} tokens/s", flush=True)
            if arguments.retire:
                share = retiring(child, arguments, base)
                print(f"   half of {RETIRING_TRIALS} trials end at a tenth: {share:.0%} of the time", flush=True)


if __name__ == "__main__":
    main()
