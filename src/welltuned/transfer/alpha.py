"""The alpha policy: how `lora_alpha` follows the rank, as text, and the effective multiplier of B A x that it gives."""

import math
import re

from welltuned.errors import InputError, problem

# "r", "2r": a multiple of the rank; "16": PEFT's lora_alpha; "16/sqrt(r)": rsLoRA (Kalajdzievski 2023)
FORMS = re.compile(r"(?P<multiple>\d*\.?\d*)r|(?P<number>\d+\.?\d*|\.\d+)(?P<root>/sqrt\(r\))?")


def canonical(policy: object) -> object:
    """Return the policy in its one spelling ("2.0 r" is "2r", 16 is "16"); raise ValueError where it is none.

    >>> canonical("1.0r"), canonical(16), canonical("16 / sqrt(r)")
    ('r', '16', '16/sqrt(r)')
    """
    if isinstance(policy, bool) or not isinstance(policy, str | int | float):
        raise ValueError("not a policy")
    text = str(policy).replace(" ", "")
    found = FORMS.fullmatch(text)
    if found is None or found["multiple"] == ".":
        raise ValueError("not a policy")
    number = float(found["multiple"] or 1) if found["number"] is None else float(found["number"])
    if number <= 0 or not math.isfinite(number):
        raise ValueError("not a policy")
    short = str(int(number)) if number == int(number) else repr(number)
    if found["number"] is None:
        return "r" if number == 1 else f"{short}r"
    return short + (found["root"] or "")


def multiplier(policy: str, rank: int) -> float:
    """Return lora_alpha / r, or alpha / sqrt(r) for the form that says so.

    >>> multiplier("r", 8), multiplier("2r", 8), multiplier("16", 8), multiplier("16/sqrt(r)", 4)
    (1.0, 2.0, 2.0, 8.0)
    """
    if policy.endswith("/sqrt(r)"):
        return float(policy.removesuffix("/sqrt(r)")) / math.sqrt(rank)
    if policy.endswith("r"):
        return float(policy.removesuffix("r") or 1)
    return float(policy) / rank


def power(policy: str) -> float:
    """Return g where the multiplier of B A x falls as r^-g when only the rank changes: 0, 1/2 or 1.

    >>> power("2r"), power("16/sqrt(r)"), power("16")
    (0.0, 0.5, 1.0)
    """
    if policy.endswith("/sqrt(r)"):
        return 0.5
    return 0.0 if policy.endswith("r") else 1.0


def spelled(policy: str) -> str:
    """Return the canonical spelling; InputError where it is no policy."""
    try:
        return str(canonical(policy))
    except ValueError:
        line = problem("alpha", policy, '"r", "2r", 16 or "16/sqrt(r)"', 'write "r" for lora_alpha = r')
        raise InputError(line) from None
