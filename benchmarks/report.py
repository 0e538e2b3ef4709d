"""How long a report of about 1,000 trials takes, and how large its page is: `python -m benchmarks.report`.

The trials are synthetic (tests/synthetic.py): 6 methods at 5 batch sizes and 11 learning rates, two seeds each, 12
reruns of each winner. Seconds are of this process's own processor time, so that a busy machine changes them little.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import synthetic
from synthetic import Design, Valley
from welltuned.executors.machine import peak_bytes
from welltuned.report import build

METHODS = ("dora", "lora", "milora", "olora", "pissa", "vera")


def design() -> Design:
    """Return the synthetic study."""
    valleys = tuple(
        Valley(name, -2.5 - 0.1 * number, floor=0.4 + 0.004 * number, diverge_log10=-1.6)
        for number, name in enumerate(METHODS)
    )
    return Design(valleys=valleys, batches=(4, 8, 16, 32, 64), seeds=2, fresh_seeds=12, noise=0.004)


def main() -> None:
    """Build the report once and print its cost."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    results, declaration = synthetic.study(design())
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.perf_counter(), time.process_time()
        page = build(results, declaration, Path(folder))
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        peak = peak_bytes() / 2**20
        size = page.stat().st_size / 1e6
    print(f"{len(results)} trials: {processor:.1f} s CPU, {wall:.1f} s wall, {size:.2f} MB, peak {peak:.0f} MiB")


if __name__ == "__main__":
    main()
