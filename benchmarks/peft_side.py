"""What `transformers.Trainer` and the bare loop share: the same base, adapters, rows and order, in PEFT's terms."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import peft
import torch
import transformers
from peft.tuners.lora import Linear as LoraLinear
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel

from benchmarks.records import Setting
from welltuned import fingerprint, plugins, rng
from welltuned.data import Rows
from welltuned.models.base import DTYPES
from welltuned.records import Config
from welltuned.train.cursor import batches

IGNORED = -100  # the label that no loss is computed for

Example = dict[str, list[int]]
Collator = Callable[[list[Example]], Any]  # a dict of tensors


def load_model(config: Config, setting: Setting) -> PreTrainedModel:
    """Load the base as transformers does, frozen."""
    files = fingerprint.resolve_base(config.base, config.revision)
    options: dict = {"dtype": DTYPES[setting.dtype], "attn_implementation": setting.attention}
    if files.gguf is not None:
        options |= {"gguf_file": files.gguf, "quantization_config": GgufConfig(dequantize=True)}
    transformers.logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(files.folder, local_files_only=True, **options)
    return model.requires_grad_(False)


def with_adapter(model: PreTrainedModel, config: Config) -> peft.PeftModel:
    """Wrap the model in a LoRA adapter that starts where welltuned's trial starts."""
    if config.method != "lora":
        raise ValueError(f"method: got '{config.method}', expected 'lora', the one that PEFT is compared on")
    modules = config.target_modules[0] if config.target_modules == ("all-linear",) else list(config.target_modules)
    wrapped = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.scaling * config.rank,  # pyright: ignore[reportArgumentType] (may be a float)
            target_modules=modules,
            lora_dropout=config.dropout,
        ),
    )
    init = plugins.load("methods", config.method).init
    for site, layer in adapted(wrapped):
        weight_OI = layer.get_submodule("base_layer").get_parameter("weight")
        generator = torch.Generator().manual_seed(rng.seed_of(config.study_seed, "init", config.init_seed, site))
        state = init(weight_OI, None, config.rank, config.scaling, generator)
        with torch.no_grad():
            layer.lora_A["default"].get_parameter("weight").copy_(state["A"])
    return wrapped


def adapted(wrapped: peft.PeftModel) -> Iterator[tuple[str, LoraLinear]]:
    """Yield the adapted layers with the names of their sites."""
    for name, module in wrapped.named_modules():
        if isinstance(module, LoraLinear):
            yield name.removeprefix("base_model.model."), module


def ordered_batches(config: Config, rows: Rows) -> list[list[Example]]:
    """Return the batches in the order in which welltuned reads them, labels on the completion only."""
    found = [[_example(rows, int(row)) for row in batch] for batch in batches(config, len(rows.token_ids))]
    sizes = {len(batch) for batch in found}
    if sizes != {config.batch_size}:
        raise ValueError(f"batches: got sizes {sorted(sizes)}, expected {config.batch_size} only; change the samples")
    return found


def _example(rows: Rows, row: int) -> Example:
    ids, prompt = rows.token_ids[row].tolist(), int(rows.prompt_lengths[row])
    return {"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]}


def collator(setting: Setting) -> Collator:
    """Return what makes tensors of a batch: rows padded to the longest, or concatenated."""
    return transformers.DataCollatorWithFlattening() if setting.padding_free else padded


def padded(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Pad the rows of a batch on the right."""
    longest = max(len(example["input_ids"]) for example in examples)
    parts: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "attention_mask": []}
    for example in examples:
        ids, labels = example["input_ids"], example["labels"]
        rest = longest - len(ids)
        parts["input_ids"].append(ids + [0] * rest)
        parts["labels"].append(labels + [IGNORED] * rest)
        parts["attention_mask"].append([1] * len(ids) + [0] * rest)
    return {name: torch.tensor(values) for name, values in parts.items()}


def num_slots(examples: Sequence[Sequence[Example]], setting: Setting) -> int:
    """Count the token slots that the model computes for these batches."""
    lengths = [[len(example["input_ids"]) for example in batch] for batch in examples]
    return sum(sum(batch) if setting.padding_free else len(batch) * max(batch) for batch in lengths)
