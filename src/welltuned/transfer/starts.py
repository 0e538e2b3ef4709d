"""How methods start, as far as the learning rate depends on it, and how far below LoRA's their best rates lie.

The start decides how the best rate moves with rank, alpha and width (`mua.py`); the shift is where it lies at one
setting. Shifts are read off published tables and figures, as the source says, until recorded surfaces replace them.
"""

from dataclasses import dataclass

OUT_OF_LORA_SD = 1.5  # octaves, of a method whose shift nobody has published; assumed


@dataclass(frozen=True)
class Shift:
    """log2 of the best learning rate over plain LoRA's at the same setting, with its standard deviation."""

    octaves: float
    sd_octaves: float
    source: str


# Gemma-3-1B (three batch sizes) and Qwen3-0.6B (band centre) of arXiv 2602.04998: ratios to LoRA's, geometric means.
_READ = "Learning Rate Matters 2026, arXiv 2602.04998: read off its Gemma-3-1B table and Qwen3-0.6B figure"
_UNKNOWN = Shift(0.0, OUT_OF_LORA_SD, "no published value: LoRA's, with a wide interval (assumed)")
SHIFTS = {
    "lora": Shift(0.0, 0.0, "the reference"),
    "init_a": Shift(0.0, 0.3, "LoRA's own start with a normal A; sd assumed"),
    "init_ab": Shift(-0.2, 0.3, _READ),  # ratios 0.95 (geometric mean of .9, 1.1, 1.05: 1.01) and 1/1.39
    "dora": Shift(0.0, 0.3, _READ),  # .85, 1.0, 1.1
    "milora": Shift(-0.7, 0.3, _READ),  # 1/1.4, 1/1.8, 1/1.6; 1/1.67
    "pissa": Shift(-1.7, 0.5, _READ),  # 1/2.6, 1/2.5, 1/2.7; 1/4.11
    "pissa_randomized": Shift(-1.7, 0.5, _READ),
    "olora": Shift(-4.1, 1.0, "arXiv 2602.04998: sharpness 60 times LoRA's, to the power 0.7 of its argmax data"),
    "lora_ga": Shift(-4.1, 1.0, "arXiv 2602.04998: sharpness 60 times LoRA's, to the power 0.7 of its argmax data"),
    "vera": Shift(3.3, 1.0, "VeRA, arXiv 2310.11454: about 10 times LoRA's in its tables (from memory)"),
}
FULL = ("full", "full_all")
FULL_SD = 1.0  # octaves, of the factor of ten: "x2" in LoRA Without Regret over its models; assumed
# The start of a method's two factors: "A" (A random, B zero), "B" (B random, A zero), "AB" (both random, of like size),
# "SVD" (both, from singular components divided by the multiplier, so that s B0 A0 does not depend on it).
STARTS = {
    **dict.fromkeys(("lora", "init_a", "dora", "eva", "gralora"), "A"),
    "init_b": "B",
    **dict.fromkeys(("init_ab", "olora", "lora_ga"), "AB"),
    **dict.fromkeys(("milora", "pissa", "pissa_randomized"), "SVD"),
}


def shift(method: str) -> Shift:
    """Return a method's shift; that of "A+B" is B's where A is DoRA, since B is what starts the factors."""
    first, _, second = method.partition("+")
    return SHIFTS.get(second if second and first == "dora" else method, _UNKNOWN)


def shift_sd(method: str) -> float:
    """Return the standard deviation of a method's rate over LoRA's, in octaves; Init[B] follows full fine-tuning."""
    return FULL_SD if method in FULL or start(method) == "B" else shift(method).sd_octaves


def start(method: str) -> str | None:
    """Return how a method's factors start, None where that is not known or it has no pair of factors."""
    first, _, second = method.partition("+")
    return STARTS.get(second if second and first == "dora" else method)
