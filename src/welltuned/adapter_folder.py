"""An adapter folder as the start of trials: what it holds, whether it fits a study, and its hash. Loads no torch.

Two kinds are read: a LoRA folder of PEFT, and one that `welltuned export` wrote, whose `welltuned.safetensors` has the
trial's own tensors, anchors included. Training goes on with the function that the folder has, so its sites, ranks and
multiplier must be those of the study, and everything that plain A and B do not say is refused.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from welltuned import fingerprint
from welltuned.errors import InputError, problem
from welltuned.records import Config, Site

SETTINGS, WEIGHTS, OWN = "adapter_config.json", "adapter_model.safetensors", "welltuned.safetensors"
PREFIX = "base_model.model."
PLAIN = ("low_rank",)  # the parametrisations that PEFT's lora_A and lora_B say all of
# Values of init_lora_weights that leave the base weight as it is; the others move a part of it into the adapter.
SAME_BASE = (True, False, "gaussian", "eva", "orthogonal")
# What a trial must share with the exported one that it goes on from.
OWN_FIELDS = ("base_hash", "target_modules", "method", "method_version", "method_source", "rank", "clamp_rank")
OWN_FIELDS += ("rank_pattern", "alpha_pattern", "quantization")
# And what a trial that is its rest must: the rows in their order, and what the moments are moments of.
REST_TRAIN = ("order_seed", "subset_seed", "batch_size", "optimizer", "beta1", "beta2", "beta2_batch_size", "momentum")
REST_TASK = (
    "task",
    "task_version",
    "data_hash",
    "prompt_template",
    "num_train",
    "subset",
    "num_validation",
    "num_test",
)
REST_FIELDS = {"": ("study_seed",), "model.": ("dtype",), "task.": (*REST_TASK, "split_seed", "max_length")}
REST_FIELDS |= {"train.": REST_TRAIN}
SHOWN = 3  # names in one error


@dataclass(frozen=True)
class AdapterFolder:
    """What a folder says of its adapter. `own` is the configuration of the trial that it was exported from, if any.

    `num_steps` is how many steps that trial took, where the folder has its optimizer's moments.
    """

    path: Path
    base: str
    shapes: dict[str, tuple[int, int, int]]  # site -> (O, I, R)
    scalings: dict[str, float]  # site -> the multiplier of B A x
    own: Config | None
    num_steps: int | None = None


def read(folder: str) -> AdapterFolder:
    """Read what a folder says of its adapter; InputError lists all that makes it unfit."""
    path = Path(folder).expanduser()
    missing = [name for name in (SETTINGS, WEIGHTS) if not (path / name).is_file()]
    if missing:
        expected = f"a folder with {SETTINGS} and {WEIGHTS}, as PEFT's save_pretrained writes it"
        line = problem("train.start_from", folder, expected, "check the path")
        raise InputError(f"{line} ({' and '.join(missing)} is not there)")
    try:
        settings = cast("dict[str, Any]", json.loads((path / SETTINGS).read_text(encoding="utf-8")))
        shapes, others = _shapes(path / WEIGHTS)
        own, num_steps = _own(path / OWN)
    except (ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
        raise InputError(f"train.start_from: got '{folder}', which cannot be read ({error}); save it again") from error
    problems = list(_unfit(folder, settings, shapes, others)) if own is None else []
    if problems:
        raise InputError(problems)
    return AdapterFolder(
        path,
        str(settings.get("base_model_name_or_path") or ""),
        shapes,
        {site: _scaling(settings, site) for site in shapes} if own is None else {},
        own,
        num_steps,
    )


def content_hash(folder: str) -> str:
    """Return SHA-256 over the bytes of the adapter's files; the same wherever the folder lies."""
    path = Path(folder).expanduser()
    return fingerprint.files_hash(path / name for name in (SETTINGS, WEIGHTS, OWN) if (path / name).is_file())


def misfits(
    adapter: AdapterFolder,
    config: Config,
    parametrisation: str,
    sites: Sequence[Site],
    scalings: Mapping[str, float],
) -> Iterable[str]:
    """Yield a line for each way in which trials cannot go on from the adapter; `scalings` are the study's, by site."""
    if config.start_step:
        yield from _rest_misfits(adapter, config)
    if adapter.own is not None:
        yield from _own_misfits(adapter.own, config)
        return
    if parametrisation not in PLAIN:
        expected = "one that trains A and B and nothing else, such as lora"
        advice = "change it, or start from a folder that `welltuned export` wrote of such a trial"
        yield problem("train.method", config.method, expected, advice)
    if Path(adapter.base).name.casefold() != Path(config.base).name.casefold():
        advice = f"name that base, or, if it is the same model, correct base_model_name_or_path in its {SETTINGS}"
        yield problem("model.base", config.base, f"'{adapter.base}', which '{adapter.path}' was trained on", advice)
    yield from _site_misfits(adapter, config, sites, scalings)


def _site_misfits(
    adapter: AdapterFolder, config: Config, sites: Sequence[Site], scalings: Mapping[str, float]
) -> Iterable[str]:
    there, wanted = set(adapter.shapes), {site.name for site in sites}
    if there != wanted:
        kinds = sorted({name.rpartition(".")[2] for name in there})
        got = f"{len(wanted)} sites ({len(wanted - there)} of them not in '{adapter.path}')"
        advice = f"set target_modules = {json.dumps(kinds)}" if there else "choose another folder"
        yield f"model.target_modules: got {got}, expected the {len(there)} that it adapts; {advice}"
        return
    for site in sites:
        num_out, num_in, rank = adapter.shapes[site.name]
        if (num_out, num_in) != (site.num_out, site.num_in):
            got = f"W of {site.num_out} x {site.num_in}, expected {num_out} x {num_in} as in '{adapter.path}'"
            yield f"model.base: got {site.name} with {got}; name the base that the adapter was trained on"
            return
        own = config.rank_at(site.name, num_out, num_in)
        if rank != own:
            yield problem("train.rank", own, f"{rank}, the adapter's at {site.name}", f"set rank = {rank}")
            return
        scaling, wanted = adapter.scalings[site.name], scalings[site.name]
        if not math.isclose(scaling, wanted, rel_tol=1e-9):  # rounding of alpha / r
            expected = f"one whose multiplier is the adapter's {scaling:g} at {site.name}, not {wanted:g}"
            yield problem("train.alpha", config.alpha_at(site.name), expected, f"set alpha = {scaling * rank:g}")
            return


def _own_misfits(own: Config, config: Config) -> Iterable[str]:
    """Compare the exported trial's configuration with the new one's."""
    for field in OWN_FIELDS:
        got, expected = getattr(config, field), getattr(own, field)
        if got != expected:
            section = "model" if field in ("base_hash", "target_modules", "quantization") else "train"
            yield problem(f"{section}.{field}", got, f"{expected!r}, the exported trial's", "set it, or start anew")
    if not math.isclose(own.scaling, config.scaling, rel_tol=1e-9):
        expected = f"the exported trial's {own.alpha!r}"
        yield problem("train.alpha", config.alpha, expected, f'set alpha = "{own.alpha}"')


def _rest_misfits(adapter: AdapterFolder, config: Config) -> Iterable[str]:
    """Yield a line for each thing that keeps a trial from being the rest of the exported one."""
    if adapter.own is None or adapter.num_steps is None:
        advice = "set it to 0, or export from a study with keep_moments = true in [search]"
        yield problem("train.start_step", config.start_step, "0: the folder has no optimizer's moments", advice)
        return
    if adapter.num_steps != config.start_step:
        expected = f"{adapter.num_steps}, the steps of the exported trial"
        yield problem("train.start_step", config.start_step, expected, f"set start_step = {adapter.num_steps}")
    for section, fields in REST_FIELDS.items():
        for field in fields:
            got, expected = getattr(config, field), getattr(adapter.own, field)
            if got != expected:
                name = "seed" if field == "study_seed" else field
                yield problem(
                    f"{section}{name}", got, f"{expected!r}, the exported trial's", "set it, or start_step = 0"
                )


def _shapes(path: Path) -> tuple[dict[str, tuple[int, int, int]], list[str]]:
    """Return (O, I, R) of every site, and the names of tensors that are no A or B of a site."""
    factors: dict[str, dict[str, tuple[int, int]]] = {}
    others: list[str] = []
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            shape = tuple(file.get_slice(name).get_shape())
            site, _, rest = name.removeprefix(PREFIX).partition(".lora_")
            if rest in ("A.weight", "B.weight") and len(shape) == 2 and name.startswith(PREFIX):
                factors.setdefault(site, {})[rest[0]] = shape
            else:
                others.append(name)
    found: dict[str, tuple[int, int, int]] = {}
    for site, pair in factors.items():
        if set(pair) != {"A", "B"} or pair["A"][0] != pair["B"][1]:
            raise ValueError(f"{site}: lora_A and lora_B do not belong together")
        found[site] = (pair["B"][0], pair["A"][1], pair["A"][0])
    return found, others


def _own(path: Path) -> tuple[Config | None, int | None]:
    if not path.is_file():
        return None, None
    with safe_open(path, framework="numpy") as file:
        note = json.loads(file.metadata()["welltuned"])
        return Config.parse(note["config"]), note.get("num_steps")


def _unfit(
    folder: str, settings: dict[str, Any], shapes: dict[str, tuple[int, int, int]], others: list[str]
) -> Iterable[str]:
    """Yield a line for each thing in PEFT's settings that A and B alone do not say."""
    where = f"train.start_from '{folder}'"
    if settings.get("peft_type") != "LORA":
        yield problem(f"{where}: peft_type", settings.get("peft_type"), "'LORA'", "choose a LoRA adapter")
        return
    for field, plain in (("use_dora", False), ("bias", "none"), ("lora_bias", False)):
        got = settings.get(field, plain)
        if got != plain:
            yield problem(f"{where}: {field}", got, repr(plain), "choose an adapter that is A and B alone")
    init = settings.get("init_lora_weights", True)
    if init not in SAME_BASE:
        advice = "convert it first: PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        yield problem(f"{where}: init_lora_weights", init, "an adapter of the unchanged base", advice)
    if others and settings.get("use_dora", False) is False:
        names = ", ".join(others[:SHOWN])
        yield f"{where}: got {len(others)} tensors beside lora_A and lora_B ({names}), expected none; choose another"
    if not shapes:
        yield f"{where}: got no lora_A and lora_B of a linear module, expected some; choose another"


def _scaling(settings: dict[str, Any], site: str) -> float:
    """Return lora_alpha / r of a site, or / sqrt(r) for rsLoRA, its patterns looked up as PEFT does."""
    alpha = _by_pattern(settings.get("alpha_pattern"), site, settings.get("lora_alpha", 8))
    rank = _by_pattern(settings.get("rank_pattern"), site, settings.get("r", 8))
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _by_pattern(patterns: dict[str, float] | None, site: str, default: float) -> float:
    """Look a site up among patterns, regular expressions of the end of a dotted path, the first that fits."""
    fitting = (value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", site))
    return next(fitting, default)
