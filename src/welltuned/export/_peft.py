"""A trial's state in the words of PEFT: settings and tensors of the class that has the same parametrisation.

Anchored methods leave as plain LoRA of rank 2r, [B0 | dB] [dA ; A]: the same function, no special loader. DoRA adds its
magnitudes; since PEFT takes the norm of W + s B A, that is the anchored W + s (B A - B0 A0), it is the same, too.
Shape letters: I in, O out, R rank.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from welltuned.adapter_folder import PREFIX, SETTINGS, WEIGHTS
from welltuned.errors import InputError
from welltuned.methods import boft, randlora
from welltuned.methods._method import State
from welltuned.models.base import Base

States = dict[str, State]
Shapes = dict[str, tuple[int, int]]  # site -> (O, I)
SAME_TURN = 1e-5  # largest error of an entry of a rotation, some roundings of float32; assumed
Written = tuple[dict[str, Any], dict[str, Tensor]]  # settings and tensors


def write(
    base: Base,
    name: str,
    states: States,
    scalings: dict[str, float],
    base_name: str,
    revision: str | None,
    folder: Path,
) -> None:
    """Write PEFT's two files for states of the parametrisation called `name`; `scalings` are the sites' multipliers."""
    turned = [site for site in states if isinstance(base.sites[site], Conv1D)]
    if name == "boft" and turned:
        got = f"a Conv1D, {turned[0]}"
        raise InputError(
            f"export: got {got}, expected linear modules, which are all that PEFT's BOFTConfig adapts; use --merged"
        )
    settings, tensors = WRITERS[name](states, scalings, {site: base.shape(site) for site in states})
    common: dict[str, Any] = {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "revision": revision,
        "inference_mode": True,
        "target_modules": list(states),
        "fan_in_fan_out": bool(turned),
    }
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / WEIGHTS, {"format": "pt"})
    (folder / SETTINGS).write_text(json.dumps(common | settings, indent=2) + "\n")


def factors(state: State) -> tuple[Tensor, Tensor]:
    """Return A [R, I] and B [O, R] of the plain LoRA that equals the state; anchors double R."""
    if "A" in state:
        return state["A"], state["B"]
    down = torch.cat([state["dA"], state["A0"] + state["dA"]], dim=0)
    up = torch.cat([state["B0"], state["dB"]], dim=1)
    return down, up


def _lora(states: States, scalings: dict[str, float], shapes: Shapes) -> Written:
    del shapes
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for site, state in states.items():
        down, up = factors(state)
        ranks[site] = down.shape[0]
        tensors[f"{PREFIX}{site}.lora_A.weight"] = down
        tensors[f"{PREFIX}{site}.lora_B.weight"] = up
    rank = max(ranks.values())
    scaling = next(scalings[site] for site in states if ranks[site] == rank)
    others = {site: own for site, own in ranks.items() if own != rank or scalings[site] != scaling}
    settings = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": scaling * rank,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "init_lora_weights": True,
        "rank_pattern": others,
        "alpha_pattern": {site: scalings[site] * own for site, own in others.items()},
    }
    return settings, tensors


def _dora(states: States, scalings: dict[str, float], shapes: Shapes) -> Written:
    settings, tensors = _lora(states, scalings, shapes)
    tensors |= {f"{PREFIX}{site}.lora_magnitude_vector": state["m"] for site, state in states.items()}
    return settings | {"use_dora": True}, tensors


def _vera(states: States, scalings: dict[str, float], shapes: Shapes) -> Written:
    """Return the shared factors, which every site cuts to its size, and each site's vectors b [O] and d [R]."""
    del scalings, shapes
    rank = _the_same({site: float(state["d"].shape[0]) for site, state in states.items()}, "rank", "VeraConfig")
    widest_RI = max((state["A"] for state in states.values()), key=lambda A_RI: A_RI.shape[1])
    tallest_OR = max((state["B"] for state in states.values()), key=lambda B_OR: B_OR.shape[0])
    tensors = {"base_model.vera_A": widest_RI, "base_model.vera_B": tallest_OR}
    for site, state in states.items():
        num_out, num_in = state["B"].shape[0], state["A"].shape[1]
        shared = torch.equal(state["A"], widest_RI[:, :num_in]) and torch.equal(state["B"], tallest_OR[:num_out])
        assert shared, f"{site}: VeRA's frozen factors are the first rows and columns of shared ones"
        tensors[f"{PREFIX}{site}.vera_lambda_b"] = state["b"]
        tensors[f"{PREFIX}{site}.vera_lambda_d"] = state["d"]
    settings = {"peft_type": "VERA", "r": int(rank), "vera_dropout": 0.0, "save_projection": True, "bias": "none"}
    return settings, tensors


def _gralora(states: States, scalings: dict[str, float], shapes: Shapes) -> Written:
    """Return PEFT's arrangement: for input block n, A_n [I/K, R]; for output block j, B_j [R, O/K]."""
    del shapes
    num_blocks = next(iter(states.values()))["A"].shape[0]
    ranks = {site: float(num_blocks * state["A"].shape[2]) for site, state in states.items()}
    rank = _the_same(ranks, "rank", "GraloraConfig")
    scaling = _the_same(scalings, "multiplier", "GraloraConfig")
    tensors: dict[str, Tensor] = {}
    for site, state in states.items():
        tensors[f"{PREFIX}{site}.gralora_A"] = state["A"].flatten(1, 2).mT
        tensors[f"{PREFIX}{site}.gralora_B"] = state["B"].mT.flatten(1, 2)
    settings = {"peft_type": "GRALORA", "r": int(rank), "hybrid_r": 0, "alpha": scaling * rank}
    return settings | {"gralora_k": num_blocks, "gralora_dropout": 0.0, "bias": "none"}, tensors


def _randlora(states: States, scalings: dict[str, float], shapes: Shapes) -> Written:
    """Return the shared factors at the sizes that PEFT gives them, and each site's vectors l [R, K] and g [K, M].

    PEFT writes the shared factors once more for every site; loading says that these are missing, and has them anyway.
    """
    rank = _the_same({site: float(state["l"].shape[0]) for site, state in states.items()}, "rank", "RandLoraConfig")
    scaling = _the_same(scalings, "multiplier", "RandLoraConfig")
    largest = [max(sizes) for sizes in zip(*shapes.values(), strict=True)]
    one = next(iter(states.values()))
    shared = {name: one[name].new_zeros(randlora.shape(name, largest[0], largest[1], int(rank))) for name in ("A", "B")}
    tensors: dict[str, Tensor] = {}
    for site, state in states.items():
        for name, whole in shared.items():
            whole[tuple(slice(size) for size in state[name].shape)] = state[name]
        tensors[f"{PREFIX}{site}.randlora_lambda"] = state["l"]
        tensors[f"{PREFIX}{site}.randlora_gamma"] = state["g"]
    tensors |= {"base_model.randlora_A": shared["A"][:, None], "base_model.randlora_B": shared["B"]}
    settings = {"peft_type": "RANDLORA", "r": int(rank), "randlora_alpha": scaling * rank, "randlora_dropout": 0.0}
    return settings | {"save_projection": True, "bias": "none"}, tensors


def _boft(states: States, scalings: dict[str, float], shapes: Shapes) -> Written:
    """Return BOFT of one factor with blocks twice as large, which two factors are; PEFT loads no more on a CPU."""
    del scalings, shapes
    sizes = {site: float(2 * state["R"].shape[-1]) for site, state in states.items()}
    size = int(_the_same(sizes, "block size", "BOFTConfig"))
    tensors: dict[str, Tensor] = {}
    for site, state in states.items():
        tensors[f"{PREFIX}{site}.boft_R"] = _one_factor(site, state["R"])[None]
        tensors[f"{PREFIX}{site}.boft_s"] = state["s"][:, None]
    settings = {"peft_type": "BOFT", "boft_block_size": size, "boft_block_num": 0, "boft_n_butterfly_factor": 1}
    return settings | {"boft_dropout": 0.0, "bias": "none"}, tensors


def _one_factor(site: str, R: Tensor) -> Tensor:
    """Return the skew S [P, 2b, 2b] whose Cayley transform is Q: (I + Q)^-1 (I - Q); a half turn has none."""
    E = boft.turns(R.double())
    one = torch.eye(E.shape[-1], dtype=E.dtype)
    S, _ = torch.linalg.solve_ex(2 * one + E, -E)
    S = S.to(R.dtype)
    again, _ = torch.linalg.solve_ex(one.to(S) + S, -2 * S, left=False)
    error = float((again - E).abs().max())
    if not error <= SAME_TURN:
        raise InputError(
            f"export: got a turn by half a circle at {site} (PEFT's form of it is off by {error:.1e}), expected one "
            "that a single Cayley transform has; use --merged"
        )
    return S


def _the_same(values: dict[str, float], what: str, name: str) -> float:
    """Return the one value that all sites have; InputError where PEFT's class has no way to say more."""
    if len(set(values.values())) > 1:
        got = ", ".join(f"{value:g}" for value in sorted(set(values.values())))
        raise InputError(f"export: got {what}s {got}, expected one for all sites, as PEFT's {name} has; use --merged")
    return next(iter(values.values()))


WRITERS: dict[str, Callable[[States, dict[str, float], Shapes], Written]] = {
    "low_rank": _lora,
    "anchored": _lora,
    "dora": _dora,
    "dora_anchored": _dora,
    "vera": _vera,
    "gralora": _gralora,
    "randlora": _randlora,
    "boft": _boft,
}
