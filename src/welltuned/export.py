"""Hand an adapter over: as a PEFT folder that any PEFT-aware server loads, or merged into the base.

Anchored methods leave as plain LoRA of rank 2r, [B0 | dB] [dA ; A] (ecosystem.md): the same function, no special
loader. Shape letters: I in, O out, R rank.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from welltuned import fingerprint, plugins
from welltuned.errors import InputError, problem
from welltuned.methods._method import Method, State
from welltuned.models import base as bases
from welltuned.models.base import Base
from welltuned.records import Config, Result
from welltuned.store import Store, blobs
from welltuned.train.checkpoint import load_adapter as read_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMS = ("peft", "merged")


def export(folder: Path | str, trial_id: str, destination: Path | str, form: str = "peft") -> Path:
    """Write a trial's adapter to `destination`, as a PEFT folder (form "peft") or as a merged model ("merged")."""
    if form not in FORMS:
        raise InputError(problem("form", form, f"one of {', '.join(FORMS)}", "choose one of these"))
    destination = Path(destination)
    if destination.exists() and any(destination.iterdir()):
        raise InputError(problem("destination", str(destination), "a new or empty folder", "name another one"))
    config, states = _adapter(Path(folder), trial_id)
    name = plugins.load("methods", config.method).parametrisation().name
    if form == "peft" and name not in ("low_rank", "anchored"):
        raise InputError(
            f"export: got method '{config.method}', which PEFT has no adapter class for, expected a low-rank one; "
            "use --form merged"
        )
    base = bases.load(config.base, config.revision, config.dtype, config.target_modules)
    destination.mkdir(parents=True, exist_ok=True)
    if form == "merged":
        merge(base, config, states).save_pretrained(destination)
    else:
        _write_peft(base, config, states, destination)
    base.tokenizer.save_pretrained(destination)
    return destination


def load(folder: Path | str, trial_id: str, destination: Path | str | None = None):
    """Return the base with a trial's adapter, ready to use: a `PeftModel`, or a merged model where PEFT has no class.

    With `destination` the PEFT folder is kept there.
    """
    from peft import PeftModel

    config, states = _adapter(Path(folder), trial_id)
    base = bases.load(config.base, config.revision, config.dtype, config.target_modules)
    if plugins.load("methods", config.method).parametrisation().name == "delta":
        return merge(base, config, states)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "adapter" if destination is None else Path(destination)
        place.mkdir(parents=True, exist_ok=True)
        _write_peft(base, config, states, place)
        return PeftModel.from_pretrained(base.model, place)


def merge(base: Base, config: Config, states: dict[str, State]) -> PreTrainedModel:
    """Add the adapter's change of each weight to the base, in place, and return the model."""
    method: Method = plugins.load("methods", config.method)
    with torch.no_grad():
        for site, state in states.items():
            weight_OI = base.weight(site)
            delta_OI = method.parametrisation().delta(state, config.scaling)
            weight_OI.copy_((weight_OI.to(delta_OI.dtype) + delta_OI).to(weight_OI.dtype))
    return base.model


def factors(state: State) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A [R, I] and B [O, R] of the plain LoRA that equals the state; anchors double R."""
    if "A" in state:
        return state["A"], state["B"]
    down = torch.cat([state["dA"], state["A0"] + state["dA"]], dim=0)
    up = torch.cat([state["B0"], state["dB"]], dim=1)
    return down, up


def _adapter(folder: Path, trial_id: str) -> tuple[Config, dict[str, State]]:
    with Store.open(folder) as store:
        results = store.results()
    result = _chosen(results, trial_id)
    if result.adapter is None:
        raise InputError(
            f"trial {result.trial_id}: got status {result.status} ({result.reason}), expected a finished one, "
            "which has an adapter; choose another (`welltuned show` lists them)"
        )
    trial, states = read_adapter(blobs.path(folder / "blobs", result.adapter))
    _check_base(trial.config)
    return trial.config, states


def _check_base(config: Config) -> None:
    """Raise InputError where the base's files are not those that the adapter was trained on."""
    found = fingerprint.base_hash(config.base, config.revision)
    if found != config.base_hash:
        expected = f"{config.base_hash[:12]}, the hash of what the adapter was trained on"
        raise InputError(problem(f"base '{config.base}'", found[:12], expected, "restore the base's files"))


def _chosen(results: tuple[Result, ...], trial_id: str) -> Result:
    """Return the trial whose id starts with `trial_id`."""
    found = {result.trial_id: result for result in results if result.trial_id.startswith(trial_id)}
    if len(found) != 1 or not trial_id:
        count = "no trial" if not found else f"{len(found)} trials"
        raise InputError(
            problem(
                "trial",
                trial_id,
                f"the id of one ended trial, but {count} of {len(results)} match",
                "see `welltuned show`",
            )
        )
    return next(iter(found.values()))


def _write_peft(base: Base, config: Config, states: dict[str, State], destination: Path) -> None:
    tensors: State = {}
    ranks: dict[str, int] = {}
    for site, state in states.items():
        down, up = factors(state)
        ranks[site] = down.shape[0]
        tensors[f"base_model.model.{site}.lora_A.weight"] = down.contiguous()
        tensors[f"base_model.model.{site}.lora_B.weight"] = up.contiguous()
    rank = max(ranks.values())
    others = {site: own for site, own in ranks.items() if own != rank}
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": _base_name(config),
        "revision": config.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": config.scaling * rank,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": any(isinstance(module, Conv1D) for module in base.sites.values()),
        "init_lora_weights": True,
        "target_modules": list(states),
        "rank_pattern": others,
        "alpha_pattern": {site: config.scaling * own for site, own in others.items()},
    }
    save_file(tensors, destination / "adapter_model.safetensors", {"format": "pt"})
    (destination / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _base_name(config: Config) -> str:
    """Return what PEFT can load the base by: the hub name, or the folder where the files are."""
    files = fingerprint.resolve_base(config.base, config.revision)
    return config.base if files.kind == "hub" else str(files.folder)
