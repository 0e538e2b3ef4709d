"""How the best learning rate moves when one thing of a setting changes: one small object for each rule.

A rule knows its statement, where it comes from, where it may be used, and what of a setting it moves. How far rules
are off in fact is measured by `scripts/measure_rules.py` (known_errors.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from welltuned.errors import InputError
from welltuned.transfer import mua
from welltuned.transfer.setting import Setting
from welltuned.transfer.starts import FULL, shift, start

BATCH_POWER = 0.5
SAMPLES_POWER = -0.2  # read off Gemma-3-1B's table in arXiv 2602.04998, 5,000 to 395,000 samples
FEWEST_STEPS = 32  # optimizer steps under which a run is all transient; assumed
FULL_RATIO = 10.0  # LoRA Without Regret 2025: 9.8 in its fit of 14 models
FULL_ALPHA = 32.0  # lora_alpha of all of its runs


@dataclass(frozen=True)
class Rule:
    """A rule: `log2_factor(here, there)` is what log2 of the best rate changes by from one setting to the other.

    `field` is the one thing of a setting that it moves. `misfit(here, there)` says why it may not be used, or "".
    """

    name: str
    field: str
    statement: str
    source: str
    standing: str  # "derived" | "published": what the statement rests on; measured it is in known_errors
    domain: str
    misfit: Callable[[Setting, Setting], str]
    log2_factor: Callable[[Setting, Setting], float]


def variant(rule: Rule, there: Setting) -> str:
    """Return the name that a rule's errors are kept under.

    Ranks are kept apart by alpha policy, methods by target, and the widths of full fine-tuning from adapters'.

    >>> variant(RANK, Setting("lora", 8, "16", 16)), variant(METHOD, Setting("pissa", 8, "16", 16))
    ('rank, constant lora_alpha', 'method, pissa')
    """
    if rule.field == "method":
        return f"{rule.name}, {there.method}"
    if rule.field == "width" and there.method in FULL:
        return f"{rule.name}, {there.method}"
    if rule.field != "rank":
        return rule.name
    return f"{rule.name}, " + {0.0: "alpha = r", 0.5: "alpha / sqrt(r)", 1.0: "constant lora_alpha"}[there.alpha_power]


def moved(rule: Rule, rate: float, here: Setting, there: Setting) -> float:
    """Return the best rate at `there`, given that at `here`; the two differ in the rule's field alone.

    Raises InputError where the rule may not be used.
    """
    assert replace(here, **{rule.field: getattr(there, rule.field)}) == there, f"{rule.name} moves {rule.field} alone"
    why = rule.misfit(here, there)
    if why:
        raise InputError(f"{rule.name} rule: {why}")
    return rate * 2.0 ** rule.log2_factor(here, there)


# Rank, alpha and width: the master formula of mua.py ------------------------------------------------------------------


def _no_pair(here: Setting, there: Setting) -> str:
    if here.method in FULL:
        return (
            f"got method '{here.method}', which has no rank and no alpha, expected a low-rank method; leave it as it is"
        )
    return _no_bound(here, there)


def _no_bound(here: Setting, there: Setting) -> str:
    if here.method not in FULL and start(here.method) is None:
        return (
            f"got method '{here.method}', whose start is not known to the rule, expected one that starts as LoRA, "
            "Init[B] or Init[AB] do; tune it at the new setting"
        )
    if here.width is None or there.width is None:
        return "got no hidden size, expected the number of inputs of the adapted layers; give --hidden-size"
    return ""


def _bound_factor(here: Setting, there: Setting) -> float:
    return _bound(there).log2 - _bound(here).log2


def _bound(at: Setting) -> mua.Bound:
    kind = "full" if at.method in FULL else start(at.method)
    assert kind is not None and at.width is not None  # the rule's misfit has said so
    return mua.bound(kind, at.width, at.rank, at.scaling, at.alpha_power)


RANK = Rule(
    name="rank",
    field="rank",
    statement="Init[A], Init[AB]: r^-1/2 with alpha = r, r^-1/4 with alpha/sqrt(r), r^0 with constant lora_alpha; "
    "Init[B]: r^0 with alpha = r",
    source="muA, Chen, Villar and Hayou 2026, arXiv 2602.06204, corollary 4.4 and theorem 4.5",
    standing="derived",
    domain="Adam or sign descent, factors with a known start (of PiSSA and MiLoRA with singular values held fixed)",
    misfit=_no_pair,
    log2_factor=_bound_factor,
)
ALPHA = Rule(
    name="alpha",
    field="alpha",
    statement="(lora_alpha/r)^-1/2 for Init[A], ^-1 for Init[B]; exactly ^-1/2 for PiSSA and MiLoRA, whose starts "
    "follow alpha (reparametrise.py)",
    source="derived from muA's bound (arXiv 2602.06204); published data do not vary alpha alone",
    standing="derived",
    domain="as the rank rule",
    misfit=_no_pair,
    log2_factor=_bound_factor,
)
WIDTH = Rule(
    name="width",
    field="width",
    statement="n^-1/2 for Init[A] and Init[AB], n^-1 for Init[B] and full fine-tuning; n the hidden size",
    source="muA, Chen, Villar and Hayou 2026, arXiv 2602.06204, corollary 4.4 and theorem 4.5",
    standing="derived",
    domain="models of one family; as the rank rule",
    misfit=_no_bound,
    log2_factor=_bound_factor,
)


# Batch size and samples -----------------------------------------------------------------------------------------------


def _batch_misfit(here: Setting, there: Setting) -> str:
    for at in (here, there):
        if at.num_samples is not None and at.num_samples < FEWEST_STEPS * at.batch_size:
            return (
                f"got {at.num_samples / at.batch_size:.3g} optimizer steps at batch size {at.batch_size}, expected "
                f"{FEWEST_STEPS} or more; choose a smaller batch or more samples"
            )
    return ""


def _batch_factor(here: Setting, there: Setting) -> float:
    return BATCH_POWER * math.log2(there.batch_size / here.batch_size)


BATCH = Rule(
    name="batch",
    field="batch_size",
    statement="B^1/2 at a fixed number of samples",
    source="square-root rule for Adam-like optimizers, Malladi et al. 2022, arXiv 2205.10287; Li et al. 2024, "
    "arXiv 2405.14578, below the gradient noise scale",
    standing="published",
    domain=f"batch sizes below the gradient noise scale (above it, surge.py), {FEWEST_STEPS} optimizer steps or more",
    misfit=_batch_misfit,
    log2_factor=_batch_factor,
)


def _samples_misfit(here: Setting, there: Setting) -> str:
    if here.num_samples is None or there.num_samples is None:
        return "got no number of samples, expected rows times epochs of both runs; give --num-samples"
    return _batch_misfit(here, there)


def _samples_factor(here: Setting, there: Setting) -> float:
    assert here.num_samples is not None and there.num_samples is not None
    return SAMPLES_POWER * math.log2(there.num_samples / here.num_samples)


SAMPLES = Rule(
    name="samples",
    field="num_samples",
    statement="N^-0.2 at a fixed batch size",
    source="Learning Rate Matters 2026, arXiv 2602.04998: read off Gemma-3-1B, 5,000 to 395,000 samples",
    standing="published",
    domain=f"one to a few epochs, {FEWEST_STEPS} optimizer steps or more",
    misfit=_samples_misfit,
    log2_factor=_samples_factor,
)


# Method ---------------------------------------------------------------------------------------------------------------


def over_lora(setting: Setting) -> float:
    """Return log2 of a method's best rate over plain LoRA's at the same setting.

    Full fine-tuning's is a tenth at lora_alpha = 32; at another alpha that tenth moves as LoRA's own rate does, by
    (s r)^-1/2. Init[B]'s is full fine-tuning's over s.
    """
    full = -math.log2(FULL_RATIO) + 0.5 * math.log2(setting.scaling * setting.rank / FULL_ALPHA)
    if setting.method in FULL:
        return full
    return full - math.log2(setting.scaling) if start(setting.method) == "B" else shift(setting.method).octaves


def _always(here: Setting, there: Setting) -> str:
    del here, there
    return ""


def _method_factor(here: Setting, there: Setting) -> float:
    return over_lora(there) - over_lora(here)


METHOD = Rule(
    name="method",
    field="method",
    statement="a fixed factor for each method against LoRA's; full fine-tuning: a tenth at lora_alpha = 32, times "
    "(lora_alpha/32)^1/2; Init[B]: full fine-tuning's rate / s",
    source="Learning Rate Matters 2026, arXiv 2602.04998 (factors); LoRA Without Regret 2025 (a tenth); muA, "
    "arXiv 2602.06204 (Init[B], theorem 4.5)",
    standing="published",
    domain="at one setting of everything else; a method without published value is taken as LoRA, with a wide interval",
    misfit=_always,
    log2_factor=_method_factor,
)
RULES = (METHOD, RANK, ALPHA, WIDTH, BATCH, SAMPLES)
