"""P22: LoRA loses more to full fine-tuning the larger the batch."""

import math

import numpy as np

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks, simultaneous, smallest
from welltuned.analysis.claims._compare import FULL, LORA, by_method, find, generator, in_points
from welltuned.analysis.estimate import Estimate, redrawn
from welltuned.analysis.grid import Tuned, tuned
from welltuned.analysis.runs import Table


def _slope(table: Table) -> Answer:
    """Regress full's lead over LoRA on log2 B, for each rank and problem; the smallest slope."""
    lora, full = find(table, LORA), find(table, FULL)
    if lora is None or full is None:
        return lacks("plain LoRA and full fine-tuning")
    scaled, unit = in_points(table)
    lines: dict[object, list[tuple[int, Tuned, Tuned]]] = {}
    for place, methods in by_method(tuned(scaled)).items():
        if lora in methods and full in methods and place.batch_size is not None:
            line = lines.setdefault(place.without("batch_size"), [])
            line.append((place.batch_size, methods[full][0], methods[lora][0]))
    kept = [sorted(line, key=lambda entry: entry[0]) for line in lines.values() if len(line) > 1]
    if not kept:
        return lacks("LoRA and full fine-tuning at two shared batch sizes")
    found = [_of_line(line, scaled.sign, simultaneous(len(kept)), f"P22 {at}") for at, line in enumerate(kept)]
    return judge(smallest(found), f"{unit} a doubling", low=math.ulp(0.0))


def _of_line(line: list[tuple[int, Tuned, Tuned]], sign: int, level: float, name: str) -> Estimate:
    x = np.log2([float(batch) for batch, _, _ in line])
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    size = len(line)

    def slope(means: np.ndarray) -> float:
        return float(weights @ (sign * (means[:size] - means[size:])))

    means = [full.uncertain for _, full, _ in line] + [lora.uncertain for _, _, lora in line]
    return redrawn(means, slope, generator(name), level=level)


CLAIMS = (
    Claim(
        id="P22",
        statement="LoRA's loss against full fine-tuning grows with batch size.",
        source="LoRA Without Regret 2025, claim 4",
        needs="LoRA and full fine-tuning tuned at two shared batch sizes, two seeds",
        estimator="slope of the lead of full fine-tuning on log2 B, the smallest over ranks; bootstrap over seeds",
        threshold="above 0",
        evaluate=_slope,
    ),
)
