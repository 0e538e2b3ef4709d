"""How a cell spends its reserve of learning rates: outward while the best is on the edge, else beside the best. Pure.

The rule is fixed before the study begins and is the same for every method, so that nobody extends the range of the
method he likes. One learning rate is chosen at a time, from all that were tried:
- the best is the highest or the lowest: one step further out, as long as the last step on that side;
- otherwise: the middle (in the logarithm) of the wider gap beside the best, on a tie of the one whose other end has the
  lower loss. So a method whose range was right from the start gets as many trials, spent on a finer grid.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from welltuned.records import Config

STEP = math.sqrt(10)  # where a cell tried one learning rate, and there is no last step; assumed
DIGITS = 10  # significant, as of a named grid: equal to the bit on machines whose pow() rounds differently
SAME = 1e-6  # relative difference below which a gap's ends are one learning rate


@dataclass(frozen=True)
class Spent:
    """A cell's configurations so far, and those of the next learning rate (none: the reserve is spent)."""

    configs: tuple[Config, ...]
    wanted: tuple[Config, ...]


def spend(
    configs: Sequence[Config],
    num_rates: int,
    is_done: Callable[[Config], bool],
    score: Callable[[Config], float | None],
) -> Spent:
    """Replay what a cell did with its reserve of `num_rates` learning rates, as far as there are results.

    `score` is what a configuration counts with, lower is better; None for one that the machine lost.
    """
    rates: defaultdict[float, list[Config]] = defaultdict(list)
    for config in configs:
        rates[config.learning_rate].append(config)
    seeds = rates[configs[0].learning_rate]
    for _ in range(num_rates):
        rate = next_rate({rate: _mean(members, score) for rate, members in rates.items()})
        if rate is None:
            break
        members = [config.replace(learning_rate=rate) for config in seeds]
        missing = tuple(config for config in members if not is_done(config))
        if missing:
            return Spent(_all(rates), missing)
        rates[rate] = members
    return Spent(_all(rates), ())


def next_rate(losses: Mapping[float, float | None]) -> float | None:
    """Return the learning rate to try after these; None where nothing was scored or nothing is left between them.

    >>> next_rate({1e-3: 0.5, 1e-2: 0.4}), next_rate({1e-3: 0.3, 1e-2: 0.4})
    (0.1, 0.0001)
    >>> next_rate({1e-4: 0.5, 1e-3: 0.3, 1e-2: 0.4})
    0.00316227766
    """
    scored = {rate: loss for rate, loss in losses.items() if loss is not None}
    if not scored:
        return None
    best = min(scored, key=lambda rate: (scored[rate], rate))
    tried = sorted(losses)
    place = tried.index(best)
    if best == tried[-1]:
        return _rounded(best * (best / tried[-2] if len(tried) > 1 else STEP))
    if best == tried[0]:
        return _rounded(best * best / tried[1])
    gaps = [(tried[place - 1], best), (best, tried[place + 1])]
    low, high = max(gaps, key=lambda gap: (round(math.log(gap[1] / gap[0]), 6), -_other(gap, best, scored)))
    return _rounded(math.sqrt(low * high)) if high / low > 1 + SAME else None


def _other(gap: tuple[float, float], best: float, scored: Mapping[float, float]) -> float:
    """Return the loss at the gap's end that is not the best; the worst there is where it has no score."""
    return scored.get(gap[0] if gap[1] == best else gap[1], math.inf)


def _mean(configs: Sequence[Config], score: Callable[[Config], float | None]) -> float | None:
    known = [loss for config in configs if (loss := score(config)) is not None]
    return statistics.fmean(known) if known else None


def _all(rates: Mapping[float, Sequence[Config]]) -> tuple[Config, ...]:
    return tuple(config for members in rates.values() for config in members)


def _rounded(rate: float) -> float:
    return float(f"{rate:.{DIGITS}g}")
