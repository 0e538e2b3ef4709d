"""A trial's configuration in the words of other trainers: TRL, Axolotl and LLaMA-Factory, with the rows it trained on.

Each file trains the same method on the same rows, at the same rank, scaling, learning rate, effective batch size,
schedule and decay. What is left to the trainer: the order of the rows, the precision of its kernels, the start-of-text
tokens of its tokenisation, and at which end LLaMA-Factory cuts a row that is too long. Where a trainer has no name for
something that the trial used, no file is written for it, and the reason is said; a file that trains something else
would be worse than none.

All three train the end-of-text token, as welltuned does: TRL appends it to a completion (add_eos in its SFTTrainer) and
Axolotl to an instruction's output (_tokenize of its prompt_tokenizers); LLaMA-Factory's template "empty" adds none
(read in its data/template.py), so its own rows file has the token's text, which its tokenizer reads as that token
(split_special_tokens is off by default).

Names of settings: TRL 1.16 (checked against its classes in the tests), Axolotl's and LLaMA-Factory's documentation.
"""

import ast
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from welltuned import data, fingerprint, plugins
from welltuned import plan as plans
from welltuned.costs import flops
from welltuned.data.templates import render
from welltuned.errors import InputError
from welltuned.export import _place, _trials
from welltuned.models import base as bases
from welltuned.records import Config, Site
from welltuned.study import Study
from welltuned.train.schedule import num_warmup_steps

ROWS = "train.jsonl"
ROWS_WITH_END = "train_with_end.jsonl"  # LLaMA-Factory's: the same rows, each with the text of the end-of-text token
MOST_MICRO_ROWS = 8  # per device: assumed, to be raised or lowered by whoever trains; the product stays the batch size
SCHEDULES = {"cosine_with_floor": "cosine_with_min_lr"}  # others are called alike

Fields = dict[str, Any]


@dataclass(frozen=True)
class Written:
    """The folder, the files in it, and for each trainer without one why."""

    folder: Path
    files: tuple[str, ...]
    left_out: dict[str, str]


class _CannotSay(Exception):
    """A trainer has no setting for something that the trial used."""


def write(study: Path | str, trial_id: str, destination: Path | str, force: bool = False) -> Written:
    """Write the files of one trial of a study to a new folder."""
    config = _trials.chosen(Study(study).results(), trial_id).config
    surveys = {survey.config_key: survey for survey in Study(study).declaration().surveys}
    return write_config(config, surveys[plans.survey_key(config)].sites, destination, force)


def write_config(config: Config, sites: tuple[Site, ...], destination: Path | str, force: bool = False) -> Written:
    """Write the files of a configuration; InputError where no trainer can say it."""
    destination = _place.checked(Path(destination), force, _place.needed(config))
    texts: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, make in TRAINERS.items():
        try:
            texts[f"{name}.yaml"] = _head(name, config) + yaml.safe_dump(make(config, sites), sort_keys=False)
        except _CannotSay as reason:
            left_out[name] = str(reason)
    if not texts:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InputError(
            f"export: got a configuration that no other trainer has words for ({reasons}), expected one that TRL, "
            "Axolotl or LLaMA-Factory can train; leave out --settings, which exports the adapter"
        )
    trained = rows(config)
    if "llama_factory.yaml" in texts:
        texts["dataset_info.json"] = json.dumps(_dataset_info(), indent=2) + "\n"
        texts[ROWS_WITH_END] = _lines([row | {"completion": row["completion"] + _end(config)} for row in trained])
    if {"trl.yaml", "axolotl.yaml"} & set(texts):
        texts[ROWS] = _lines(trained)

    def fill(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    return Written(_place.written(destination, fill), tuple(texts), left_out)


def rows(config: Config) -> list[dict[str, str]]:
    """Return the rows that a configuration trains on as prompt and completion, its template around the prompt.

    They are chosen among those that are left after tokenising, as in training, which drops rows without a completion.
    """
    examples = data.load(config, bases.load_tokenizer(config.base, config.revision), ("train",))["train"].examples
    chosen = data.subset(config, len(examples))
    rendered = (render(config.prompt_template, examples[place]) for place in chosen)
    return [{"prompt": prompt, "completion": completion} for prompt, completion in rendered]


def _lines(found: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


def _end(config: Config) -> str:
    """Return the text that the base's tokenizer reads as its end-of-text token."""
    tokenizer = bases.load_tokenizer(config.base, config.revision)
    end = tokenizer.eos_token
    if tokenizer(end, add_special_tokens=False)["input_ids"] != [tokenizer.eos_token_id]:
        raise _CannotSay(f"its template trains no end-of-text token, and the tokenizer does not read {end!r} as one")
    return end


def _trl(config: Config, sites: tuple[Site, ...]) -> Fields:
    starts = _starts(config)
    if starts.get("init_lora_weights", True) is not True:
        raise _CannotSay(f"its command line has no init_lora_weights={starts['init_lora_weights']!r}")
    if config.loraplus_lr_ratio != 1:
        raise _CannotSay("its command line has no LoRA+")
    return {
        "model_name_or_path": _base(config),
        **({"model_revision": config.revision} if config.revision else {}),
        "dtype": config.dtype,
        "datasets": [{"path": "json", "data_files": ROWS}],
        "completion_only_loss": True,
        "max_length": config.max_length,
        "packing": False,
        "use_peft": True,
        "lora_r": config.rank,
        "lora_alpha": _whole_alpha(config),
        "lora_dropout": config.dropout,
        "lora_target_modules": _targets(config, sites),
        "use_dora": bool(starts.get("use_dora", False)),
        **_steps(config),
        **_schedule(config),
        **_adam(config),
        "bf16": config.dtype == "bfloat16",
        "seed": config.init_seed,
        "data_seed": config.order_seed,
        "output_dir": "trained",
    }


def _axolotl(config: Config, sites: tuple[Site, ...]) -> Fields:
    starts, steps, schedule = _starts(config), _steps(config), _schedule(config)
    kind: Fields = {"field_instruction": "prompt", "field_output": "completion"}
    kind |= {"format": "{instruction}", "no_input_format": "{instruction}"}
    floor = {"cosine_min_lr_ratio": config.lr_floor} if config.lr_scheduler_type == "cosine_with_floor" else {}
    return {
        "base_model": _base(config),
        **({"revision_of_model": config.revision} if config.revision else {}),
        "datasets": [{"path": ROWS, "ds_type": "json", "type": kind}],
        "train_on_inputs": False,
        "sequence_len": config.max_length,
        "excess_length_strategy": "truncate",  # by default it drops longer rows
        "sample_packing": False,
        "val_set_size": 0,
        "adapter": "lora",
        "lora_r": config.rank,
        "lora_alpha": _whole_alpha(config),
        "lora_dropout": config.dropout,
        "lora_target_modules": _targets(config, sites),
        **({"peft_use_dora": True} if starts.get("use_dora") else {}),
        **({"peft_init_lora_weights": starts["init_lora_weights"]} if "init_lora_weights" in starts else {}),
        **({"loraplus_lr_ratio": config.loraplus_lr_ratio} if config.loraplus_lr_ratio != 1 else {}),
        "micro_batch_size": steps["per_device_train_batch_size"],
        "gradient_accumulation_steps": steps["gradient_accumulation_steps"],
        **({"max_steps": config.max_steps} if config.max_steps else {"num_epochs": config.num_train_epochs}),
        "learning_rate": config.learning_rate,
        "lr_scheduler": "cosine" if floor else schedule["lr_scheduler_type"],
        **floor,
        "warmup_steps": schedule["warmup_steps"],
        "optimizer": "adamw_torch",
        **{name: value for name, value in _adam(config).items() if name != "optim"},
        "bf16": config.dtype == "bfloat16",
        "seed": config.init_seed,
        "output_dir": "trained",
    }


def _llama_factory(config: Config, sites: tuple[Site, ...]) -> Fields:
    starts = _starts(config)
    _end(config)
    start = starts.get("init_lora_weights", True)
    pissa: Fields = {}
    if start == "pissa":
        pissa = {"pissa_init": True, "pissa_iter": -1}  # -1: the exact decomposition
    elif isinstance(start, str) and start.startswith("pissa_niter_"):
        pissa = {"pissa_init": True, "pissa_iter": int(start.rpartition("_")[2])}
    elif start is not True:
        raise _CannotSay(f"it has no init_lora_weights={start!r}")
    return {
        "model_name_or_path": _base(config),
        **({"model_revision": config.revision} if config.revision else {}),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "dataset_dir": ".",
        "dataset": "welltuned_rows",
        "template": "empty",
        "cutoff_len": config.max_length,
        "packing": False,
        "lora_rank": config.rank,
        "lora_alpha": _whole_alpha(config),
        "lora_dropout": config.dropout,
        "lora_target": ",".join(_targets(config, sites)),
        "use_dora": bool(starts.get("use_dora", False)),
        **pissa,
        **({"loraplus_lr_ratio": config.loraplus_lr_ratio} if config.loraplus_lr_ratio != 1 else {}),
        **_steps(config),
        **_schedule(config),
        **_adam(config),
        "bf16": config.dtype == "bfloat16",
        "seed": config.init_seed,
        "output_dir": "trained",
    }


TRAINERS: dict[str, Callable[[Config, tuple[Site, ...]], Fields]] = {
    "trl": _trl,
    "axolotl": _axolotl,
    "llama_factory": _llama_factory,
}
COMMANDS = {
    "trl": "trl sft --config trl.yaml",
    "axolotl": "axolotl train axolotl.yaml",
    "llama_factory": "llamafactory-cli train llama_factory.yaml",
}


def _head(name: str, config: Config) -> str:
    return (
        f"# {COMMANDS[name]}   (in this folder)\n"
        f"{_place.SETTINGS_MARK} {config.id()}: effective batch size {config.batch_size} on one device; on several,\n"
        "# divide gradient_accumulation_steps by their number. Their product is what matters.\n"
    )


def _starts(config: Config) -> dict[str, Any]:
    """Return the arguments of PEFT's LoraConfig that the method's start and parametrisation are."""
    if config.start_from is not None:
        raise _CannotSay("the trial goes on from an adapter")
    if config.rank_pattern or config.alpha_pattern:
        raise _CannotSay("it has no rank_pattern or alpha_pattern")
    call = plugins.load("methods", config.method).peft
    tree = ast.parse(call or "None", mode="eval").body
    if not isinstance(tree, ast.Call) or ast.unparse(tree.func) != "LoraConfig":
        raise _CannotSay(f"method '{config.method}' is no LoraConfig of PEFT's")
    try:
        found = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except ValueError:
        raise _CannotSay(f"it has no settings for {call}") from None
    if found.get("init_lora_weights") in ("lora_ga", "eva"):
        raise _CannotSay(f"the start of '{config.method}' needs the data, which its configuration cannot name")
    return found


def _base(config: Config) -> str:
    if config.quantization != "none":  # load_in_8bit of bitsandbytes rounds what is multiplied, too
        raise _CannotSay("it does not hold the base in 8 bits as welltuned does, by one scale for each row of a weight")
    files = fingerprint.resolve_base(config.base, config.revision)
    if files.kind == "gguf":
        raise _CannotSay("it does not train on a GGUF file")
    return config.base if files.kind == "hub" else str(files.folder)


def _whole_alpha(config: Config) -> int:
    alpha = config.scaling * config.rank
    if not math.isclose(alpha, round(alpha), rel_tol=1e-9) or round(alpha) < 1:
        raise _CannotSay(f"its lora_alpha is a whole number, and this one is {alpha:g}")
    return round(alpha)


def _targets(config: Config, sites: tuple[Site, ...]) -> list[str]:
    """Return the adapted modules by the last part of their names, which is what all three trainers take."""
    names = config.target_modules
    return sorted({site.name.rpartition(".")[2] for site in sites}) if names == ("all-linear",) else list(names)


def _steps(config: Config) -> Fields:
    """Return micro-batch and accumulation, whose product is the effective batch size."""
    micro = max(size for size in range(1, MOST_MICRO_ROWS + 1) if config.batch_size % size == 0)
    length = {"max_steps": config.max_steps} if config.max_steps else {"num_train_epochs": config.num_train_epochs}
    return {
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // micro,
        **length,
    }


def _schedule(config: Config) -> Fields:
    warmup = num_warmup_steps(config, flops.num_steps(config))
    name = SCHEDULES.get(config.lr_scheduler_type, config.lr_scheduler_type)
    if name == "constant" and warmup:
        name = "constant_with_warmup"
    floor = {"lr_scheduler_kwargs": {"min_lr_rate": config.lr_floor}} if name == "cosine_with_min_lr" else {}
    return {"learning_rate": config.learning_rate, "lr_scheduler_type": name, **floor, "warmup_steps": warmup}


def _adam(config: Config) -> Fields:
    if config.optimizer != "adamw":
        raise _CannotSay(f"welltuned's {config.optimizer} is not theirs")
    share = config.batch_size / config.beta2_batch_size if config.beta2_batch_size else 1
    return {
        "optim": "adamw_torch",
        "adam_beta1": config.beta1,
        "adam_beta2": config.beta2**share,
        "adam_epsilon": config.epsilon,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm or 0.0,  # 0: no clipping, in all three
    }


def _dataset_info() -> Fields:
    return {"welltuned_rows": {"file_name": ROWS_WITH_END, "columns": {"prompt": "prompt", "response": "completion"}}}
