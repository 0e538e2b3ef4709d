"""Formulas that name a learning rate with nothing trained: published ones, a library's habit, and two fitted here.

Each gives the rate of plain LoRA (a known start and shift bring it to other methods) and refuses, with a reason, where
its source says nothing. How far each is off is measured by `scripts/measure_rules.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from welltuned.transfer import mua
from welltuned.transfer.known_errors import Law, fitted_law
from welltuned.transfer.rules import ALPHA, BATCH, FULL_ALPHA, METHOD, SAMPLES, moved
from welltuned.transfer.setting import Setting

# Read off Gemma-3-1B's table at batch size 64 (.199). Seven models of Tinker's sweep gave .208, but at batch size 128
# and without the formula's factor (B/64)^1/2: with it they ask for .147, which is why it is too high for them.
CONSTANT = 0.2
BATCH_SIZE, NUM_SAMPLES = 64, 100_000  # of those data
LWR_RATE, LWR_RATIO, LWR_WIDTH = 5e-5, 9.8, 2000  # the published fit over 14 models; Tinker's code rounds 9.8 to 10
LWR_POWERS = {"llama": 0.781, "qwen": 0.0775}
LWR_WIDTHS = (1024, 16384)  # a factor of 2 around those of the models that Tinker served then; assumed
QLORA = ((5120, 2e-4), (8192, 1e-4))  # up to this hidden size: 7B and 13B, 33B and 65B
QLORA_SMALLEST = 2048  # half the hidden size of the 7B model; assumed


@dataclass(frozen=True)
class Formula:
    """A zero-shot formula: `rate(setting)` where `misfit(setting)` is ""."""

    name: str
    statement: str
    source: str
    standing: str  # "derived" | "published" | "fitted"
    misfit: Callable[[Setting], str]
    rate: Callable[[Setting], float]
    lawful: bool = True  # False: one rate for all settings, which takes no part in a combination


def _as_method(rate: float, setting: Setting) -> float:
    """Bring plain LoRA's rate at a setting to its method."""
    return moved(METHOD, rate, replace(setting, method="lora"), setting)


def _bound(setting: Setting) -> float:
    assert setting.width is not None
    return 2.0 ** mua.bound("A", setting.width, setting.rank, setting.scaling, setting.alpha_power).log2


def _mua_misfit(setting: Setting) -> str:
    return "needs the hidden size" if setting.width is None else ""


def _mua(setting: Setting) -> float:
    return _as_method(_at_batch(CONSTANT * _bound(setting), setting), setting)


def _at_batch(rate: float, setting: Setting) -> float:
    return rate * 2.0 ** BATCH.log2_factor(replace(setting, batch_size=BATCH_SIZE), setting)


MUA = Formula(
    name="muA",
    statement="0.2 (s n r)^-1/2 (B/64)^1/2, s = lora_alpha/r",
    source="exponents: muA, arXiv 2602.06204; the constant is read off published tables of about 100,000 samples",
    standing="derived",
    misfit=_mua_misfit,
    rate=_mua,
)


def _mua_samples_misfit(setting: Setting) -> str:
    return _mua_misfit(setting) or ("needs the number of samples" if setting.num_samples is None else "")


def _mua_samples(setting: Setting) -> float:
    return _mua(setting) * 2.0 ** SAMPLES.log2_factor(replace(setting, num_samples=NUM_SAMPLES), setting)


MUA_SAMPLES = Formula(
    name="muA, samples",
    statement="the same times (N/100,000)^-0.2",
    source="the samples rule on top of muA's formula",
    standing="derived",
    misfit=_mua_samples_misfit,
    rate=_mua_samples,
)


def _family(setting: Setting) -> str | None:
    return next((name for name in LWR_POWERS if setting.family.startswith(name)), None)


def _lwr_misfit(setting: Setting) -> str:
    if setting.width is None:
        return "needs the hidden size"
    if _family(setting) is None:
        known = " and ".join(LWR_POWERS)
        return f"was fitted to {known} models, and this one's family is {setting.family or 'not known'}"
    if not LWR_WIDTHS[0] <= setting.width <= LWR_WIDTHS[1]:
        return f"was fitted to hidden sizes within {LWR_WIDTHS[0]} to {LWR_WIDTHS[1]}"
    return ""


def _lwr(setting: Setting) -> float:
    family = _family(setting)
    assert family is not None and setting.width is not None
    rate = LWR_RATE * LWR_RATIO * (LWR_WIDTH / setting.width) ** LWR_POWERS[family]
    return _as_method(_from_alpha_32(rate, setting), setting)


def _from_alpha_32(rate: float, setting: Setting) -> float:
    """Bring a rate of LoRA at lora_alpha = 32 to the setting's alpha, by the alpha rule."""
    there = replace(setting, method="lora")
    return moved(ALPHA, rate, replace(there, alpha=f"{FULL_ALPHA:g}"), there)


LORA_WITHOUT_REGRET = Formula(
    name="LoRA Without Regret",
    statement="5e-5 x 9.8 x (2000/n)^p at lora_alpha = 32, p = 0.781 (Llama), 0.0775 (Qwen); else by the alpha rule",
    source="LoRA Without Regret, Thinking Machines 2025, its fit of 14 models",
    standing="published",
    misfit=_lwr_misfit,
    rate=_lwr,
)


def _tenfold_misfit(setting: Setting) -> str:
    return (
        "needs the best learning rate of full fine-tuning (--full-learning-rate)" if setting.full_rate is None else ""
    )


def _tenfold(setting: Setting) -> float:
    assert setting.full_rate is not None
    return moved(METHOD, setting.full_rate, replace(setting, method="full"), setting)


TENFOLD = Formula(
    name="10 x full fine-tuning",
    statement="10 times full fine-tuning's rate at lora_alpha = 32, else by the alpha rule; Init[B]: full's / s",
    source="LoRA Without Regret 2025 (9.8 in its fit); Init[B]: muA, arXiv 2602.06204, theorem 4.5",
    standing="published",
    misfit=_tenfold_misfit,
    rate=_tenfold,
)


def _qlora_misfit(setting: Setting) -> str:
    if setting.width is None:
        return "needs the hidden size"
    if not QLORA_SMALLEST <= setting.width <= QLORA[-1][0]:
        return f"is meant for hidden sizes within {QLORA_SMALLEST} to {QLORA[-1][0]}"
    if setting.method != "lora":
        return "is plain LoRA's"
    return ""


def _qlora(setting: Setting) -> float:
    assert setting.width is not None
    return next(rate for width, rate in QLORA if setting.width <= width)


QLORA_HABIT = Formula(
    name="QLoRA's habit",
    statement="2e-4, from 33 billion parameters on 1e-4, whatever the rank, alpha and batch size",
    source="QLoRA, Dettmers et al. 2023, arXiv 2305.14314, and its scripts (rank 64, alpha 16, batch size 16)",
    standing="published",
    misfit=_qlora_misfit,
    rate=_qlora,
    lawful=False,
)


def _fitted_misfit(setting: Setting) -> str:
    missing = _mua_samples_misfit(setting)
    if missing:
        return missing
    return "" if fitted_law(setting.width) else "no law was fitted to models of this size"


def _fitted(setting: Setting) -> float:
    law = fitted_law(setting.width)
    assert law is not None
    return law_rate(law, setting)


def law_rate(law: Law, setting: Setting) -> float:
    """Return what a fitted law gives at a setting whose width and number of samples are known."""
    assert setting.num_samples is not None
    rate = law.constant * _bound(setting)
    rate *= (setting.batch_size / law.batch_size) ** law.batch_power
    rate *= (setting.num_samples / law.num_samples) ** law.samples_power
    return _as_method(rate, setting)


FITTED = Formula(
    name="fitted",
    statement="C (s n r)^-1/2 B^a N^h, its constants fitted to development data of models of this size",
    source="scripts/measure_rules.py; constants in transfer/errors.toml",
    standing="fitted",
    misfit=_fitted_misfit,
    rate=_fitted,
)
FORMULAS = (MUA, MUA_SAMPLES, LORA_WITHOUT_REGRET, TENFOLD, QLORA_HABIT, FITTED)
