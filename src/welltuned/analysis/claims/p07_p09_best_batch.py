"""P7 to P9: the optimal batch size does not move with rank or model, and grows with the data."""

import itertools
import math
from collections import defaultdict

import numpy as np

from welltuned.analysis.claims._claim import Answer, Claim, Verdict, judge, lacks, largest, magnitude, simultaneous
from welltuned.analysis.claims._compare import LORA, find, generator, only_methods, when_tuned
from welltuned.analysis.estimate import Estimate, percentile, redraw
from welltuned.analysis.grid import Place
from welltuned.analysis.max_shifted import VARIES_WITH, distances, level
from welltuned.analysis.optimum_batch import FEWEST, BatchCurve, curves, of_curve, parabola, vertex
from welltuned.analysis.runs import Table

SPREAD = 1.0  # doublings; part of claim P7
RANK_SPAN = 8.0  # part of claim P7
DATA_SPAN = 8.0  # part of claim P9
SLOPE = 0.25  # part of claim P9
MODEL_NAMES = ("base", "model")


def _groups(table: Table, across: str) -> dict[Place, list[BatchCurve]]:
    lora = find(table, LORA)
    found: defaultdict[Place, list[BatchCurve]] = defaultdict(list)
    if lora is not None:
        for curve in curves(only_methods(table, lora)):
            if len(curve.points) >= FEWEST:
                found[curve.place.without(*VARIES_WITH.get(across, (across,)))].append(curve)
    return {place: members for place, members in found.items() if len(members) > 1}


def _bests(curve: BatchCurve, sign: int, name: str) -> tuple[float, str, np.ndarray | None]:
    """Return log2 B* of the fit, the edge it lies on, and its redrawn twins."""
    x = np.log2(np.array(curve.batches, dtype=float))
    ends = (float(x[0]), float(x[-1]))
    found = of_curve(curve, sign, generator(name))
    drawn = redraw([point.uncertain for point in curve.points], generator(f"{name} {curve.place}"))
    twins = None
    if drawn is not None:
        twins = np.array([vertex(fit, *ends) for fit in parabola(x, sign * drawn.T, np.ones_like(x)).T])
    at = math.log2(found.fitted.value) if found.fitted else math.nan
    return at, found.edge, twins


def _invariant(table: Table, across: str, span: float, name: str) -> Answer:
    groups = _groups(table, across)
    if not groups:
        return lacks(f"LoRA at {FEWEST} batch sizes for two values of {across.replace('_', ' ')}")
    if span > 1 and max(_span(members, across) for members in groups.values()) < span:
        return lacks(f"values of {across.replace('_', ' ')} that span a factor of {span:g}")
    family: list[Estimate] = []
    count = sum(math.comb(len(members), 2) for members in groups.values())
    for members in groups.values():
        bests = [_bests(curve, table.sign, name) for curve in members]
        if any(edge for _, edge, _ in bests):
            return lacks("batch sizes on both sides of the best one for every curve: some B* lie on the edge")
        for (one, _, ours), (other, _, theirs) in itertools.combinations(bests, 2):
            family.append(_gap(one - other, ours, theirs, simultaneous(count)))
    found = [distance for distance in distances(table, across) if distance.place.method == find(table, LORA)]
    shown = "; ".join(
        f"{one.one} and {one.other}: max-shifted distance {one.rms:.3g}"
        + ("" if one.overlap is None else f" (noise {one.noise_rms:.3g}), overlap {one.overlap:.0%}")
        for one in found
    )
    return judge(largest([magnitude(one) for one in family]), "doublings of B*", high=SPREAD, detail=shown)


def _gap(value: float, ours: np.ndarray | None, theirs: np.ndarray | None, at_level: float) -> Estimate:
    if ours is None or theirs is None:
        return Estimate(value, None, None, "no interval: no configuration was run under two seeds")
    return percentile(value, ours - theirs, "parametric bootstrap over seeds", at_level)


def _span(members: list[BatchCurve], across: str) -> float:
    values = [float(level(curve.place, across)) for curve in members]
    return max(values) / min(values)


def _rank(table: Table) -> Answer:
    return _invariant(table, "rank", RANK_SPAN, "P7")


def _model(table: Table) -> Answer:
    known = {name for problem in table.problems() for name, _ in problem}
    name = next((name for name in MODEL_NAMES if name in known), None)
    return lacks("two base models by name") if name is None else _invariant(table, name, 1.0, "P8")


def _data(table: Table) -> Answer:
    """Regress log2 B* on log2 N, an intercept for each group of curves: slope with its bootstrap interval."""
    groups = _groups(table, "num_train")
    wide = [members for members in groups.values() if _span(members, "num_train") >= DATA_SPAN]
    if not wide:
        return lacks(f"LoRA at {FEWEST} batch sizes for training sets that span a factor of {DATA_SPAN:g}")
    x: list[float] = []
    y: list[float] = []
    twins: list[np.ndarray | None] = []
    for members in wide:
        sizes = np.log2([float(curve.place.num_train or 1) for curve in members])
        bests = [_bests(curve, table.sign, "P9") for curve in members]
        if any(edge for _, edge, _ in bests):
            return lacks("batch sizes on both sides of the best one at every data size: some B* lie on the edge")
        x += (sizes - sizes.mean()).tolist()
        y += [best for best, _, _ in bests]
        twins += [drawn for _, _, drawn in bests]
    weights = np.array(x) / float(np.dot(x, x))
    value = float(weights @ np.array(y))
    known = [drawn for drawn in twins if drawn is not None]
    if len(known) < len(twins):
        return lacks("two seeds of any configuration", Estimate(value, None, None, "no repeats"), "exponent of B*")
    number = percentile(value, weights @ np.array(known), "parametric bootstrap over seeds")
    answer = judge(number, "exponent of B*", low=SLOPE)
    beyond_zero = number.low is not None and number.low > 0 and value > SLOPE
    return Answer(Verdict.SUPPORTED, number, answer.unit, answer.detail) if beyond_zero else answer


CLAIMS = (
    Claim(
        id="P7",
        statement="The optimal batch size is the same at every rank.",
        source="Lee & Lee 2026",
        needs="LoRA tuned at three batch sizes around the best, at ranks over a factor of 8, two seeds",
        estimator="largest difference of log2 B* (vertex of the log-B quadratic), simultaneous bootstrap intervals",
        threshold="at most 1 doubling",
        evaluate=when_tuned(_rank),
    ),
    Claim(
        id="P8",
        statement="The optimal batch size is the same for every model size.",
        source="Lee & Lee 2026",
        needs="LoRA tuned at three batch sizes around the best, on two base models, two seeds",
        estimator="as P7, between base models",
        threshold="at most 1 doubling",
        evaluate=when_tuned(_model),
    ),
    Claim(
        id="P9",
        statement="The optimal batch size grows with the training data.",
        source="Lee & Lee 2026",
        needs="LoRA tuned at three batch sizes around the best, at data sizes over a factor of 8, two seeds",
        estimator="slope of log2 B* on log2 N, bootstrap over seeds",
        threshold="above 0.25, interval above 0",
        evaluate=when_tuned(_data),
    ),
)
