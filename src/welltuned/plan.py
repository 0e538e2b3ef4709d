"""A study, planned: arms with equal budgets, checked against a survey of the base and data.

`survey_configs(spec)` says what has to be looked at; `make(spec, surveys)` needs only the answers, so a plan is pure.
Settings that cannot change a result are set to one canonical value, so that equal work has one id.
"""

import dataclasses
import hashlib
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from welltuned import adapter_folder, fingerprint, plugins
from welltuned.analysis import curvature
from welltuned.analysis.summary import PROBLEM
from welltuned.costs import budget, flops, packing
from welltuned.errors import InputError, problem
from welltuned.records import Arm, Config, Named, Role, Survey, TrainJob, Trial, value_at
from welltuned.spec import FIRST_FRESH_SEED, Spec

FEW_STEPS = 32  # assumed: with fewer optimizer steps, the schedule and Adam's first steps decide, not the batch size
SHOWN_SITES = 3  # of those named in an error
PLUGIN_FACTS = ("uses_rank", "uses_alpha", "has_fast", "is_whole")
SPLITS = ("data_train", "data_validation", "data_test")


@dataclass(frozen=True)
class Plan:
    """Arms and everything a search or a screen asks of them; `notes` are what a reader should know before it runs."""

    spec: Spec
    surveys: Mapping[str, Survey]
    arms: tuple[Arm, ...]
    cell: tuple[str, ...]
    graded_tasks: frozenset[str]
    notes: tuple[str, ...]
    reserves: Mapping[tuple[object, ...], int]  # learning rates beyond the grid, by cell
    budgets: tuple[budget.Budget, ...]
    sharpness: Mapping[curvature.Key, float]  # of [search] curvature

    def survey_of(self, config: Config) -> Survey:
        """Return the survey of a configuration's base and data."""
        return self.surveys[survey_key(config)]

    def width_of(self, config: Config) -> int | None:
        """Return the hidden size of a configuration's base; None where the base was not looked at."""
        survey = self.surveys.get(survey_key(config))
        return None if survey is None else survey.hidden_size

    def sharpness_of(self, config: Config) -> float | None:
        """Return the largest eigenvalue of a method and rank at the start; None where no measurement was named."""
        return self.sharpness.get(curvature.key_of(config))

    @property
    def problem(self) -> tuple[str, ...]:
        """Return the fields of a cell that pose its problem: methods are compared within one and never across."""
        return _problem(self.cell)

    @property
    def seed(self) -> int:
        """Return the study's seed."""
        return self.spec.seed

    @property
    def budget(self) -> float | None:
        """Return what a search may spend on each method within each problem, in run-equivalents."""
        return self.spec.search.budget

    @property
    def width(self) -> int:
        """Return the trials of each method that a search asks for at once."""
        return self.spec.search.width

    @property
    def warm_start(self) -> bool:
        """Say whether a search begins with the candidate that the learning-rate rules expect to be best."""
        return self.spec.search.warm_start

    @property
    def reopen(self) -> bool:
        """Say whether a guided search may go beyond the ends of the offered learning rates."""
        return self.spec.search.search == "guided" and self.spec.search.reopen

    @property
    def sampler(self) -> Named:
        """Return the sampler of Optuna that search "optuna" asks."""
        return Named(self.spec.search.sampler, tuple(self.spec.search.sampler_options.items()))

    @property
    def confirmed(self) -> tuple[str, ...]:
        """Return the fields within which one winner is rerun: those of a cell, with a budget those of a choice."""
        return self.cell if self.budget is None else ("method", *self.problem)

    @property
    def winners(self) -> dict[Arm, tuple[Config, ...]]:
        """Return, for each arm, one configuration in the place of each winner: the one that reads most rows."""
        return {arm: tuple(_dearest(arm.configs, self.confirmed).values()) for arm in self.arms}

    def reserve_of(self, config: Config) -> int:
        """Return the learning rates that this configuration's cell may try beyond its grid."""
        return self.reserves[budget.key(config, self.cell)]

    def confirmations(self, config: Config, num_confirm: int) -> tuple[Config, ...]:
        """Return a winner's reruns on the fresh seeds 1000, 1001, ...; a seed that the spec fixes stays."""
        moving = self.spec.moving_seeds(config.method, config.subset)
        seeds = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + num_confirm)
        return tuple(config.replace(**dict.fromkeys(moving, seed)) for seed in seeds)

    def trials(self) -> tuple[Trial, ...]:
        """Return the selection trials of all arms; of a search with a budget, as many as it may train in full."""
        arms = (_affordable(arm, self.problem, self.budget) for arm in self.arms)
        return tuple(Trial(config, Role.SELECT) for arm in arms for config in arm.configs)

    def packs(self, memory_bytes: int, device: str = "cpu") -> tuple[TrainJob, ...]:
        """Return the packs of the selection trials."""
        return pack(self.trials(), self.surveys, memory_bytes, device)


def pack(
    trials: Sequence[Trial], surveys: Mapping[str, Survey], memory_bytes: int, device: str = "cpu"
) -> tuple[TrainJob, ...]:
    """Group trials into packs, the trials of each survey apart, in the order in which these appear."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(survey_key(trial.config), []).append(trial)
    return tuple(
        job for key, group in groups.items() for job in packing.pack(group, surveys[key], memory_bytes, device)
    )


def survey_key(config: Config) -> str:
    """Return the id of the survey that a configuration needs: the hash of its base, its data and their size."""
    return hashlib.sha256(json.dumps([*config.data_key(), config.num_train]).encode()).hexdigest()[:16]


def survey_configs(spec: Spec) -> tuple[Config, ...]:
    """Return one configuration for each base and data that the study needs a survey of."""
    found: dict[str, Config] = {}
    for config in expand(spec):
        found.setdefault(survey_key(config), config)
    return tuple(found.values())


def make(spec: Spec, surveys: Mapping[str, Survey]) -> Plan:
    """Plan a study on surveyed bases and data; raise one InputError that lists everything that does not fit them."""
    configs = expand(spec)
    problems = dict.fromkeys(line for config in configs for line in _misfits(config, surveys[survey_key(config)]))
    if problems:
        raise InputError(problems)
    arms = tuple(
        Arm(method, tuple(config for config in configs if config.method == method), spec.search.fresh_seeds)
        for method in spec.method_names()
    )
    tasks = {config.task for config in configs}
    graded = frozenset(name for name in tasks if plugins.load("tasks", name).grade is not None)
    cell = _cell(spec)
    reserves = budget.allot(arms, cell, _problem(cell), spec.search.reserve)
    surveyed = {config: surveys[survey_key(config)] for config in configs}
    paid = [_affordable(arm, _problem(cell), spec.search.budget) for arm in arms]
    budgets = budget.budgets(paid, surveyed, cell, _problem(cell), reserves)
    notes = (*_notes(spec, arms, surveys), *_budget_notes(budgets))
    named = spec.search.curvature
    sharpness = {} if named is None else curvature.largest(Path(named).expanduser(), configs)
    plan = Plan(spec, surveys, arms, cell, graded, notes, reserves, budgets, sharpness)
    if problems := plugins.load("searches", spec.search.search).problems(plan):
        raise InputError(problems)
    return plan


def _affordable(arm: Arm, problem: Sequence[str], run_equivalents: float | None) -> Arm:
    """Return an arm with as many of its configurations as the budget trains, spread evenly over each problem's.

    It stands for trials that a search will choose, where their cost is asked for; grid has no budget and keeps all.
    """
    if run_equivalents is None:
        return arm
    by_problem: defaultdict[tuple[object, ...], list[Config]] = defaultdict(list)
    for config in arm.configs:
        by_problem[budget.key(config, problem)].append(config)
    kept: list[Config] = []
    for configs in by_problem.values():
        number = min(len(configs), math.floor(run_equivalents))
        kept += [configs[place * len(configs) // number] for place in range(number)]
    return dataclasses.replace(arm, configs=tuple(kept))


def _dearest(configs: Iterable[Config], fields: Sequence[str]) -> dict[budget.Key, Config]:
    """Return, for each value of these fields, the configuration that reads most rows; the last where they are equal."""
    found: dict[budget.Key, Config] = {}
    for config in configs:
        place = budget.key(config, fields)
        if place not in found or flops.num_samples(config) >= flops.num_samples(found[place]):
            found[place] = config
    return found


def _problem(cell: Sequence[str]) -> tuple[str, ...]:
    return tuple(field for field in cell if field in PROBLEM)


def _cell(spec: Spec) -> tuple[str, ...]:
    """Return the fields within which the learning rate is tuned: the method, and every other axis but the seeds."""
    axes = set(spec.axes).union(*(own for own in spec.methods.values()))
    axes -= {"method", "learning_rate", "init_seed", "order_seed", "subset_seed"}
    return ("method", *(field for field in Config.__dataclass_fields__ if field in axes))


# From settings to configurations --------------------------------------------------------------------------------------


def expand(spec: Spec) -> tuple[Config, ...]:
    """Return every distinct selection configuration, in the order of the methods and axes."""
    problems: list[str] = []
    facts: dict[tuple[object, ...], dict[str, Any]] = {}
    configs: dict[Config, None] = {}
    for settings in spec.combinations():
        key = tuple(settings[name] for name in ("base", "revision", "task", "method", "start_from", *SPLITS))
        try:
            if key not in facts:
                facts[key] = _facts(settings)
        except InputError as error:
            facts[key] = {}
            problems += [line for line in error.problems if line not in problems]
        problems += [line for line in _clashes(settings | facts[key]) if line not in problems]
        if facts[key]:
            for seed in range(spec.search.seeds):
                configs[_config(spec.seed, settings | facts[key], seed)] = None
    if problems:
        raise InputError(problems)
    return tuple(configs)


def _facts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Look up what the files and plug-ins say: hashes, the pinned revision, versions."""
    problems: list[str] = []
    facts: dict[str, Any] = {}
    base, revision, method, task = (settings[name] for name in ("base", "revision", "method", "task"))
    try:
        facts["revision"] = fingerprint.resolve_base(base, revision).revision
        facts["base_hash"] = fingerprint.base_hash(base, revision)
    except InputError as error:
        problems += error.problems
    try:
        version = plugins.load("tasks", task).version
        facts |= {"task_version": version, "data_hash": _data_hash(task, [settings[name] for name in SPLITS])}
    except InputError as error:
        problems += error.problems
    try:
        plugin = plugins.load("methods", method)
        facts |= {"method_version": plugin.version, "method_source": plugins.source_hash(method)}
        facts |= _plugin_facts(plugin)
    except InputError as error:
        problems += error.problems
    try:
        if settings["start_from"] is not None:
            adapter_folder.read(settings["start_from"])
            facts["start_hash"] = adapter_folder.content_hash(settings["start_from"])
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return facts


def check_data(config: Config) -> None:
    """Raise InputError where the data are not the ones that the trial was planned with."""
    files = [config.data_train, config.data_validation, config.data_test]
    if _data_hash(config.task, files) != config.data_hash:
        named = ", ".join(itertools.chain(*files)) or config.task
        wanted = f"the rows whose hash is {config.data_hash[:12]}, as when the study began"
        raise InputError(problem("task data", named, wanted, "put the old files back, or run in another folder"))


def _data_hash(task: str, files: Sequence[Sequence[str]]) -> str:
    """Hash the data of a task; which of the files is which split matters, beside their bytes."""
    version, source = plugins.load("tasks", task).version, plugins.source_hash(task)
    extra = json.dumps([task, version, source, [len(some) for some in files]])
    return fingerprint.data_hash(tuple(itertools.chain(*files)), extra)


def _clashes(settings: Mapping[str, Any]) -> Iterable[str]:
    """Yield a line for a base that cannot be held as wanted by a method; what is not known yet clashes with nothing."""
    if settings.get("is_whole") and settings["quantization"] != "none":
        expected = f'"none" for method {settings["method"]}, which trains the weights that would be held in 8 bits'
        yield problem("model.quantization", settings["quantization"], expected, "remove it, or choose method full")


def _plugin_facts(method: Any) -> dict[str, bool]:
    """Say what of a method decides which settings it ignores."""
    form = method.parametrisation()
    return dict(zip(PLUGIN_FACTS, (method.uses_rank, method.uses_alpha, bool(form.fast), form.whole), strict=True))


def _config(study_seed: int, settings: Mapping[str, Any], seed: int) -> Config:
    """Return the configuration of settings and facts on one selection seed, in canonical form."""
    values = canonical(settings)
    for name in ("init_seed", "order_seed", "subset_seed"):
        values[name] = seed if values[name] is None else values[name]
    if values["subset"] == "first":
        values["subset_seed"] = 0
    values = {name: value for name, value in values.items() if name not in PLUGIN_FACTS}
    has_alpha = settings["uses_rank"] and settings["uses_alpha"]
    values["scaling"] = Spec.multiplier(values["alpha"], values["rank"]) if has_alpha else 1.0
    return Config(study_seed=study_seed, **values)


def canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with those that cannot change a result set to one value, mostly their default."""
    values = dict(settings)
    for name in ignored(settings):
        values[name] = 0 if name == "rank" else Spec.default(name)
    return values


def ignored(settings: Mapping[str, Any]) -> dict[str, str]:
    """Say which settings the others make irrelevant, and why."""
    found: dict[str, str] = {}
    if not settings["uses_rank"]:
        names = ("rank", "alpha", "clamp_rank", "dropout", "rank_pattern", "alpha_pattern")
        found |= dict.fromkeys(names, f"method {settings['method']} has no rank")
    elif not settings["uses_alpha"]:
        found |= dict.fromkeys(("alpha", "alpha_pattern"), f"method {settings['method']} has no alpha")
    if not settings["has_fast"]:
        found["loraplus_lr_ratio"] = f"method {settings['method']} has no A and B"
    if settings["is_whole"]:
        found["target_modules"] = f"method {settings['method']} trains every weight"
    if settings["optimizer"] == "adamw":
        found["momentum"] = "adamw has beta1 and beta2"
    else:
        names = ("beta1", "beta2", "beta2_batch_size", "epsilon")
        found |= dict.fromkeys(names, f"{settings['optimizer']} has momentum only")
    if settings["lr_scheduler_type"] != "cosine_with_floor":
        found["lr_floor"] = f"schedule {settings['lr_scheduler_type']} has no floor"
    if settings["warmup_steps"] > 0:
        found["warmup_ratio"] = "warmup_steps is used instead"
    if settings["max_steps"] is not None:
        found["num_train_epochs"] = "max_steps is used instead"
    return found


# What does not fit, and what should be known --------------------------------------------------------------------------


def _misfits(config: Config, survey: Survey) -> Iterable[str]:
    """Yield a line for each setting that this base or data cannot satisfy."""
    if config.num_train > survey.num_train_available:
        expected = f"at most {survey.num_train_available}, the rows that are left after validation and test are carved"
        yield problem("task.num_train", config.num_train, expected, "lower it, or add data")
    if config.start_from is not None:
        parametrisation = plugins.load("methods", config.method).parametrisation().name
        adapter = adapter_folder.read(config.start_from)
        yield from adapter_folder.misfits(adapter, config, parametrisation, survey.sites, _scalings(config, survey))
    if config.start_step >= flops.last_step(config):
        expected = f"fewer than {flops.last_step(config)}, the steps of the whole course"
        yield problem("train.start_step", config.start_step, expected, "lower it, or raise max_steps")
    yield from _unknown_modules(config, survey)
    yield from _rank_misfits(config, survey)


def _rank_misfits(config: Config, survey: Survey) -> Iterable[str]:
    """Yield a line for ranks above the full one, and one for ranks or sizes that the method cannot have."""
    method: Any = plugins.load("methods", config.method)
    if not method.uses_rank:
        return
    small = [site for site in survey.sites if min(site.num_out, site.num_in) < config.wanted_rank_at(site.name)]
    small = [] if config.clamp_rank else small
    for site in (site for site in survey.sites if site not in small):
        rank = config.rank_at(site.name, site.num_out, site.num_in)
        if reason := method.misfit(site.num_out, site.num_in, rank):
            yield problem("train.rank", rank, reason, f"choose another rank, or leave out {site.name}")
            break
    if small:
        smallest = min(min(site.num_out, site.num_in) for site in small)
        more = f" and {len(small) - SHOWN_SITES} more" if len(small) > SHOWN_SITES else ""
        names = ", ".join(site.name for site in small[:SHOWN_SITES]) + more
        expected = f"at most {smallest}, the full rank of {names}"
        rank = max(config.wanted_rank_at(site.name) for site in small)
        yield problem("train.rank", rank, expected, "lower it, or set clamp_rank = true in [train]")


def _scalings(config: Config, survey: Survey) -> dict[str, float]:
    """Return the multiplier at every site."""
    if not config.rank_pattern and not config.alpha_pattern:
        return dict.fromkeys((site.name for site in survey.sites), config.scaling)
    names = [site.name for site in survey.sites]
    return {name: Spec.multiplier(config.alpha_at(name), config.wanted_rank_at(name)) for name in names}


def _unknown_modules(config: Config, survey: Survey) -> Iterable[str]:
    """Yield a line for each entry of a pattern that names no adapted module."""
    for field in ("rank_pattern", "alpha_pattern"):
        for entry in getattr(config, field):
            if all(value_at((entry,), site.name) is None for site in survey.sites):
                expected = "the name of an adapted module, or the end of it"
                kinds = ", ".join(sorted({site.name.rpartition(".")[2] for site in survey.sites}))
                yield problem(f"train.{field}", entry, expected, f"choose among {kinds}")


def _notes(spec: Spec, arms: Sequence[Arm], surveys: Mapping[str, Survey]) -> tuple[str, ...]:
    """List what a reader of the plan should know, each once."""
    notes = [f"{field}: [axes] replaces the value in its section." for field in sorted(spec.replaced())]
    notes += _ignored_notes(spec)
    for arm in arms:
        num_written = math.prod(len(values) for values in spec.axes_of(arm.name).values()) * spec.search.seeds
        if len(arm.configs) < num_written:
            notes.append(f"{arm.name}: {num_written} combinations are {len(arm.configs)} different trials.")
        for config in arm.configs:
            steps = flops.num_steps(config)
            if steps < FEW_STEPS:
                cell = f"{arm.name}, batch_size {config.batch_size}"
                notes.append(f"{cell}: only {steps} optimizer steps, under {FEW_STEPS}.")
            survey = surveys[survey_key(config)]
            wanted = [(min(site.num_out, site.num_in), config.wanted_rank_at(site.name)) for site in survey.sites]
            clamped = sum(full < rank for full, rank in wanted)
            if clamped:
                notes.append(f"{arm.name}, rank {config.rank}: clamped to the full rank at {clamped} sites.")
    notes += [line for survey in surveys.values() for line in _survey_notes(survey)]
    return tuple(dict.fromkeys(notes))


def budgets_text(group: Sequence[budget.Budget]) -> str:
    """Write the budgets of the methods of one problem."""
    where = f" on {', '.join(map(str, group[0].problem))}" if group[0].problem else ""
    return "; ".join(f"{one.method} {one.num_trials} trials, {round(one.num_tokens):,} tokens" for one in group) + where


def _budget_notes(budgets: Sequence[budget.Budget]) -> list[str]:
    return [f"Budgets are not equal: {budgets_text(group)}." for group in budget.unequal(budgets)]


def _ignored_notes(spec: Spec) -> list[str]:
    """Name the settings that were changed from their default and change nothing in any trial."""
    reasons: list[dict[str, str]] = []
    for settings in spec.combinations():
        found = ignored(settings | _plugin_facts(plugins.load("methods", settings["method"])))
        reasons.append({name: why for name, why in found.items() if settings[name] != Spec.default(name)})
    everywhere = sorted(name for name in reasons[0] if all(name in found for found in reasons))
    return [f"{name} changes nothing here: {reasons[0][name]}." for name in everywhere]


def _survey_notes(survey: Survey) -> Iterable[str]:
    if survey.num_truncated:
        yield f"{survey.num_truncated} rows are truncated at max_length."
    if survey.num_dropped:
        yield f"{survey.num_dropped} rows are dropped: nothing of their completion is left after truncation."
    if survey.num_duplicates:
        yield f"{survey.num_duplicates} training rows have a prompt that is also in validation or test."
