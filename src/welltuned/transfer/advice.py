"""All that the rules say of one setting, side by side: what `welltuned advise` prints; nothing is trained."""

from dataclasses import dataclass, replace

from welltuned.transfer import known_errors
from welltuned.transfer.combine import Combined, Suggestion, combined, suggestions
from welltuned.transfer.known_errors import KnownError, Scale
from welltuned.transfer.rules import FEWEST_STEPS, METHOD, RULES, Rule, over_lora, variant
from welltuned.transfer.setting import Setting, check
from welltuned.transfer.starts import FULL, shift, start

FAR = 1.0  # octaves of width beyond what was measured, from which on it is said; assumed


@dataclass(frozen=True)
class Step:
    """One change of the setting, and the factor on the learning rate that a rule gives it, or why it gives none."""

    rule: Rule
    change: str
    factor: float | None
    reason: str
    error: KnownError | None


@dataclass(frozen=True)
class Advice:
    """Suggestions, their combination (None: nothing is known), how it moves, and what to mind."""

    setting: Setting
    scale: Scale | None
    suggestions: tuple[Suggestion, ...]
    combined: Combined | None
    steps: tuple[Step, ...]
    cautions: tuple[str, ...]


def advise(setting: Setting) -> Advice:
    """Ask every formula and rule about a setting."""
    check(setting)
    scale, together = known_errors.scale_of(setting.width), combined(setting)
    return Advice(setting, scale, suggestions(setting), together, steps(setting), cautions(setting, together))


def steps(setting: Setting) -> tuple[Step, ...]:
    """Return what doubling each thing does, what full fine-tuning would want, and what LoRA's other start would."""
    changes: list[tuple[str, str, Setting]] = []
    if setting.method not in FULL:
        changes.append(("rank", "rank x 2, alpha policy kept", replace(setting, rank=2 * setting.rank)))
        changes.append(("alpha", "lora_alpha x 2", replace(setting, alpha=_doubled(setting.alpha))))
    if setting.width is not None:
        changes.append(("width", "hidden size x 2", replace(setting, width=2 * setting.width)))
    changes.append(("batch", "batch size x 2", replace(setting, batch_size=2 * setting.batch_size)))
    if setting.num_samples is not None:
        changes.append(("samples", "samples x 2", replace(setting, num_samples=2 * setting.num_samples)))
    if setting.method not in FULL:
        changes.append(("method", "full fine-tuning", replace(setting, method="full")))
    rules = {rule.name: rule for rule in RULES}
    return tuple(_step(rules[name], change, setting, there) for name, change, there in changes)


def _step(rule: Rule, change: str, here: Setting, there: Setting) -> Step:
    reason = rule.misfit(here, there)
    factor = None if reason else 2.0 ** rule.log2_factor(here, there)
    return Step(rule, change, factor, reason, known_errors.known_error("rule", variant(rule, there), here.width))


def _doubled(policy: str) -> str:
    if policy.endswith("/sqrt(r)"):
        return f"{2 * float(policy.removesuffix('/sqrt(r)')):g}/sqrt(r)"
    if policy.endswith("r"):
        return f"{2 * float(policy.removesuffix('r') or 1):g}r"
    return f"{2 * float(policy):g}"


def _source(method: str) -> str:
    return METHOD.source if method in FULL or start(method) == "B" else shift(method).source


def cautions(setting: Setting, together: Combined | None) -> tuple[str, ...]:
    """Say what the numbers do not cover."""
    found: list[str] = []
    if together is not None and not together.error.held_out:
        found.append(
            f"the interval rests on {together.error.num} optima of {together.error.num_groups} model(s) that constants "
            "were fitted to: it may be too narrow"
        )
    scale = known_errors.scale_of(setting.width)
    if scale is not None and setting.width is not None and known_errors.distance(scale, setting.width) > FAR:
        found.append(
            f"no model of about this width was measured: the nearest have hidden sizes {scale.low_width} to "
            f"{scale.high_width}"
        )
    if setting.method != "lora":
        found.append(
            f"errors of formulas were measured on plain LoRA; the factor of {setting.method} against it ("
            f"x {2.0 ** over_lora(setting):.2f}, {_source(setting.method)}) adds its own"
        )
    if setting.num_samples is None:
        found.append("the number of samples is not known (--num-samples): longer runs want lower rates")
    elif setting.num_samples < FEWEST_STEPS * setting.batch_size:
        steps = setting.num_samples / setting.batch_size
        found.append(f"this run has {steps:.3g} optimizer steps; the rules were measured with {FEWEST_STEPS} or more")
    return tuple(found)
