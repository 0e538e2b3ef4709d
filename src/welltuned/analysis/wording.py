"""How numbers and cells read, in tables, captions and caveats alike: one place, so that they always read the same.

Every function takes a number, or None for a missing one, which reads as a dash and never as 0.
"""

from typing import Any

DASH = "–"  # what a missing table entry is set with
Key = tuple[tuple[str, Any], ...]  # the fields that name a cell, with their values

BARE = frozenset({"method", "base", "task", "optimizer", "lr_scheduler_type", "dtype"})  # their values speak alone
SHORT = {"batch_size": "batch", "num_train": "train rows", "num_train_epochs": "epochs"}


def rate_text(rate: float | None) -> str:
    """Write a learning rate in powers of ten with up to three digits.

    >>> rate_text(0.001), rate_text(0.000316), rate_text(None) == DASH
    ('1e-3', '3.16e-4', True)
    """
    if rate is None:
        return DASH
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def nats_text(nats: float | None) -> str:
    """Write a loss in nats per token.

    >>> nats_text(0.43219)
    '0.4322'
    """
    return DASH if nats is None else f"{nats:.4f}"


def percent_text(share: float | None) -> str:
    """Write a share as a percentage with one decimal.

    >>> percent_text(0.8321)
    '83.2 %'
    """
    return DASH if share is None else f"{100 * share:.1f} %"


def p_text(p: float | None) -> str:
    """Write a p-value; none is 0.

    >>> p_text(0.0421), p_text(2e-9)
    ('0.042', '< 0.001')
    """
    return DASH if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def signed(number: float, digits: int) -> str:
    """Write a number with its sign, a minus as long as a plus.

    >>> signed(-0.5, 1), signed(0.25, 2)
    ('−0.5', '+0.25')
    """
    return f"{number:+.{digits}f}".replace("-", "−")


def seconds_text(seconds: float | None) -> str:
    """Write a duration in the unit that suits it.

    >>> seconds_text(4.21), seconds_text(252), seconds_text(9000)
    ('4.2 s', '4.2 min', '2.5 h')
    """
    if seconds is None:
        return DASH
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count_text(count: float | None) -> str:
    """Write a count, in thousands or millions where it is large.

    >>> count_text(512), count_text(23456), count_text(4.1e6), count_text(2e9)
    ('512', '23.5 k', '4.1 M', '2 G')
    """
    if count is None:
        return DASH
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if count >= size:
            return f"{count / (1e3 if unit == ' k' else size):.1f}".removesuffix(".0") + unit
    return f"{count:,.0f}"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> plural(1, "seed"), plural(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def label(key: Key) -> str:
    """Name a cell in words; the empty key is "all".

    >>> label((("method", "lora"), ("batch_size", 16), ("rank", 8)))
    'lora, batch 16, rank 8'
    """
    return ", ".join(_part(name, value) for name, value in key) or "all"


def _part(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        value = "+".join(str(item) for item in value)
    if name in BARE:
        return str(value)
    shown = rate_text(value) if name == "learning_rate" else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{SHORT.get(name, name.replace('_', ' '))} {shown}"
