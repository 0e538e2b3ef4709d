"""The start of a trial that goes on from an adapter folder: the folder's tensors instead of the method's own.

`plan` has checked that sites, ranks and multiplier fit (adapter_folder.py). Adam's moments begin at zero, as they do in
every trial, unless the trial is the rest of an exported one (`start_step`), whose moments are then in its folder.
Shape letters: I in, O out, R rank.
"""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file

from welltuned import adapter_folder
from welltuned.errors import InputError, problem
from welltuned.methods._method import State
from welltuned.packing import adapter_file
from welltuned.packing.adapter_file import Moments
from welltuned.records import Config, Trial


def starts(trials: Sequence[Trial], states: Sequence[dict[str, State]]) -> list[dict[str, State]]:
    """Return the trials' states at step 0, of those that go on from a folder what it holds."""
    return [
        state if trial.config.start_from is None else _from_folder(trial.config, state)
        for trial, state in zip(trials, states, strict=True)
    ]


def moments(config: Config) -> Moments:
    """Return the moments that the exported trial's optimizer left in the folder."""
    return adapter_file.load_moments(Path(str(config.start_from)).expanduser() / adapter_folder.OWN)


def _from_folder(config: Config, states: dict[str, State]) -> dict[str, State]:
    """Return the folder's A [R, I] and B [O, R], or an exported trial's tensors, in the dtype of the method's own."""
    folder = str(config.start_from)
    if adapter_folder.content_hash(folder) != config.start_hash:
        expected = f"the adapter whose hash is {config.start_hash[:12]}"
        raise InputError(problem("train.start_from", folder, expected, "put back the files that the study began with"))
    adapter = adapter_folder.read(folder)
    if adapter.own is None:
        tensors = load_file(adapter.path / adapter_folder.WEIGHTS)
        prefix = adapter_folder.PREFIX
        found = {
            site: {name: tensors[f"{prefix}{site}.lora_{name}.weight"] for name in states[site]} for site in states
        }
    else:
        _, found = adapter_file.load(adapter.path / adapter_folder.OWN)
    return {
        site: {name: found[site][name].to(tensor) for name, tensor in state.items()} for site, state in states.items()
    }
