"""Reads the result files of PEFT's method comparison (huggingface/peft: method_comparison/*/results/*.json).

One file is one run: `run_info` has the training and PEFT configuration, `train_info` the status and the metrics, of
which the last entry has the test accuracy. A method is named by its `peft_type` and by what makes it a variant of it:
PEFT runs DoRA, rsLoRA, LoRA-FA and PiSSA under the type LORA.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from welltuned.audit.parsing import Cell
from welltuned.audit.records import Sheet
from welltuned.errors import InputError, problem

# Optimizers of theirs that are methods of their own (MetaMathQA/utils.py, TrainConfig: "or a PEFT method").
METHOD_OPTIMIZERS = ("lora+", "lora-fa", "riemannian")
CONFIGURATION = ("lora_alpha", "lora_dropout", "target_modules", "init_lora_weights")
TRAINING = ("dtype", "max_seq_length", "max_steps", "optimizer_type", "lr_scheduler", "grad_norm_clip")


def is_result(found: Any) -> bool:
    """Say whether a parsed JSON file is the result of one run."""
    return isinstance(found, dict) and all(isinstance(found.get(key), dict) for key in ("run_info", "train_info"))


def read_folder(folder: Path) -> Sheet:
    """Read every result file of a folder and its subfolders; a JSON file that is none is an error that names it."""
    paths = sorted(folder.rglob("*.json"))
    results: list[tuple[str, Any]] = []
    wrong: list[str] = []
    for path in paths:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            wrong.append(problem(str(path), f"no JSON: {error}", "a result file of PEFT's", "move it elsewhere"))
            continue
        if is_result(found):
            results.append((str(path.relative_to(folder)), found))
        else:
            expected = "a result file of PEFT's, with run_info and train_info"
            wrong.append(problem(str(path), "another kind of JSON", expected, "move it elsewhere"))
    if not paths:
        expected = "a study's folder (with study.db), or JSON files of PEFT's method comparison"
        raise InputError(problem(f"folder {folder}", "nothing", expected, "check the path, or name a table's file"))
    if wrong:
        raise InputError(wrong)
    return of_results(str(folder), results)


def of_results(source: str, results: Sequence[tuple[str, Any]]) -> Sheet:
    """Make a sheet with one row for each named result."""
    rows = tuple(_row(found) for _, found in results)
    columns = dict.fromkeys(name for row in rows for name in row)
    return Sheet(source, tuple(columns), rows, tuple(name for name, _ in results))


def _row(found: dict[str, Any]) -> dict[str, Cell]:
    training: dict[str, Any] = found["run_info"].get("train_config") or {}
    peft: dict[str, Any] = found["run_info"].get("peft_config") or {}
    metrics: list[dict[str, Any]] = found["train_info"].get("metrics") or []
    tested = [one["test accuracy"] for one in metrics if "test accuracy" in one]
    valid = [one["valid accuracy"] for one in metrics if "valid accuracy" in one]
    row: dict[str, Cell] = {
        "method": _method(training, peft),
        "experiment": found["run_info"].get("experiment_name"),
        "model": training.get("model_id"),
        "learning_rate": (training.get("optimizer_kwargs") or {}).get("lr"),
        "batch_size": training.get("batch_size"),
        "rank": peft.get("r"),
        "seed": training.get("seed"),
        "status": found["train_info"].get("status"),
        "test_accuracy": tested[-1] if tested else None,
        "valid_accuracy": valid[-1] if valid else None,
    }
    settings = {name: peft.get(name) for name in CONFIGURATION} | {name: training.get(name) for name in TRAINING}
    return row | {name: value if _is_cell(value) else json.dumps(value) for name, value in settings.items()}


def _method(training: dict[str, Any], peft: dict[str, Any]) -> str:
    name = str(peft.get("peft_type") or "full").lower()
    variants = [key.removeprefix("use_") for key, value in peft.items() if key.startswith("use_") and value is True]
    start = peft.get("init_lora_weights")
    variants += [str(start)] if isinstance(start, str) else []
    optimizer = str(training.get("optimizer_type", "")).lower()
    variants += [optimizer] if optimizer in METHOD_OPTIMIZERS else []
    return "+".join([name, *variants])


def _is_cell(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
