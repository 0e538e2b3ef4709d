"""What must hold between the settings of a study, and of the files that it names."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from welltuned import fingerprint, plugins
from welltuned.errors import InputError, problem, suggestion
from welltuned.spec._check import Findings, unusable
from welltuned.spec._fields import AXES, REQUIRED, SEEDS, Search, expected

if TYPE_CHECKING:
    from welltuned.spec import Spec

SPLITS = ("data_train", "data_validation", "data_test")
FIRST_FRESH_SEED = 1000  # selection seeds are 0, 1, ...; at most 1000 of them


def check(spec: "Spec", found: Findings) -> None:
    """Add a line for everything that no single setting shows to be wrong."""
    for settings in spec.combinations():
        _check_required(settings, found)
        _check_sizes(settings, found)
        _check_start(settings, found)
    _check_methods(spec, found)
    _check_seeds(spec, found)
    _check_rest(spec, found)
    _check_budget(spec, found)
    _check_data(spec, found)
    _check_baseline(spec, found)


def _check_required(settings: Mapping[str, Any], found: Findings) -> None:
    for field in REQUIRED:
        if settings[field] is None and not unusable(found, (field,)):
            hint = expected(AXES[field], field)
            example = f'"{hint.example}"' if isinstance(hint.example, str) else hint.example
            where = f"{AXES[field]}.{field}"
            found.add(problem(where, "nothing", hint.text, f"write {field} = {example} in [{AXES[field]}], or an axis"))


def _check_sizes(settings: Mapping[str, Any], found: Findings) -> None:
    batch_size, num_train = settings["batch_size"], settings["num_train"]
    if unusable(found, ("batch_size", "num_train")) or num_train is None:
        return
    if batch_size > num_train:
        expectation = f"at most num_train = {num_train}"
        found.add(problem("train.batch_size", batch_size, expectation, "lower it, or raise num_train in [task]"))


def _check_start(settings: Mapping[str, Any], found: Findings) -> None:
    if unusable(found, ("start_from", "start_step")) or not settings["start_step"]:
        return
    if settings["start_from"] is None:
        expected_text = "0, since no start_from names the exported trial whose rest this is"
        found.add(problem("train.start_step", settings["start_step"], expected_text, "name its folder, or remove it"))


def _check_rest(spec: "Spec", found: Findings) -> None:
    """Refuse reruns of a trial that is the rest of an exported one: a fresh seed reads other rows than that one did."""
    if unusable(found, ("start_step", "fresh_seeds")) or not spec.search.fresh_seeds:
        return
    if any(settings["start_step"] for settings in spec.combinations()):
        expected_text = "0: the rest of an exported trial has that trial's seeds"
        line = problem("search.fresh_seeds", spec.search.fresh_seeds, expected_text, "set fresh_seeds = 0")
        found.add(f"{line}, or start_step = 0")


def _check_methods(spec: "Spec", found: Findings) -> None:
    """Refuse settings for a method that the study does not have."""
    if unusable(found, ("method",)):
        return
    for name in spec.methods:
        if name not in spec.method_names():
            line = f"methods.{name}: got settings for a method that is not in the study"
            found.add(f"{line}, expected one that is; {suggestion(name, spec.method_names())}")


def _check_baseline(spec: "Spec", found: Findings) -> None:
    """Refuse a baseline that was written and is not among the methods; the default one matters to `compare` only."""
    written = "baseline" in spec.compare.model_fields_set
    if written and not unusable(found, ("baseline", "method")) and spec.compare.baseline not in spec.method_names():
        expectation = "a method of the study"
        advice = suggestion(spec.compare.baseline, spec.method_names())
        found.add(problem("compare.baseline", spec.compare.baseline, expectation, advice), "baseline")


def _check_seeds(spec: "Spec", found: Findings) -> None:
    """Refuse seeds that would make two trials one, or that would show selection a fresh seed."""
    if unusable(found, (*SEEDS, "seeds", "fresh_seeds", "subset")):
        return
    for field in SEEDS:
        for value in spec.axes.get(field, ()):
            if value is None or (spec.search.fresh_seeds and value >= FIRST_FRESH_SEED):
                expectation = f"whole numbers below {FIRST_FRESH_SEED}, where the fresh seeds begin"
                found.add(problem(f"axes.{field}", value, expectation, "choose smaller seeds"))
    wanted = {"seeds": spec.search.seeds > 1, "fresh_seeds": spec.search.fresh_seeds > 0}
    for settings in spec.combinations():
        moving = spec.moving_seeds(settings["method"], settings["subset"])
        for name in (name for name, asked in wanted.items() if asked and not moving):
            value = getattr(spec.search, name)
            neutral = 1 if name == "seeds" else 0
            line = problem(f"search.{name}", value, "a seed that is free to move", f"set {name} = {neutral}")
            found.add(f"{line}, or remove init_seed or order_seed from [train]")


def _check_budget(spec: "Spec", found: Findings) -> None:
    """Refuse a search without the budget that it spends, and a budget that grid would ignore."""
    if unusable(found, ("search", "budget", "width", "reserve", "seeds")):
        return
    name, budget = spec.search.search, spec.search.budget
    for field in ("sampler", "sampler_options"):
        got = getattr(spec.search, field)
        if name != "optuna" and got != Search.model_fields[field].default:
            expectation = f"nothing: search '{name}' has no sampler"
            found.add(problem(f"search.{field}", got, expectation, f'remove {field}, or write search = "optuna"'))
    if spec.search.warm_start and name in ("grid", "guided"):
        why = "grid trains all there is" if name == "grid" else "guided always begins with what the rules expect"
        found.add(problem("search.warm_start", True, f"false: {why}", "remove warm_start, or choose another search"))
    if not spec.search.reopen and name != "guided":
        expectation = f"true, which changes nothing: search '{name}' stays within the offered learning rates"
        found.add(problem("search.reopen", False, expectation, 'remove reopen, or write search = "guided"'))
    if spec.search.curvature is not None and name != "guided":
        expectation = f"nothing: search '{name}' has no expectation of its own"
        advice = 'remove curvature, or write search = "guided"'
        found.add(problem("search.curvature", spec.search.curvature, expectation, advice))
    if name == "grid":
        for field in ("budget", "width"):
            if (got := getattr(spec.search, field)) != Search.model_fields[field].default:
                expectation = "nothing: grid trains all there is"
                found.add(problem(f"search.{field}", got, expectation, f"remove {field}, or choose another search"))
        return
    if budget is None:
        advice = "write budget = 16 in [search], which is the cost of 16 full trials for each method"
        found.add(problem("search.budget", "none", f"what search '{name}' may spend", advice))
    elif budget < spec.search.seeds:
        expectation = f"at least {spec.search.seeds}, one full trial on each selection seed"
        found.add(problem("search.budget", budget, expectation, "raise it, or lower seeds"))
    if spec.search.reserve:
        expectation = f"0: search '{name}' chooses every trial itself"
        found.add(problem("search.reserve", spec.search.reserve, expectation, "remove reserve, or choose grid"))


def _check_data(spec: "Spec", found: Findings) -> None:
    """Refuse a task without its data, and data that a task would ignore."""
    if unusable(found, ("task", *SPLITS)):
        return
    for name, given in sorted({_task_and_data(settings) for settings in spec.combinations()}):
        if not name or ":" in name:  # a plug-in from outside is loaded when the study is planned
            continue
        task = plugins.load("tasks", name)
        fields = dict(given)
        if task.generate is None and not fields["data_train"]:
            example = 'write data_train = "train.jsonl" in [task]'
            found.add(problem("task.data_train", "nothing", f"the training rows of task '{name}'", example))
        for field in (field for field in fields if task.generate is not None and fields[field]):
            advice = f"remove {field}, or choose a task that reads data, such as completion"
            got = ", ".join(fields[field])
            found.add(problem(f"task.{field}", got, f"nothing: task '{name}' makes its own examples", advice))


def _task_and_data(settings: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    return settings["task"] or "", tuple((field, settings[field]) for field in SPLITS)


# Files ----------------------------------------------------------------------------------------------------------------


def check_files(spec: "Spec", found: Findings) -> None:
    """Add a line for every local base and data file that is missing or unfit; the hub is not asked."""
    bases = {(settings["base"], settings["revision"]): None for settings in spec.combinations() if settings["base"]}
    for base, revision in bases:
        _check_base(base, revision, found)
    files = {(field, name): None for settings in spec.combinations() for field in SPLITS for name in settings[field]}
    for name in spec.compare.retention:
        if not Path(name).expanduser().is_file():
            advice = "check the path, seen from the current folder"
            found.add(problem("compare.retention", name, "a text file in UTF-8", advice))
    for field, name in files:
        if fingerprint.hub_data(name) is None and not Path(name).expanduser().is_file():
            found.add(f"task.{field}: {fingerprint.missing_data(name)}")


def _check_base(base: str, revision: str | None, found: Findings) -> None:
    path = Path(base).expanduser()
    in_hub_folder = base.count("/") >= 2 and not base.startswith(".") and base.endswith(".gguf")
    looks_local = path.is_absolute() or base.startswith((".", "~")) or (base.endswith(".gguf") and not in_hub_folder)
    if path.exists() or looks_local:
        try:
            fingerprint.resolve_base(base, revision)
        except InputError as error:
            for line in error.problems:
                found.add(f"model.{line}")
    elif base.startswith(f"{fingerprint.BUNDLED_FAMILY}-") and base not in fingerprint.BUNDLED_NAMES:
        found.add(problem("model.base", base, "a bundled model", suggestion(base, fingerprint.BUNDLED_NAMES)))
