"""One suggestion out of all formulas that apply: a weighted mean of log learning rates, with an interval.

The weights are 1 / (mean square error) on development data of models of like size. The interval is the combination's
own root mean square error on data that no constant was fitted to (on development data, and then said so, where there
are no others), times Student's 90 % quantile for as many degrees of freedom as there were models, widened by what is
not in it: the spread of a method's shift, and the way to a width that was not measured. Formulas are no independent
witnesses (most share muA's exponents), so that their spread is not used.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from welltuned.transfer.formulas import FORMULAS, Formula
from welltuned.transfer.known_errors import KnownError, development_error, distance, known_error, scale_of
from welltuned.transfer.setting import Setting
from welltuned.transfer.starts import shift_sd

NAME = "all formulas"  # of the combination, among the known errors
NORMAL_90 = 1.645  # half width of a normal's 90 % interval, in standard deviations
WIDTH_SD = 0.5  # octaves of learning rate per octave of width beyond what was measured: the whole slope; assumed


@dataclass(frozen=True)
class Suggestion:
    """What one formula says: a rate, or the reason why it says nothing; `error` is None where none was measured."""

    formula: Formula
    rate: float | None
    reason: str
    error: KnownError | None


@dataclass(frozen=True)
class Combined:
    """The weighted mean of the suggestions, with its 90 % interval; `weights` by formula sum to 1."""

    rate: float
    low: float
    high: float
    sd_octaves: float
    weights: Mapping[str, float]
    error: KnownError


def suggestions(setting: Setting) -> tuple[Suggestion, ...]:
    """Ask every formula."""
    found: list[Suggestion] = []
    for formula in FORMULAS:
        reason = formula.misfit(setting)
        rate = None if reason else formula.rate(setting)
        found.append(Suggestion(formula, rate, reason, known_error("formula", formula.name, setting.width)))
    return tuple(found)


def weights_of(rms: Mapping[str, float]) -> dict[str, float]:
    """Return 1 / rms^2, summing to 1.

    >>> weights_of({"near": 1.0, "far": 2.0})
    {'near': 0.8, 'far': 0.2}
    """
    raw = {name: error**-2 for name, error in rms.items()}
    return {name: weight / math.fsum(raw.values()) for name, weight in raw.items()}


def lawful(found: Sequence[Suggestion]) -> dict[str, float]:
    """Return the rates of the formulas that follow the setting; a habit of one rate for all is only shown beside."""
    return {one.formula.name: one.rate for one in found if one.rate is not None and one.formula.lawful}


def mean_rate(rates: Mapping[str, float], width: int | None) -> tuple[float, dict[str, float]] | None:
    """Return the weighted geometric mean of formulas' rates, and the weights; None where no error is known."""
    rms = {name: row.rms for name in rates if (row := development_error("formula", name, width)) is not None}
    if not rms:
        return None
    weights = weights_of(rms)
    return 2.0 ** math.fsum(weight * math.log2(rates[name]) for name, weight in weights.items()), weights


def combined(setting: Setting) -> Combined | None:
    """Combine the suggestions; None where no formula applies whose error is known."""
    mean, error = mean_rate(lawful(suggestions(setting)), setting.width), known_error("combined", NAME, setting.width)
    scale = scale_of(setting.width)
    if mean is None or error is None or scale is None or setting.width is None:
        return None
    extra = shift_sd(setting.method) ** 2 + (WIDTH_SD * distance(scale, setting.width)) ** 2
    half = math.sqrt((error.rms * student_90(error.num_groups)) ** 2 + NORMAL_90**2 * extra)
    rate, weights = mean
    return Combined(rate, rate * 2.0**-half, rate * 2.0**half, half / NORMAL_90, weights, error)


def student_90(dof: int) -> float:
    """Return the half width of Student's 90 % interval, from a table, beyond 10 by its expansion in 1 / dof.

    >>> round(student_90(7), 2), round(student_90(30), 2)
    (1.89, 1.7)
    """
    table = (6.3138, 2.9200, 2.3534, 2.1318, 2.0150, 1.9432, 1.8946, 1.8595, 1.8331, 1.8125)
    if dof <= len(table):
        return table[dof - 1]
    z = NORMAL_90
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
