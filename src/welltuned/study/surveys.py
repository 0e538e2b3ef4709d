"""What has to be known before planning: a survey of each base and its data, made once and kept in the user's cache."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from welltuned import plan as plans
from welltuned.errors import MachineError, WelltunedError
from welltuned.executors.inline import Inline
from welltuned.executors.machine import cache_folder
from welltuned.plan import Plan
from welltuned.records import JobLost, Survey, SurveyJob
from welltuned.spec import Spec
from welltuned.store import codec
from welltuned.study.options import Observer, Options, silent

# Code that decides what a survey says.
SOURCES = ("data", "models", "tasks", "survey.py", "records.py")


def preview(spec: Spec, options: Options | None = None, observe: Observer = silent) -> Plan:
    """Plan a study without training anything or making a folder; instant where base and data were surveyed before."""
    return plans.make(spec, look(spec, options or Options(), observe))


def look(spec: Spec, options: Options, observe: Observer) -> dict[str, Survey]:
    """Return the survey of every base and data set of a spec, by key, before it is known whether a plan fits them."""
    with Inline(options.runtime("", options.new_threads()), options.entry) as executor:
        return collect(spec, {}, executor, options.entry, observe)


def collect(
    spec: Spec, known: Mapping[str, Survey], executor: Inline, entry: str, observe: Observer
) -> dict[str, Survey]:
    """Return the survey of every base and data set of a spec, by key; what is neither known nor cached is made."""
    found: dict[str, Survey] = {}
    for config in plans.survey_configs(spec):
        key = plans.survey_key(config)
        survey = known.get(key) or _read(_cache(key, entry))
        if survey is None:
            survey = _make(SurveyJob(key, config), executor, observe)
            _write(_cache(key, entry), survey)
        found[key] = survey
    return found


def _make(job: SurveyJob, executor: Inline, observe: Observer) -> Survey:
    survey = None
    for event in executor.run(job):
        observe(event)
        if isinstance(event, Survey):
            survey = event
        if isinstance(event, JobLost):
            raise MachineError(
                f"base {job.config.base}: the worker that looked at it was lost ({event.reason}); free some memory and "
                "run again, or choose a smaller base"
            )
    if survey is None:
        raise WelltunedError(f"base {job.config.base}: its survey came to no result; this is a defect of welltuned")
    return survey


def _cache(key: str, entry: str) -> Path:
    return cache_folder() / "surveys" / f"{key}-{_code_version(entry)}.json"


def _code_version(entry: str) -> str:
    """Hash the code that decides what a survey says, so that a changed one is asked again."""
    return hashlib.sha256((entry + source_version(SOURCES)).encode()).hexdigest()[:16]


@functools.cache
def source_version(names: tuple[str, ...]) -> str:
    """Hash these files and folders of the package."""
    digest = hashlib.sha256()
    package = Path(plans.__file__).parent
    for name in names:
        path = package / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _read(file: Path) -> Survey | None:
    """Return a cached survey; None where there is none, or only one that a full disk cut short."""
    try:
        row = json.loads(file.read_text())
        survey = codec.decode("Survey", row["body"], "{}")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return survey if isinstance(survey, Survey) else None


def _write(file: Path, survey: Survey) -> None:
    """Keep a survey for the next time; a cache that cannot be written costs seconds then and nothing else."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"body": codec.encode(survey).body}))
    except OSError:
        return
