"""Where the numbers come from and how to get them again: hashes, versions, hardware, and the commands."""

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib import metadata

from welltuned.analysis.wording import plural
from welltuned.records import Declaration, Result

STUDY_FILE = "study.toml"  # beside the page
# Packages of a recorded environment that pip can install; what stands after "+" names a build and not a version.
PACKAGES = ("welltuned", "torch", "transformers", "numpy")


def version() -> str:
    """Return the version of the welltuned that makes the page."""
    try:
        return metadata.version("welltuned")
    except metadata.PackageNotFoundError:
        return "run from its sources"


def hashes(results: Sequence[Result], declaration: Declaration) -> dict[str, str]:
    """Return every content hash of the study by what it is the hash of."""
    found = {"Declaration": declaration.spec_hash}
    for config in dict.fromkeys(result.config for result in results):
        revision = f", revision {config.revision}" if config.revision else ""
        found[f"Base model {config.base}"] = f"{config.base_hash}{revision}"
        files = ", ".join((*config.data_train, *config.data_validation, *config.data_test))
        found[f"Data of {config.task}{f' ({files})' if files else ''}"] = (
            f"{config.data_hash} (task version {config.task_version})"
        )
        source = f", source {config.method_source}" if config.method_source else ""
        found[f"Method {config.method}"] = f"version {config.method_version}{source}"
        if config.start_from:
            found[f"Adapter {config.start_from}"] = config.start_hash
    return found


def environment(text: str) -> dict[str, str]:
    """Return what a recorded environment says, as texts."""
    found: Mapping[str, object] = json.loads(text)
    return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def hardware(environments: Sequence[str]) -> str:
    """Say on what the trials ran, as far as it was recorded; "" where nothing was.

    >>> hardware(['{"processor": "EPYC", "threads": 2, "device": "cpu"}'])
    'Trials ran on: EPYC (2 threads, device cpu).'
    """
    told: list[str] = []
    for found in map(environment, environments):
        facts = [plural(int(found["threads"]), "thread")] if "threads" in found else []
        facts += [f"device {found['device']}"] if "device" in found else []
        name = found.get("processor", found.get("machine", "a processor that was not recorded"))
        told.append(f"{name} ({', '.join(facts)})" if facts else name)
    return f"Trials ran on: {'; '.join(dict.fromkeys(told))}." if told else ""


def install_command(environments: Sequence[str]) -> str | None:
    """Return the command that installs the recorded versions; None where none was recorded."""
    if not environments:
        return None
    found = environment(environments[0])
    wanted = [f"{name}=={found[name].partition('+')[0]}" for name in PACKAGES if name in found]
    return shlex.join(["pip", "install", *wanted]) if wanted else None


# They run the study again into a folder of its own and make its page.
RUN_COMMANDS = f"welltuned run {STUDY_FILE} --folder runs/again\nwelltuned report runs/again"


def differing_environments(environments: Sequence[str]) -> str:
    """Say that the versions are those of the first of several environments; "" where there is one."""
    if len(environments) < 2:
        return ""
    return f"These are the versions of the first of {plural(len(environments), 'environment')}."
