"""A frozen base model, ready to be adapted: its sites, its decoder, its head and its tokenizer.

The weights are read-only for everybody (design D1), and may be held in 8 bits (quantised.py). Works with any dense
causal language model of transformers, from a local folder, the hub (pinned revision) or a GGUF file.
Shape letters: O out, I in, H hidden, V vocabulary, R rows, T tokens, K chosen positions.
"""

import copy
import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel

from welltuned import fingerprint
from welltuned.errors import InputError
from welltuned.models import quantised, unpadded
from welltuned.models import sites as site_rules
from welltuned.models.attention import best_attention
from welltuned.models.parameters import Placed, placed

# What transformers raises on files that it cannot read, by mistake or on purpose.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, ArithmeticError, SafetensorError, StrictDataclassError)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # by safetensors' names


@dataclass
class Base:
    """A frozen causal language model, with its linear sites by name."""

    model: PreTrainedModel
    tokenizer: Any
    sites: Mapping[str, nn.Module]
    decoder: nn.Module
    head: Callable[[Tensor], Tensor]  # features [K, F] -> logits [K, V]
    head_is_split: bool  # False: the model scales or caps its logits, so its features are the logits themselves
    dtype: torch.dtype
    device: torch.device
    reads_lines: bool = False  # rows one behind the other, unpadded.py
    parents: dict[str, tuple[nn.Module, str]] = field(default_factory=dict)
    parameters: dict[str, Placed] = field(default_factory=dict)  # all of the model's, by name; tied ones once

    def weight(self, site: str) -> Tensor:
        """Return the site's frozen weight, [O, I]."""
        return quantised.weight_of(self.sites[site])

    def make_dense(self) -> None:
        """Hold weights that are in 8 bits densely, so that they can be changed."""
        quantised.make_dense(self.model)
        self.sites = {site: self.model.get_submodule(site) for site in self.sites}

    def features(self, ids_RT: Tensor, position_RT: Tensor | None = None) -> Tensor:
        """Return what the head maps to logits, [R, T, F]: hidden states, or the logits where the head is not split.

        `position_RT` is given for lines that hold several rows (unpadded.py).
        """
        inputs = {"input_ids": ids_RT, "use_cache": False}
        if position_RT is not None:
            inputs["position_ids"] = position_RT
        return self.decoder(**inputs).last_hidden_state if self.head_is_split else self.model(**inputs).logits

    @property
    def max_positions(self) -> int | None:
        """Return the number of positions the model was made for, or None where it names none."""
        settings = self.model.config.get_text_config().to_dict()
        return settings.get("max_position_embeddings") or settings.get("n_positions")

    @property
    def vocab_size(self) -> int:
        """Return V, the size of the logits."""
        return self.model.config.get_text_config().vocab_size

    def shape(self, site: str) -> tuple[int, int]:
        """Return (O, I) of the site."""
        return quantised.shape_of(self.sites[site])

    def parent(self, site: str) -> tuple[nn.Module, str]:
        """Return the module that holds the site, and the site's name in it."""
        return self.parents[site]

    def twin(self) -> "Base":
        """Return a base with modules of its own on the same weights, for another thread to call at the same time.

        Small buffers are copied, since a forward pass may write them: frequencies that follow from the length of rows.
        Its sites, by which weights are read, are this base's.
        """
        large = (buffer for buffer in self.model.buffers() if buffer.dim() > 1)
        tensors = itertools.chain(self.model.parameters(), large)
        model = copy.deepcopy(self.model, {id(tensor): tensor for tensor in tensors})
        parents = {
            site: (model.get_submodule(site.rpartition(".")[0]), name) for site, (_, name) in self.parents.items()
        }
        return dataclasses.replace(self, model=model, decoder=model.get_decoder(), parents=parents)

    def in_place(self, site: str) -> nn.Module:
        """Return the module that is called at the site: its own, or what has taken its place."""
        parent, name = self.parent(site)
        return parent.get_submodule(name)


def load(
    name: str,
    revision: str | None,
    dtype: str,
    target_modules: tuple[str, ...],
    device: str = "cpu",
    quantization: str = "none",
) -> Base:
    """Load a base, freeze it, and find its sites; InputError says what is wrong with a model or with names of sites."""
    files = fingerprint.resolve_base(name, revision)
    torch_dtype = DTYPES[dtype]
    transformers.logging.disable_progress_bar()  # its bars would write across the study's own
    options: dict = {"dtype": torch_dtype, "attn_implementation": best_attention(torch_dtype, device)}
    if files.gguf is not None:
        options |= {"gguf_file": files.gguf, "quantization_config": GgufConfig(dequantize=True)}
    with _Loading(name, "causal language model", "config.json and weights"):
        model = _read(files.folder, options)
    tokenizer = load_tokenizer(name, revision)
    if quantization == "int8":  # before the device has to hold it
        quantised.hold(model, site_rules.linear_modules(model))
    nn.Module.to(model, torch.device(device)).eval()  # never a dtype: it would round rotary frequencies, too
    model.requires_grad_(False)
    return adapt(model, tokenizer, target_modules)


def _read(folder: Path, options: dict[str, Any]) -> PreTrainedModel:
    """Read a model; one whose code knows no fused attention (Gemma 2, BLOOM, GPT-J) runs with its own."""
    try:
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
    if options["dtype"] == torch.float64:  # it rounds to float32, where float64's mask is infinite: NaN, then token 0
        raise ValueError("its attention does not compute in float64; set dtype to float32 or bfloat16")
    return AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, **options | {"attn_implementation": "eager"}
    )


def load_tokenizer(name: str, revision: str | None):
    """Load the base's tokenizer alone."""
    files = fingerprint.resolve_base(name, revision)
    extra = {"gguf_file": files.gguf} if files.gguf is not None else {}
    with _Loading(name, "tokenizer", "tokenizer.json and tokenizer_config.json"):
        return AutoTokenizer.from_pretrained(files.folder, local_files_only=True, **extra)


def skeleton(name: str, revision: str | None, target_modules: tuple[str, ...]) -> Base:
    """Return the base with shapes but no numbers (meta device), for planning."""
    files = fingerprint.resolve_base(name, revision)
    if files.gguf is not None:
        return load(name, revision, "float32", target_modules)  # a GGUF file has no config of its own to read
    with _Loading(name, "causal language model", "config.json"), torch.device("meta"):
        config = AutoConfig.from_pretrained(files.folder, local_files_only=True)
        model = AutoModelForCausalLM.from_config(config)
    model.requires_grad_(False)
    return adapt(model, None, target_modules)


def stored_dtype(name: str, revision: str | None) -> str | None:
    """Return the dtype that most of a base's numbers have in its safetensors files; None for a GGUF file or another.

    It says what reading them takes: of their own dtype they are not copied.
    """
    files = fingerprint.resolve_base(name, revision)
    if files.gguf is not None:
        return None
    numbers: Counter[str] = Counter()
    with _Loading(name, "causal language model", "safetensors files"):
        for path in _weights(files.folder):
            with safe_open(path, framework="pt") as file:
                parts = [file.get_slice(key) for key in file.keys()]  # noqa: SIM118 (it is no dictionary)
                for part in parts:
                    numbers[part.get_dtype()] += math.prod(part.get_shape())
    return STORED.get(max(numbers, key=lambda dtype: numbers[dtype], default=""))


def _weights(folder: Path) -> list[Path]:
    """Return the files that transformers reads: others may lie beside them."""
    whole_file, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole_file.is_file():
        return [whole_file]
    parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else []
    return [folder / name for name in sorted(set(parts))]


def adapt(model: PreTrainedModel, tokenizer: Any, target_modules: tuple[str, ...]) -> Base:
    """Find the sites, the decoder and the head of a frozen model."""
    sites = site_rules.find(model, target_modules)
    head_module = model.get_output_embeddings()
    assert head_module is not None, "a causal language model has an output head"
    decoder = model.get_decoder()
    parameter = next(model.parameters())
    base = Base(model, tokenizer, sites, decoder, head_module, True, parameter.dtype, parameter.device)
    base.parameters |= placed(model)
    for site in sites:
        parent, _, name = site.rpartition(".")
        base.parents[site] = (model.get_submodule(parent), name)
    if parameter.device.type != "meta":
        base.head_is_split = _head_is_plain(model, decoder, head_module)
        if not base.head_is_split:
            base.head = nn.Identity()
        base.reads_lines = unpadded.reads_lines(model, decoder)
    return base


def _head_is_plain(model: PreTrainedModel, decoder: nn.Module, head: nn.Module) -> bool:
    """Say whether the head applied to the decoder's output is bit for bit the model's logits (no cap, no scale)."""
    vocab_size = model.config.get_text_config().vocab_size
    ids_RT = torch.arange(8, device=model.device).view(1, 8) % vocab_size
    with torch.no_grad():
        whole = model(input_ids=ids_RT, use_cache=False).logits
        split = head(decoder(input_ids=ids_RT, use_cache=False).last_hidden_state)
    return torch.equal(whole, split)


class _Loading:
    """Turns what transformers says of a base's files that it cannot read into one line."""

    def __init__(self, name: str, what: str, files: str) -> None:
        self.name, self.what, self.files = name, what, files

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The tokenizers library raises Exception itself; all other classes are named above.
        if error is not None and (kind is Exception or isinstance(error, UNREADABLE)):
            raise InputError(
                f"model.base: got '{self.name}', expected a {self.what} that transformers can load, but it says: "
                f"{_first_line(error)}; check the folder's {self.files}"
            ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
