"""P1: once the learning rate is tuned, every method is within 1 to 2 points of plain LoRA."""

from welltuned.analysis.claims._claim import Answer, Claim, lacks, largest, magnitude, simultaneous
from welltuned.analysis.claims._compare import LORA, by_method, find, in_points, judge_family, when_tuned
from welltuned.analysis.estimate import Estimate
from welltuned.analysis.grid import advantage, tuned
from welltuned.analysis.runs import Table
from welltuned.analysis.tunability import best_of

MARGIN_POINTS = 2.0  # points, part of claim P1
MARGIN_LOSS = 1.0  # percent of the loss, part of claim P1


def _parity(table: Table) -> Answer:
    lora = find(table, LORA)
    if lora is None:
        return lacks("plain LoRA")
    scaled, unit = in_points(table)
    pairs = [
        (best_of(cells, scaled.sign), best_of(methods[lora], scaled.sign))
        for methods in by_method(tuned(scaled), "batch_size").values()
        if lora in methods
        for method, cells in methods.items()
        if method != lora
    ]
    if not pairs:
        return lacks("another method of the same problem and rank as LoRA")

    def worst(level: float) -> Estimate:
        return largest([magnitude(advantage(one, other, scaled, {}, level)) for one, other in pairs])

    margin = MARGIN_POINTS if table.higher_is_better else MARGIN_LOSS
    far = max(pairs, key=lambda pair: abs(pair[0].value - pair[1].value))
    detail = f"farthest from LoRA: {far[0].place.label}; {len(pairs)} comparison{'s' if len(pairs) > 1 else ''}"
    if not all(cell.fresh for pair in pairs for cell in pair):
        detail += "; some values were selected on"
    return judge_family(worst, simultaneous(len(pairs)), unit, float("-inf"), margin, detail)


CLAIMS = (
    Claim(
        id="P1",
        statement="With tuned learning rates every method is as good as plain LoRA.",
        source='"Learning Rate Matters" (2026)',
        needs="LoRA and another method at one rank, two seeds",
        estimator="largest |difference to LoRA| over methods, ranks and problems, each at its best batch size and rate",
        threshold="at most 2 points, or 1 % of the loss",
        evaluate=when_tuned(_parity),
    ),
)
