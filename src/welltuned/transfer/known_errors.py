"""How far the rules were off where the truth is known: what `scripts/measure_rules.py` wrote into errors.toml.

An error is log2 of (suggested / measured best learning rate): 1 octave is a factor of 2. Errors are kept by scale of
the models they were measured on, and a setting takes those of the scale nearest to its width.
"""

import functools
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "errors.toml"


@dataclass(frozen=True)
class Scale:
    """Models of like size: the range of hidden sizes that something was measured on."""

    name: str
    title: str
    low_width: int
    high_width: int


@dataclass(frozen=True)
class KnownError:
    """Errors of one formula, rule or combination on the models of one scale, in octaves."""

    kind: str  # "formula" | "combined" | "rule"
    name: str
    scale: str
    tables: tuple[str, ...]
    held_out: bool  # on data that no constant was fitted to
    num: int  # optima (formulas) or pairs of optima (rules)
    num_groups: int  # independent models, or surfaces
    median: float  # of |error|
    q90: float  # 90 % quantile of |error|
    bias: float  # median of the signed error; above 0: suggested too high
    rms: float
    rms_per_octave: float | None = None  # of rules that move along a number: error per octave moved
    observed_slope: float | None = None  # of the same: least squares of measured on moved octaves, through 0


@dataclass(frozen=True)
class Law:
    """The constants of `C (s n r)^-1/2 (B/batch_size)^batch_power (N/num_samples)^samples_power` at one scale."""

    scale: str
    constant: float
    batch_size: int
    batch_power: float
    num_samples: int
    samples_power: float
    fitted_powers: tuple[str, ...]  # of "batch_power", "samples_power": those that the data could tell
    data: str


@dataclass(frozen=True)
class Measured:
    """Everything in the file."""

    scales: tuple[Scale, ...]
    laws: tuple[Law, ...]
    errors: tuple[KnownError, ...]


@functools.cache
def measured() -> Measured:
    """Read the committed measurements."""
    found = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return Measured(
        tuple(Scale(**row) for row in found.get("scale", ())),
        tuple(Law(**row | {"fitted_powers": tuple(row["fitted_powers"])}) for row in found.get("law", ())),
        tuple(KnownError(**row | {"tables": tuple(row["tables"])}) for row in found.get("error", ())),
    )


def scale_of(width: int | None) -> Scale | None:
    """Return the scale whose widths are nearest to a width, in octaves; None where the width is not known."""
    if width is None or not measured().scales:
        return None
    return min(measured().scales, key=lambda scale: distance(scale, width))


def distance(scale: Scale, width: int) -> float:
    """Return how many octaves a width lies outside of a scale."""
    return max(0.0, math.log2(scale.low_width / width), math.log2(width / scale.high_width))


def fitted_law(width: int | None) -> Law | None:
    """Return the law fitted to models of about this width."""
    scale = scale_of(width)
    return next((law for law in measured().laws if scale is not None and law.scale == scale.name), None)


def known_error(kind: str, name: str, width: int | None) -> KnownError | None:
    """Return how far something was off on models of about this width: on held-out data where there are any."""
    scale = scale_of(width)
    rows = [row for row in measured().errors if (row.kind, row.name) == (kind, name)]
    rows = [row for row in rows if scale is not None and row.scale == scale.name]
    return next((row for row in rows if row.held_out), rows[0] if rows else None)


def development_error(kind: str, name: str, width: int | None) -> KnownError | None:
    """Return the error on development data, which is what weights may rest on."""
    scale = scale_of(width)
    wanted = (kind, name, scale.name if scale else "", False)
    return next((row for row in measured().errors if (row.kind, row.name, row.scale, row.held_out) == wanted), None)
