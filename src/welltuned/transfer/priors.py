"""What a search may assume of the best learning rate before it has trained anything, and how it moves.

`prior` gives a centre with a standard deviation, and the exponents of the local law

    log2 eta* = centre + rank_slope log2 r + batch_slope log2 B + samples_slope log2 N + noise

so that a surrogate can start from it and refit each of them. It is a guess: a search must be able to leave it.
"""

import math
from dataclasses import dataclass

from welltuned.transfer import mua
from welltuned.transfer.setting import Setting, check
from welltuned.transfer.starts import FULL, shift, start

CONSTANT = 0.2  # of 0.2 (s n r)^-1/2: geometric mean of two public tables, .199 (Gemma-3-1B) and .208 (Tinker's)
BATCH_SIZE, NUM_SAMPLES = 64, 100_000  # where the constant was read off
FULL_BELOW = 10.0  # LoRA Without Regret 2025: LoRA's best rate over full fine-tuning's, with alpha = 32
FULL_ALPHA = 32.0


@dataclass(frozen=True)
class Slope:
    """An exponent of the best learning rate, with its standard deviation."""

    value: float
    sd: float
    source: str


@dataclass(frozen=True)
class Prior:
    """log2 of the best learning rate at one setting, and how it moves from there; all logarithms are to base 2."""

    centre_log2: float
    sd_octaves: float
    shift_octaves: float  # of the method against plain LoRA's, contained in the centre
    shift_sd_octaves: float  # its part of sd_octaves
    rank_slope: Slope  # rho: with the alpha policy kept
    batch_slope: Slope  # s: at a fixed number of samples
    samples_slope: Slope  # h: at a fixed batch size

    @property
    def centre(self) -> float:
        """Return the learning rate at the centre."""
        return 2.0**self.centre_log2


def prior(
    base_width: int, method: str, rank: int, alpha: str, batch_size: int, num_samples: int | None = None
) -> Prior:
    """Return the prior of the best learning rate.

    `base_width` is the model's hidden size, `alpha` the policy as in a study ("r", "2r", "16", "16/sqrt(r)"),
    `num_samples` the training rows seen in all (rows times epochs); None: not known, which widens the prior.
    """
    setting = check(Setting(method, rank, alpha, batch_size, base_width, num_samples))
    batch = Slope(0.5, 0.2, "square-root rule; published tables have 0.5 to 0.6")
    samples = Slope(-0.2, 0.1, "Gemma-3-1B, 5,000 to 395,000 samples (arXiv 2602.04998)")
    moved = shift(method)
    level, slope = _full(setting) if method in FULL else _pair(setting)
    along_batch = math.log2(batch_size / BATCH_SIZE)
    along_samples = 0.0 if num_samples is None else math.log2(num_samples / NUM_SAMPLES)
    variance = 1.0 + moved.sd_octaves**2 + (batch.sd * along_batch) ** 2
    variance += (samples.sd * along_samples) ** 2 if num_samples is not None else (samples.value * 5) ** 2
    return Prior(
        centre_log2=level + moved.octaves + batch.value * along_batch + samples.value * along_samples,
        sd_octaves=math.sqrt(variance),
        shift_octaves=moved.octaves,
        shift_sd_octaves=moved.sd_octaves,
        rank_slope=slope,
        batch_slope=batch,
        samples_slope=samples,
    )


def _pair(setting: Setting) -> tuple[float, Slope]:
    """Return log2 of the rate at the reference batch and samples, and the slope along the rank."""
    assert setting.width is not None
    kind = start(setting.method)
    found = mua.bound(kind or "A", setting.width, setting.rank, setting.scaling, setting.alpha_power)
    source = f"muA for start {kind}" if kind else "muA for LoRA's start, since this method's is not known"
    return math.log2(CONSTANT) + found.log2, Slope(found.rank_slope, 0.15 if kind else 0.5, source)


def _full(setting: Setting) -> tuple[float, Slope]:
    """Return the same for full fine-tuning, a tenth of LoRA's at alpha = 32; it has no rank."""
    assert setting.width is not None
    lora = mua.bound("A", setting.width, 32, FULL_ALPHA / 32, 1.0)
    return math.log2(CONSTANT / FULL_BELOW) + lora.log2, Slope(0.0, 0.0, "no rank")
