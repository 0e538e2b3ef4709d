"""From the best learning rate on a proxy (a smaller sibling, a low rank, the full data) to the target's (F46).

Lee and Lee, arXiv 2602.09492: the best batch size does not depend much on rank or model size, but on the data; so the
proxy keeps the full data, its batch size is used as it is, and its learning rate is moved by the rules of `rules.py`,
each of which adds the error it was measured to have to what the proxy itself left open.
"""

import math
from dataclasses import dataclass, replace

from welltuned.errors import InputError, problem
from welltuned.transfer.combine import NORMAL_90
from welltuned.transfer.known_errors import known_error
from welltuned.transfer.rules import ALPHA, METHOD, RANK, SAMPLES, WIDTH, Rule, variant
from welltuned.transfer.setting import Setting, check
from welltuned.transfer.starts import shift_sd

FAMILY = ("abacus-small", "abacus-middle", "abacus-large")  # the bundled models, smallest first
PROBE_STEP = 1.0  # octaves between probes: about the width of a valley's bottom (assumed)
MOST_PROBES = 7  # beyond it the proxy has told too little, and a search on the target is cheaper; assumed
UNMEASURED_SD = 0.25  # octaves per octave moved, of a rule that no table varies: half the largest slope; assumed


@dataclass(frozen=True)
class Found:
    """What tuning the proxy gave: the best learning rate with its 90 % interval, and the setting it was found at."""

    setting: Setting
    learning_rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Move:
    """One rule on the way: the factor on the learning rate, and its standard deviation in octaves."""

    rule: Rule
    factor: float
    sd_octaves: float
    measured: bool


@dataclass(frozen=True)
class Transferred:
    """What the target should be tried with: the proxy's batch size, a learning rate with its 90 % interval, probes."""

    setting: Setting  # the target's
    learning_rate: float
    low: float
    high: float
    moves: tuple[Move, ...]
    probes: tuple[float, ...]  # learning rates to train on the target, the likeliest first


def sibling(base: str) -> str | None:
    """Return the next smaller model of the bundled family; None where there is none.

    >>> sibling("abacus-large"), sibling("abacus-small"), sibling("my/model")
    ('abacus-middle', None, None)
    """
    at = FAMILY.index(base) if base in FAMILY else 0
    return FAMILY[at - 1] if at > 0 else None


def transfer(found: Found, target: Setting) -> Transferred:
    """Move a proxy's optimum to the target, whose batch size is taken from the proxy.

    Raises InputError where a rule may not be used between the two, or the proxy's interval makes no sense.
    """
    _check_found(found)
    there = check(replace(target, batch_size=found.setting.batch_size))
    moves = path(check(found.setting), there)
    log2_rate = math.log2(found.learning_rate) + math.fsum(math.log2(move.factor) for move in moves)
    # The proxy's interval may be lopsided; what the rules add is not.
    added = math.fsum((NORMAL_90 * move.sd_octaves) ** 2 for move in moves)
    below = math.hypot(math.log2(found.learning_rate / found.low), math.sqrt(added))
    above = math.hypot(math.log2(found.high / found.learning_rate), math.sqrt(added))
    low, high = 2.0 ** (log2_rate - below), 2.0 ** (log2_rate + above)
    return Transferred(there, 2.0**log2_rate, low, high, moves, probes(2.0**log2_rate, low, high))


def path(here: Setting, there: Setting) -> tuple[Move, ...]:
    """Return the moves from one setting to another of the same batch size, one thing at a time."""
    moves: list[Move] = []
    for rule in (METHOD, RANK, ALPHA, WIDTH, SAMPLES):
        value = getattr(there, rule.field)
        if getattr(here, rule.field) == value:
            continue
        step = replace(here, **{rule.field: value})
        why = rule.misfit(here, step)
        if why:
            raise InputError(f"proxy: the {rule.name} rule cannot be used: {why}")
        moves.append(_move(rule, here, step))
        here = step
    return tuple(moves)


def _move(rule: Rule, here: Setting, step: Setting) -> Move:
    log2_factor = rule.log2_factor(here, step)
    error = known_error("rule", variant(rule, step), step.width)
    if rule.field == "method":
        sd = math.hypot(shift_sd(here.method), shift_sd(step.method))
        sd = max(sd, error.rms) if error is not None and here.method == "lora" else sd
    else:
        octaves = abs(math.log2(_size(step, rule) / _size(here, rule)))
        sd = octaves * (UNMEASURED_SD if error is None or error.rms_per_octave is None else error.rms_per_octave)
    return Move(rule, 2.0**log2_factor, sd, error is not None)


def _size(setting: Setting, rule: Rule) -> float:
    """Return the number that a rule moves along; of an alpha policy, the multiplier."""
    return setting.scaling if rule.field == "alpha" else float(getattr(setting, rule.field))


def probes(centre: float, low: float, high: float) -> tuple[float, ...]:
    """Return the learning rates that confirm a transfer: the centre, then outward by factors of 2, past both ends.

    At least one on either side, so that an optimum can be enclosed; at most seven.

    >>> [round(rate / 0.01, 2) for rate in probes(0.01, 0.004, 0.012)]
    [1.0, 2.0, 0.5, 0.25]
    """
    below = max(1, math.ceil(math.log2(centre / low) / PROBE_STEP - 1e-9))
    above = max(1, math.ceil(math.log2(high / centre) / PROBE_STEP - 1e-9))
    found = [centre]
    for step in range(1, max(below, above) + 1):
        found += [centre * 2.0 ** (step * PROBE_STEP)] if step <= above else []
        found += [centre * 2.0 ** (-step * PROBE_STEP)] if step <= below else []
    return tuple(found[:MOST_PROBES])


def _check_found(found: Found) -> None:
    if not 0 < found.low <= found.learning_rate <= found.high:
        got = (found.low, found.learning_rate, found.high)
        expected = "three positive learning rates in this order: low end, best, high end"
        raise InputError(problem("proxy's optimum", got, expected, "enclose the best rate on the proxy first"))
