"""Rules for the learning rate: where it may lie before anything was trained, and how it moves with the setting.

Standard library only, so that a calculator starts at once. Each rule has its statement, source, domain, and the error
that `scripts/measure_rules.py` measured.
"""

from welltuned.transfer.priors import Prior, Slope, prior

__all__ = ["Prior", "Slope", "prior"]
