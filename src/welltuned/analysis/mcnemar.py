"""One seed's two trained models on the same items, described by their disagreements (McNemar, Psychometrika 12, 1947).

It speaks of these two models and not of the methods: another seed may turn it round. The p is exact: under equal
models, the disagreements fall to either side like a fair coin.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Disagreements:
    """How many items each model alone got right, and the exact two-sided p of "equally many"."""

    only_ours: int
    only_theirs: int
    num_items: int
    p: float

    @property
    def difference(self) -> float:
        """Return the difference of the two accuracies."""
        return (self.only_ours - self.only_theirs) / self.num_items


def describe(ours: Sequence[bool], theirs: Sequence[bool]) -> Disagreements:
    """Return the disagreements of two models on the same items.

    >>> describe([True, True, True, False], [False, False, True, False]).p
    0.5
    """
    from scipy.stats import binomtest

    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"answers: got {len(ours)} and {len(theirs)} items, expected the same, at least one")
    only_ours = sum(bool(one) and not other for one, other in zip(ours, theirs, strict=True))
    only_theirs = sum(bool(other) and not one for one, other in zip(ours, theirs, strict=True))
    both = only_ours + only_theirs
    return Disagreements(only_ours, only_theirs, len(ours), float(binomtest(only_ours, both).pvalue) if both else 1.0)
