"""What a search may assume of the best learning rate before it has trained anything, and how it moves.

`prior` gives a centre with a standard deviation, and the exponents of the local law

    log2 eta* = centre + rank_slope log2 r + batch_slope log2 B + samples_slope log2 N + noise

so that a surrogate can start from it and refit each of them. It is a guess: a search must be able to leave it. The
centre is the combination of all formulas (combine.py); slopes are the rules', or the fitted law's where the data could
tell them; their standard deviations are the measured errors per octave, where a rule was measured.
"""

import math
from dataclasses import dataclass

from welltuned.transfer import mua
from welltuned.transfer.combine import combined
from welltuned.transfer.known_errors import KnownError, fitted_law, known_error
from welltuned.transfer.rules import BATCH, BATCH_POWER, RANK, SAMPLES, SAMPLES_POWER, over_lora, variant
from welltuned.transfer.setting import Setting, check
from welltuned.transfer.starts import FULL, shift_sd, start

UNMEASURED_SD = 0.25  # of a slope that no table varies; half the largest slope of a rule, assumed
SAMPLES_SD = 0.1  # of the samples slope where no table varies it: the same paper's data give -0.20 and -0.26
UNKNOWN_START_SD = 0.5  # of the rank slope of a method whose start is not known; assumed
SAMPLES_OCTAVES = 5  # a number of samples that is not known may lie as far from the data's; assumed


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
    found = combined(setting)
    assert found is not None  # muA's formula applies wherever the width is known, and its error is in the file
    samples = _samples_slope(base_width)
    variance = found.sd_octaves**2
    if num_samples is None:
        variance += (samples.value * SAMPLES_OCTAVES) ** 2
    return Prior(
        centre_log2=math.log2(found.rate),
        sd_octaves=math.sqrt(variance),
        shift_octaves=over_lora(setting),
        shift_sd_octaves=shift_sd(method),
        rank_slope=_rank_slope(setting),
        batch_slope=_batch_slope(base_width),
        samples_slope=samples,
    )


def _rank_slope(setting: Setting) -> Slope:
    if setting.method in FULL:
        return Slope(0.0, 0.0, "full fine-tuning has no rank")
    assert setting.width is not None
    kind = start(setting.method)
    bound = mua.bound(kind or "A", setting.width, setting.rank, setting.scaling, setting.alpha_power)
    if kind is None:
        return Slope(bound.rank_slope, UNKNOWN_START_SD, "muA for LoRA's start; this method's is not known")
    error = known_error("rule", variant(RANK, setting), setting.width)
    return Slope(bound.rank_slope, _sd(error), f"muA for start {kind}; error {_origin(error)}")


def _batch_slope(width: int) -> Slope:
    law, error = fitted_law(width), known_error("rule", BATCH.name, width)
    if law is not None and "batch_power" in law.fitted_powers:
        return Slope(law.batch_power, _sd(error), f"fitted to {law.data}; error that of the square-root rule there")
    return Slope(BATCH_POWER, _sd(error), f"square-root rule; error {_origin(error)}")


def _samples_slope(width: int) -> Slope:
    law, error = fitted_law(width), known_error("rule", SAMPLES.name, width)
    if law is not None and "samples_power" in law.fitted_powers:
        return Slope(law.samples_power, _sd(error), f"fitted to {law.data}; error that of the samples rule there")
    return Slope(
        SAMPLES_POWER, SAMPLES_SD if error is None else _sd(error), f"{SAMPLES.source}; error {_origin(error)}"
    )


def _sd(error: KnownError | None) -> float:
    return error.rms_per_octave if error is not None and error.rms_per_octave is not None else UNMEASURED_SD


def _origin(error: KnownError | None) -> str:
    return "assumed" if error is None else f"measured on {', '.join(error.tables)}"
