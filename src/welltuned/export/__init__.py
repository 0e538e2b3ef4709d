"""Hand an adapter over: as a PEFT folder that any PEFT-aware server loads, or merged into the base; with a model card.

A PEFT folder also has `welltuned.safetensors`, which PEFT ignores: the trial's own tensors, anchors included, and the
optimizer's moments where the study kept them, from which a study can go on exactly (`start_from`, `start_step`).
Shape letters: I in, O out.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from welltuned import fingerprint, plugins
from welltuned.adapter_folder import OWN
from welltuned.errors import InputError
from welltuned.export import _card, _peft, _place, _trials
from welltuned.export._agreement import Agreement, Witness
from welltuned.methods._method import Parametrisation, State
from welltuned.models import base as bases
from welltuned.models.base import Base
from welltuned.packing import adapter_file
from welltuned.packing.state import site_scaling
from welltuned.records import Config, Result, Trial
from welltuned.store import blobs
from welltuned.study import Study

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Agreement", "Exported", "export", "load", "merge"]


@dataclass(frozen=True)
class Exported:
    """What was written, and where; `agreement` is of a merged model with what it was merged from."""

    trial_id: str
    folder: Path
    form: str  # "peft" | "merged"
    agreement: Agreement | None = None


@dataclass(frozen=True)
class _Found:
    """A trial of a study with its adapter."""

    result: Result
    results: tuple[Result, ...]
    trial: Trial
    states: dict[str, State]
    blob: Path
    num_steps: int | None  # where the blob has the optimizer's moments


def export(
    study: Path | str, trial_id: str, destination: Path | str, merged: bool = False, force: bool = False
) -> Exported:
    """Write a trial's adapter to `destination`, as a PEFT folder or merged into the base model, with a model card.

    `force` replaces an earlier export that is there.
    """
    found = _adapter(Path(study), trial_id)
    config = found.trial.config
    destination = _place.checked(Path(destination), force, _place.needed(config))
    if not merged:
        _check_class(config)
    base = _load(config)
    form = "merged" if merged else "peft"
    agreement = _merged(base, found) if merged else None
    notes = _notes(found, agreement)
    card = _card.text(found.result, found.results, Study(study).declaration(), form, notes)

    def write(folder: Path) -> None:
        if merged:
            base.model.save_pretrained(folder)
        else:
            _write_peft(base, found.trial, found.states, folder)
            shutil.copyfile(found.blob, folder / OWN)
        base.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")

    return Exported(found.result.trial_id, _place.written(destination, write), form, agreement)


def load(study: Path | str, trial_id: str, destination: Path | str | None = None):
    """Return the base with a trial's adapter, ready to use: a `PeftModel`, or a merged model where PEFT has no class.

    With `destination` the PEFT folder is kept there.
    """
    from peft import PeftModel

    found = _adapter(Path(study), trial_id)
    config = found.trial.config
    base = _load(config)
    base.make_dense()  # PEFT knows no layer of ours
    if _parametrisation(config).name not in _peft.WRITERS:
        return merge(base, found.trial, found.states)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "adapter" if destination is None else Path(destination)
        place.mkdir(parents=True, exist_ok=True)
        _write_peft(base, found.trial, found.states, place)
        return PeftModel.from_pretrained(base.model, place)


def merge(base: Base, trial: Trial, states: dict[str, State]) -> PreTrainedModel:
    """Add the adapter's change of each weight to the base, in place, and return the model.

    Of a base in 8 bits these are the weights that the adapter was trained on, not those in the base's files.
    """
    base.make_dense()
    with torch.no_grad():
        for name, state in states.items():
            weight, delta = _change(base, trial, name, state)
            weight.copy_((weight.to(delta.dtype) + delta).to(weight.dtype))
    return base.model


def _change(base: Base, trial: Trial, name: str, state: State) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight of the base and its change: of a site, or of any parameter where all are trained."""
    parametrisation = _parametrisation(trial.config)
    if parametrisation.whole:
        (delta,) = state.values()
        return base.parameters[name].parameter, delta
    weight_OI = base.weight(name)
    return weight_OI, parametrisation.delta(state, site_scaling(trial, name), weight_OI)


def _load(config: Config) -> Base:
    """Load the base as the trial saw it."""
    arguments = (config.base, config.revision, config.dtype, config.target_modules)
    return bases.load(*arguments, quantization=config.quantization)


def _merged(base: Base, found: _Found) -> Agreement:
    """Merge, and say how the merged model agrees with base and adapter."""
    witness = Witness(base, found.trial, found.states)
    merge(base, found.trial, found.states)
    return witness.compare(base)


def _notes(found: _Found, agreement: Agreement | None) -> list[str]:
    if agreement is None:
        own = f"`{OWN}` has the trial's own tensors; PEFT ignores it, and a study goes on from it with `start_from`."
        if found.num_steps is not None:
            own += f" It has the optimizer's moments, too: `start_step = {found.num_steps}` is the rest of this trial."
        anchored = "Its rank is twice the trial's: the second half is the method's start, subtracted."
        is_anchored = "anchored" in _parametrisation(found.trial.config).name
        return [own, anchored] if is_anchored else [own]
    return [agreement.text()]


def _parametrisation(config: Config) -> Parametrisation:
    return plugins.load("methods", config.method).parametrisation()


def _check_class(config: Config) -> None:
    """Raise InputError where PEFT has no class for what the trial trained."""
    if _parametrisation(config).name not in _peft.WRITERS:
        raise InputError(
            f"export: got method '{config.method}', for which PEFT has no adapter class, expected one that leaves as "
            f"{', '.join(sorted(_peft.WRITERS))}; use --merged"
        )


def _write_peft(base: Base, trial: Trial, states: dict[str, State], folder: Path) -> None:
    config = trial.config
    scalings = {site: site_scaling(trial, site) for site in states}
    _peft.write(base, _parametrisation(config).name, states, scalings, _base_name(config), config.revision, folder)


def _adapter(folder: Path, trial_id: str) -> _Found:
    results = Study(folder).results()
    result = _trials.chosen(results, trial_id)
    if result.adapter is None:
        raise InputError(
            f"trial {result.trial_id}: got status {result.status} ({result.reason}), expected a finished one, "
            "which has an adapter; choose another (`welltuned show` lists them)"
        )
    blob = blobs.path(folder / "blobs", result.adapter)
    trial, states = adapter_file.load(blob)
    config = trial.config
    fingerprint.check_base(config.base, config.revision, config.base_hash)
    return _Found(result, results, trial, states, blob, adapter_file.num_steps(blob))


def _base_name(config: Config) -> str:
    """Return what PEFT can load the base by: the hub name, or the folder where the files are."""
    files = fingerprint.resolve_base(config.base, config.revision)
    return config.base if files.kind == "hub" else str(files.folder)
