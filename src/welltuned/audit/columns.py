"""Which column is what: usual names are recognised, doubtful ones are asked about, nothing is guessed.

A role may be called by its own name or by any name of a column that it is recognised by: `--column lr=eta` is
`--column learning_rate=eta`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from welltuned.audit.records import Request, Sheet
from welltuned.errors import InputError, problem, suggestion

# Names in use: Hugging Face's, PEFT's and MLPerf's records, tinker-cookbook's and others' sweeps.
NAMES: dict[str, tuple[str, ...]] = {
    "method": ("method", "peft_type", "peft_method", "adapter", "adapter_type", "variant", "algorithm", "approach"),
    "metric": ("metric", "value", "result"),
    "sd": ("sd", "std", "stdev", "stddev", "std_dev", "standard_deviation", "seed_sd", "seed_std"),
    "learning_rate": ("learning_rate", "lr", "base_lr", "peak_lr", "max_lr", "opt_base_learning_rate", "eta"),
    "batch_size": ("batch_size", "bs", "batch", "global_batch_size", "effective_batch_size", "total_batch_size"),
    "rank": ("rank", "r", "lora_rank", "lora_r", "adapter_rank"),
    "seed": ("seed", "random_seed", "rng_seed"),
    "num_seeds": ("num_seeds", "n_seeds", "seeds", "num_runs", "n_runs"),
    "num_items": ("num_items", "n_items", "num_test_items", "n_test", "num_test", "test_size"),
    "split": ("split", "eval_split"),
    "diverged": ("diverged", "is_diverged", "num_diverged", "n_diverged"),
    "status": ("status", "state", "run_status"),
    "problem": (
        *("problem", "model", "base", "base_model", "model_name", "model_id", "dataset", "dataset_name", "data"),
        *("task", "benchmark", "num_train"),
    ),
    "setting": (
        *("setting", "alpha", "lora_alpha", "scaling", "optimizer", "lr_scheduler", "lr_scheduler_type", "scheduler"),
        *("schedule", "weight_decay", "warmup", "warmup_ratio", "warmup_steps", "dropout", "lora_dropout", "epochs"),
        *("num_epochs", "num_train_epochs", "max_steps", "steps", "target_modules", "use_rslora", "use_dora"),
        *("init_lora_weights", "max_length", "dtype", "experiment", "experiment_name", "config_name"),
        *("opt_learning_rate_warmup_factor", "opt_learning_rate_training_steps", "opt_adamw_weight_decay"),
        *("opt_gradient_clip_norm",),
    ),
}
SEVERAL = frozenset({"method", "problem", "setting"})  # roles whose columns are read together
NOT_A_VALUE = frozenset({"metric", "diverged", "status", "setting"})  # roles that are not the same for every row

LOWER = frozenset(("loss", "nll", "perplexity", "ppl", "error", "wer", "cer", "bpb", "mse", "mae", "rmse"))
SHARES = frozenset(("accuracy", "acc", "em", "match", "correct", "pass", "pass1"))  # of items: each right or wrong
NOT_OF_ITEMS = frozenset(("token", "tokens", "balanced", "macro", "weighted"))  # shares whose items are not the tests'
COUNTS = frozenset(("num", "n", "number", "count", "total"))  # "num_correct": so many items were right
HIGHER = SHARES | {"f1", "bleu", "rouge", "rouge1", "rouge2", "rougel", "auc", "mcc"}
OUTCOMES = LOWER | HIGHER | {"score"}  # of a score, which way is better is asked
NO_SETTINGS = frozenset(  # words of columns that name a repeat, or tell what it cost
    (
        *("run", "trial", "repeat", "replicate", "rep", "id", "index", "time", "date", "note", "notes", "seconds"),
        *("minutes", "hours", "runtime", "duration", "memory", "mem", "gib", "gb", "mb", "bytes"),
    )
)
SPREADS = frozenset(("sd", "std", "stdev", "stddev", "se", "stderr", "sem", "ci", "var", "min", "max"))


@dataclass(frozen=True)
class Columns:
    """The columns of every role that the table or the caller gives."""

    names: Mapping[str, tuple[str, ...]]
    values: Mapping[str, str]
    unread: tuple[str, ...]  # columns that have no role
    given: frozenset[str]  # roles whose columns the caller named

    def has(self, role: str) -> bool:
        """Say whether a role has a column or a value."""
        return role in self.names or role in self.values

    def one(self, role: str) -> str | None:
        """Return the column of a role that has at most one."""
        return self.names[role][0] if role in self.names else None


def recognise(sheet: Sheet, request: Request) -> Columns:
    """Find the column of every role. Raises InputError with every problem: unknown names, two candidates, no metric."""
    wrong: list[str] = []
    given = {role_of(role): names for role, names in request.columns.items()}
    values = {role_of(role): value for role, value in request.values.items()}
    for role, names in given.items():
        wrong += [_unknown(role, name, sheet) for name in names if name not in sheet.columns]
        if len(names) > 1 and role not in SEVERAL:
            wrong.append(problem(f"--column {role}", ", ".join(names), "one column", f"write --column {role} once"))
        if role in values:
            wrong.append(problem(role, "a column and a value", "one of them", f"leave out --value {role}=..."))
    for role in values:
        if role in NOT_A_VALUE:
            expected = "a role that can be the same in every row"
            wrong.append(problem("--value", role, expected, f"write --column {role}=NAME"))
    found = {role: names for role in NAMES if role not in values and (names := _named(role, sheet, given, wrong))}
    metric = _metric(sheet, given, wrong)
    if "sd" not in found and "sd" not in values:  # "accuracy_std" beside "accuracy"
        spreads = [name for name in sheet.columns if metric and normal(name) in _spreads_of(metric)]
        found |= {"sd": (spreads[0],)} if len(spreads) == 1 else {}
    if "method" not in found and "method" not in values:
        wrong.append(_missing("method", sheet, "write --column method=NAME, or --value method=lora if all rows are"))
    if wrong:
        raise InputError(wrong)
    read = {**found, "metric": (metric,)}
    used = {name for names in read.values() for name in names}
    unread = tuple(name for name in sheet.columns if name not in used)
    return Columns(read, values, unread, frozenset(given))


def role_of(name: str) -> str:
    """Return the role that a name stands for: the role itself, or a column name that it is recognised by.

    >>> role_of("lr"), role_of("n_seeds"), role_of("model")
    ('learning_rate', 'num_seeds', 'problem')
    """
    plain = normal(name)
    for role, names in NAMES.items():
        if plain in names:
            return role
    raise InputError(f"role: got '{name}', expected one that a column can have; {suggestion(plain, list(NAMES))}")


def normal(name: str) -> str:
    """Return a column's name in small letters with every sign an underscore.

    >>> normal("Learning Rate"), normal("pass@1")
    ('learning_rate', 'pass_1')
    """
    return re.sub(r"[^a-z0-9]+", "_", name.strip().casefold()).strip("_")


def direction(metric: str) -> bool | None:
    """Say whether higher is better, by the metric's name; None where the name does not say.

    >>> direction("test_accuracy"), direction("eval loss"), direction("score"), direction("loss_of_accuracy")
    (True, False, None, None)
    """
    words = set(normal(metric).split("_"))
    lower, higher = bool(words & LOWER), bool(words & HIGHER)
    return higher if lower != higher else None


def is_share(metric: str) -> bool:
    """Say whether a metric's name means a share of items that are right.

    >>> is_share("test_accuracy"), is_share("exact match"), is_share("rouge1"), is_share("mean_token_accuracy")
    (True, True, False, False)
    """
    words = set(normal(metric).split("_"))
    return bool(words & SHARES) and not words & NOT_OF_ITEMS and not is_count(metric)


def is_count(metric: str) -> bool:
    """Say whether a metric's name means how many items are right.

    >>> is_count("num_correct"), is_count("correct")
    (True, False)
    """
    words = set(normal(metric).split("_"))
    return "correct" in words and bool(words & COUNTS)


def may_tell_apart(name: str) -> bool:
    """Say whether an unread column may be a setting: it is no outcome, no cost and no name of a repeat.

    >>> may_tell_apart("epoch"), may_tell_apart("train_loss"), may_tell_apart("run_id")
    (True, False, False)
    """
    return not set(normal(name).split("_")) & (OUTCOMES | SPREADS | NO_SETTINGS)


def split_of(metric: str) -> str | None:
    """Return the split that a metric's name speaks of.

    >>> split_of("test_accuracy"), split_of("val_loss"), split_of("eval_loss")
    ('test', 'validation', None)
    """
    words = set(normal(metric).split("_"))
    if "test" in words:
        return "test"
    return "validation" if words & {"validation", "valid", "val", "dev"} else "train" if "train" in words else None


def _named(role: str, sheet: Sheet, given: Mapping[str, tuple[str, ...]], wrong: list[str]) -> tuple[str, ...]:
    if role in given:
        return tuple(name for name in given[role] if name in sheet.columns)
    taken = {name for names in given.values() for name in names}
    found = tuple(name for name in sheet.columns if normal(name) in NAMES[role] and name not in taken)
    if role == "metric" or len(found) <= 1 or role in ("problem", "setting"):
        return found if role != "metric" else ()
    wrong.append(_candidates(role, found))
    return ()


def _metric(sheet: Sheet, given: Mapping[str, tuple[str, ...]], wrong: list[str]) -> str:
    """Return the metric's column: the one asked for, else the test metric, the only one, the validation metric."""
    candidates = [name for name in sheet.columns if set(normal(name).split("_")) & OUTCOMES and not _spread(name)]
    if given.get("metric"):
        return given["metric"][0]
    exact = [name for name in sheet.columns if normal(name) in NAMES["metric"]]
    tiers = [exact, *([name for name in candidates if split_of(name) == split] for split in SPLITS)]
    best = next((tier for tier in tiers if tier), [])
    if len(best) == 1:
        return best[0]
    wrong.append(_candidates("metric", best) if best else _missing("metric", sheet, "write --column metric=NAME"))
    return ""


SPLITS = ("test", None, "validation", "train")  # whose metric is meant where there are several, the first first


def _spread(name: str) -> bool:
    return bool(set(normal(name).split("_")) & SPREADS)


def _spreads_of(metric: str) -> set[str]:
    return {f"{normal(metric)}_{name}" for name in NAMES["sd"]}


def _unknown(role: str, name: str, sheet: Sheet) -> str:
    return f"--column {role}={name}: got no column '{name}', expected one of the table; " + suggestion(
        name, sheet.columns
    )


def _candidates(role: str, found: Sequence[str]) -> str:
    what = f"{role}: got {len(found)} columns that may be meant ({', '.join(found)}), expected one"
    return f"{what}; write --column {role}={found[0]}, for instance"


def _missing(role: str, sheet: Sheet, do: str) -> str:
    return f"{role}: got no column of a usual name among {', '.join(sheet.columns)}, expected one; {do}"
