"""Measure how far the rules of `transfer/` are off on every table there is, and write their errors.toml.

    python -m scripts.measure_rules --data FOLDER; python -m scripts.rules_page

`--data` is the folder of the published tables; what is not there is left out, and said so.

An error is log2 of suggested over measured best learning rate. Constants are fitted to development cells only; an error
is quoted on held-out cells where there are any. Cells of fewer optimizer steps than the rules' domain are left out.
The tables' own resolution is in the errors: Tinker's rates are a factor of 3 apart, so its optima are known to about
half an octave. `critical_batch_size` has one best rate at all batch sizes and PEFT's comparison one rate: neither can
say anything here.
"""

import argparse
import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scripts.rule_tables import DEVELOPMENT, LARGE, SMALL, Cell, gemma, mlperf, recorded_studies, surfaces, tinker

from welltuned.transfer import combine, formulas, known_errors
from welltuned.transfer.known_errors import KnownError, Law, Scale
from welltuned.transfer.mua import bound
from welltuned.transfer.rules import BATCH_POWER, FEWEST_STEPS, RULES, SAMPLES_POWER, Rule, variant
from welltuned.transfer.setting import Setting

TITLES = {LARGE: "published sweeps of language models", SMALL: "recorded studies of the bundled models"}
LAW_BATCH = {LARGE: 64, SMALL: 16}
LAW_SAMPLES = {LARGE: 100_000, SMALL: 4096}
FEWEST_SPAN = 4.0  # within one group, for a power to be fitted rather than taken from the literature


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the published tables")
    found = all_cells(parser.parse_args().data)
    cells = [cell for cell in found if has_steps(cell.setting)]
    print(f"{len(cells)} optima; {len(found) - len(cells)} more have under {FEWEST_STEPS} optimizer steps")
    for row in measure(cells):
        print(summary(row))


def measure(cells: Sequence[Cell]) -> list[KnownError]:
    """Fit, measure, and write known_errors.FILE: formulas read the laws from it, the combination their errors."""
    scales = tuple(scale_of(name, cells) for name in (LARGE, SMALL) if any(cell.scale == name for cell in cells))
    laws = tuple(fit(scale.name, development(cells, scale.name)) for scale in scales)
    write(scales, laws, ())
    errors = [row for scale in scales for row in errors_of_formulas(scale, cells)]
    write(scales, laws, errors)
    errors += [row for scale in scales for row in errors_of_combined(scale, cells)]
    errors += [row for scale in scales for rule in RULES for row in errors_of_rule(rule, scale, cells)]
    write(scales, laws, errors)
    return errors


def all_cells(data: Path | None) -> list[Cell]:
    """Return the optima of every table there is."""
    cells = [*gemma(), *recorded_studies(), *surfaces()]
    for name, read in {"tinker_sft_sweep": tinker, "mlperf_llama2_70b_lora": mlperf}.items():
        if data is not None and (data / name).is_dir():
            cells += read(data)
        else:
            print(f"missing: {name}")
    return cells


def has_steps(setting: Setting) -> bool:
    """Say whether a run has as many optimizer steps as the rules' domain asks for."""
    return setting.num_samples is None or setting.num_samples >= FEWEST_STEPS * setting.batch_size


def scale_of(name: str, cells: Sequence[Cell]) -> Scale:
    """Return the range of widths of a scale's cells."""
    widths = [cell.setting.width for cell in cells if cell.scale == name and cell.setting.width is not None]
    return Scale(name, TITLES[name], min(widths), max(widths))


def development(cells: Sequence[Cell], scale: str) -> list[Cell]:
    """Return plain LoRA's development cells of a scale."""
    return [cell for cell in cells if (cell.scale, cell.split, cell.setting.method) == (scale, DEVELOPMENT, "lora")]


# Fitting --------------------------------------------------------------------------------------------------------------


def fit(scale: str, cells: Sequence[Cell]) -> Law:
    """Fit C, and the powers of batch size and samples where they vary enough within a group (fixed effects of groups).

    Every group weighs alike in C.
    """
    batch, samples = LAW_BATCH[scale], LAW_SAMPLES[scale]
    residual = np.array([math.log2(cell.rate) - log2_bound(cell.setting) for cell in cells])
    along = {
        "batch_power": np.log2([cell.setting.batch_size / batch for cell in cells]),
        "samples_power": np.log2([(cell.setting.num_samples or samples) / samples for cell in cells]),
    }
    groups = [cell.group for cell in cells]
    powers = {"batch_power": BATCH_POWER, "samples_power": SAMPLES_POWER}
    fitted = [name for name, x in along.items() if widest(x, groups) >= math.log2(FEWEST_SPAN)]
    rest = residual - sum((powers[name] * along[name] for name in powers if name not in fitted), np.zeros(len(cells)))
    if fitted:
        design = np.stack([centred(along[name], groups) for name in fitted], axis=1)
        solution = np.linalg.lstsq(design, centred(rest, groups), rcond=None)[0]
        powers |= dict(zip(fitted, map(float, solution), strict=True))
        rest = rest - design_of(along, fitted) @ solution
    constant = float(np.mean([rest[mask].mean() for mask in masks(groups)]))
    data = ", ".join(sorted({cell.table for cell in cells}))
    return Law(
        scale, 2.0**constant, batch, powers["batch_power"], samples, powers["samples_power"], tuple(fitted), data
    )


def design_of(along: dict[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    return np.stack([along[name] for name in names], axis=1)


def log2_bound(setting: Setting) -> float:
    assert setting.width is not None
    return bound("A", setting.width, setting.rank, setting.scaling, setting.alpha_power).log2


def masks(groups: Sequence[str]) -> list[np.ndarray]:
    return [np.array(groups) == group for group in dict.fromkeys(groups)]


def centred(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    result = values.astype(float)
    for mask in masks(groups):
        result[mask] -= result[mask].mean()
    return result


def widest(values: np.ndarray, groups: Sequence[str]) -> float:
    return max(float(np.ptp(values[mask])) for mask in masks(groups))


# Errors ---------------------------------------------------------------------------------------------------------------

Signed = list[tuple[str, str, float]]  # table, group, signed error in octaves


def errors_of_formulas(scale: Scale, cells: Sequence[Cell]) -> list[KnownError]:
    """Measure every formula on plain LoRA's cells of a scale, development and held out apart."""
    rows: list[KnownError] = []
    for formula in formulas.FORMULAS:
        for held_out in (False, True):
            chosen = lora_cells(cells, scale, held_out)
            if formula is formulas.FITTED and not held_out:
                laws = left_out(scale.name, chosen)
                signed = [
                    (cell.table, cell.group, math.log2(formulas.law_rate(laws[cell.setting], cell.setting) / cell.rate))
                    for cell in chosen
                ]
            else:
                signed = [
                    (cell.table, cell.group, math.log2(formula.rate(cell.setting) / cell.rate))
                    for cell in chosen
                    if not formula.misfit(cell.setting)
                ]
            rows += known("formula", formula.name, scale.name, held_out, signed)
    return rows


def lora_cells(cells: Sequence[Cell], scale: Scale, held_out: bool) -> list[Cell]:
    return [
        cell
        for cell in cells
        if cell.scale == scale.name and cell.setting.method == "lora" and (cell.split != DEVELOPMENT) == held_out
    ]


def left_out(scale: str, cells: Sequence[Cell]) -> dict[Setting, Law]:
    """Return for every cell the law of the others: of the other groups, or with one group, of its other cells."""
    groups = {cell.group for cell in cells}
    laws: dict[Setting, Law] = {}
    for cell in cells:
        rest = [other for other in cells if (other.group != cell.group if len(groups) > 1 else other != cell)]
        if len(rest) > 1:
            laws[cell.setting] = fit(scale, rest)
    return laws


def errors_of_combined(scale: Scale, cells: Sequence[Cell]) -> list[KnownError]:
    """Measure the weighted mean of all formulas; on development cells with laws that did not see them."""
    rows: list[KnownError] = []
    for held_out in (False, True):
        chosen = lora_cells(cells, scale, held_out)
        laws = {} if held_out else left_out(scale.name, chosen)
        signed: Signed = []
        for cell in chosen:
            rates = combine.lawful(combine.suggestions(cell.setting))
            if not held_out:
                rates |= {formulas.FITTED.name: formulas.law_rate(laws[cell.setting], cell.setting)}
            found = combine.mean_rate(rates, cell.setting.width)
            if found is not None:
                signed.append((cell.table, cell.group, math.log2(found[0] / cell.rate)))
        rows += known("combined", combine.NAME, scale.name, held_out, signed)
    return rows


@dataclass(frozen=True)
class Pair:
    """Two optima that differ in one field: what the rule says of their ratio, and what is so, in octaves."""

    cell: Cell  # the second
    group: str
    moved: float | None  # octaves along the field, None for a name
    predicted: float
    observed: float


def errors_of_rule(rule: Rule, scale: Scale, cells: Sequence[Cell]) -> list[KnownError]:
    """Measure a rule on all pairs of optima that differ in its field alone."""
    groups: defaultdict[tuple[str, bool], list[Pair]] = defaultdict(list)
    for pair in pairs_of(rule, [cell for cell in cells if cell.scale == scale.name]):
        groups[variant(rule, pair.cell.setting), is_held_out(rule, pair.cell)].append(pair)
    rows: list[KnownError] = []
    for (name, held_out), pairs in groups.items():
        signed: Signed = [(pair.cell.table, pair.group, pair.predicted - pair.observed) for pair in pairs]
        (row,) = known("rule", name, scale.name, held_out, signed)
        rows.append(with_slope(row, pairs))
    return rows


def with_slope(row: KnownError, pairs: Sequence[Pair]) -> KnownError:
    """Add the error per octave moved, and the slope that was observed, where the field is a number."""
    along = [(pair.moved, pair) for pair in pairs if pair.moved is not None]
    if not along:
        return row
    squares = sum(x * x for x, _ in along)
    rms = math.sqrt(sum((pair.predicted - pair.observed) ** 2 for _, pair in along) / squares)
    return replace(row, rms_per_octave=rms, observed_slope=sum(x * pair.observed for x, pair in along) / squares)


def is_held_out(rule: Rule, cell: Cell) -> bool:
    """Say whether no constant of the rule was read off the cell: shifts and the samples' power were, off Gemma's."""
    return not (rule.name in ("method", "samples") and cell.group == "Gemma-3-1B")  # arXiv 2602.04998


def pairs_of(rule: Rule, cells: Iterable[Cell]) -> list[Pair]:
    """Pair the cells of a table whose settings are equal but for the rule's field, ascending in it."""
    pairs: list[Pair] = []
    for one, other in itertools.combinations(cells, 2):
        here, there = ordered(rule.field, one, other)
        before, after = getattr(here.setting, rule.field), getattr(there.setting, rule.field)
        same_group = here.group == there.group or rule.field == "width"
        if here.table != there.table or before == after or not same_group:
            continue
        if replace(here.setting, **{rule.field: after}) != there.setting or rule.misfit(here.setting, there.setting):
            continue
        if rule.field == "method" and here.setting.method != "lora":
            continue
        octaves = math.log2(after / before) if isinstance(after, int) else None
        predicted = rule.log2_factor(here.setting, there.setting)
        group = there.setting.family if rule.field == "width" else there.group
        pairs.append(Pair(there, group, octaves, predicted, math.log2(there.rate / here.rate)))
    return pairs


def ordered(field: str, one: Cell, other: Cell) -> tuple[Cell, Cell]:
    """Return the pair with the smaller value first, LoRA first among methods."""

    def key(cell: Cell) -> tuple[int, str, float]:
        value = getattr(cell.setting, field)
        return (0, "", float(value)) if isinstance(value, int) else (value != "lora", str(value), 0.0)

    return (one, other) if key(one) <= key(other) else (other, one)


def known(kind: str, name: str, scale: str, held_out: bool, signed: Signed) -> list[KnownError]:
    """Summarise signed errors; nothing where there are none."""
    if not signed:
        return []
    values = np.array([error for _, _, error in signed])
    return [
        KnownError(
            kind,
            name,
            scale,
            tuple(sorted({table for table, _, _ in signed})),
            held_out,
            len(values),
            len({group for _, group, _ in signed}),
            median=float(np.median(np.abs(values))),
            q90=float(np.quantile(np.abs(values), 0.9)),
            bias=float(np.median(values)),
            rms=float(np.sqrt(np.mean(values**2))),
        )
    ]


# Writing --------------------------------------------------------------------------------------------------------------


def write(scales: Sequence[Scale], laws: Sequence[Law], errors: Sequence[KnownError]) -> None:
    """Write the file and forget what was read of it."""
    parts = [
        "# Written by scripts/measure_rules.py, not by hand. Errors: log2 (suggested / measured best learning rate).\n"
    ]
    tables: list[tuple[str, Sequence[object]]] = [("scale", scales), ("law", laws), ("error", errors)]
    for name, rows in tables:
        for row in rows:
            fields: dict[str, object] = dataclasses.asdict(row)  # type: ignore[call-overload]
            lines = [f"{key} = {toml(value)}" for key, value in fields.items() if value is not None]
            parts.append(f"[[{name}]]\n" + "\n".join(lines) + "\n")
    known_errors.FILE.write_text("\n".join(parts), encoding="utf-8")
    known_errors.measured.cache_clear()


def toml(value: object) -> str:
    """Write a value, numbers to four digits."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(float(f"{value:.4g}"))
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def summary(row: KnownError) -> str:
    """Write a row for the screen."""
    slope = "" if row.observed_slope is None else f"  observed slope {row.observed_slope:+.2f}"
    split = "held out" if row.held_out else "development"
    return (
        f"{row.scale:9}  {row.kind:8}  {row.name:24}  {split:11}  n {row.num:3} in {row.num_groups:2}  "
        f"median {row.median:.2f}  90 % {row.q90:.2f}  bias {row.bias:+.2f}{slope}"
    )


if __name__ == "__main__":
    main()
