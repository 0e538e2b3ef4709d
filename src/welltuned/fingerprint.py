"""Where a base model's and a data set's files are, and one hash for the bytes of each; finished work is named by these.

A base is a local folder, a `.gguf` file, a bundled name or a hub name, looked for in this order. A folder that cannot
be trained (no config, no safetensors, no tokenizer, not a causal language model) is refused here, before anything is
loaded.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from welltuned.errors import InputError, problem, suggestion

BUNDLED_FAMILY = "abacus"
BUNDLED_SIZES = ("small", "middle", "large")
BUNDLED_NAMES = tuple(f"{BUNDLED_FAMILY}-{size}" for size in BUNDLED_SIZES)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt")
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
HUB_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "config.json", *TOKENIZER_FILES, *TOKENIZER_SETTINGS)
CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel")
# model_type values of what is no decoder-only language model, for a config.json that names no architecture.
NOT_CAUSAL = re.compile(
    "(m|um)?t5|m?bart|pegasus|led|marian|m2m_100|whisper|blenderbot|(distil|al|modern)?bert|roberta|"
    "xlm-roberta|electra|deberta(-v2)?|vit|clip|siglip|wav2vec2|hubert|esm"
)
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")

_HUB_MODEL = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_MODEL_FILE = re.compile(r"([\w.-]+/[\w.-]+)/([\w./-]+\.gguf)")
_HUB_DATA = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<subset>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True)
class BaseFiles:
    """Where a base model's files are; `revision` is the pinned commit of a model from the hub."""

    kind: str  # "folder" | "gguf" | "hub"
    folder: Path
    gguf: str | None  # file name in the folder
    revision: str | None


@dataclass(frozen=True)
class HubData:
    """A data set on the hub, written `owner/name`, `owner/name:subset` or `owner/name:subset@revision`."""

    name: str
    subset: str | None
    revision: str | None


# The base model -------------------------------------------------------------------------------------------------------


def resolve_base(base: str, revision: str | None) -> BaseFiles:
    """Find a base model's files; those of a hub name are downloaded, at one pinned commit."""
    path = Path(base).expanduser()
    if path.is_dir():
        return _local(_checked_folder(base, path), revision)
    if path.is_file():
        return _local(_checked_file(base, path), revision)
    if base in BUNDLED_NAMES:
        folder = Path(__file__).parent / "models" / BUNDLED_FAMILY / base.removeprefix(f"{BUNDLED_FAMILY}-")
        if not folder.is_dir():
            raise InputError(f"base: '{base}' is bundled, but {folder} is missing; reinstall welltuned")
        return _local(_checked_folder(base, folder), revision)
    in_hub = _HUB_MODEL_FILE.fullmatch(base)
    if in_hub and not base.startswith("."):
        return _from_hub(base, in_hub[1], (in_hub[2],), revision)
    if path.is_absolute() or base.startswith((".", "~")) or base.endswith(".gguf") or not _HUB_MODEL.fullmatch(base):
        raise InputError(
            problem("base", base, "a folder or .gguf file that exists", f"check the path, or use one of {_bundled()}")
        )
    return _from_hub(base, base, HUB_PATTERNS, revision)


def base_hash(base: str, revision: str | None) -> str:
    """Return SHA-256 over the names and bytes of a base's weights, config and tokenizer; the same wherever they lie."""
    files = resolve_base(base, revision)
    if files.gguf is not None:
        return _combine([("model.gguf", file_hash(files.folder / files.gguf))])
    wanted = {"config.json", *TOKENIZER_FILES, *TOKENIZER_SETTINGS}
    paths = [path for path in files.folder.iterdir() if path.name in wanted or path.suffix == ".safetensors"]
    return files_hash(sorted(paths))


def check_base(base: str, revision: str | None, expected: str) -> None:
    """Raise InputError where a base's files are not those with this hash, which a trial was planned or trained with."""
    found = base_hash(base, revision)
    if found != expected:
        wanted = f"{expected[:12]}, the hash of what the trial is of"
        raise InputError(problem(f"base '{base}'", found[:12], wanted, "put back the base's old files"))


def _bundled() -> str:
    return ", ".join(BUNDLED_NAMES)


def _local(files: BaseFiles, revision: str | None) -> BaseFiles:
    if revision is not None:
        raise InputError(
            problem("revision", revision, "nothing, since the base is local", "remove revision, or name a hub model")
        )
    return files


def _checked_file(base: str, path: Path) -> BaseFiles:
    if path.suffix != ".gguf":
        raise InputError(problem("base", base, "a folder or a .gguf file", "give the model's folder"))
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise InputError(problem(f"base {base}", magic, "a file that starts with b'GGUF'", "download the file again"))
    return BaseFiles("gguf", path.parent, path.name, None)


def _checked_folder(base: str, folder: Path) -> BaseFiles:
    """Accept a folder that holds a causal language model in Hugging Face format, or exactly one GGUF file."""
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        ggufs = [name for name in names if name.endswith(".gguf")]
        if len(ggufs) == 1:
            return _checked_file(base, folder / ggufs[0])
        if ggufs:
            raise InputError(
                f"base: got a folder with {len(ggufs)} .gguf files, expected one; name one of them, "
                f'for instance base = "{base.rstrip("/")}/{ggufs[0]}" (there: {", ".join(ggufs)})'
            )
        raise InputError(
            f"base: folder '{base}' has no config.json and no .gguf file, expected a model in Hugging Face format; "
            "give the folder that save_pretrained wrote"
        )
    _check_architecture(base, folder / "config.json")
    _check_contents(base, names)
    return BaseFiles("folder", folder, None, None)


def _check_architecture(base: str, path: Path) -> None:
    try:
        read: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"base: {path} is not valid JSON ({error}); download the model again") from error
    if not isinstance(read, dict):
        raise InputError(
            f"base: {path} holds no JSON object, expected a model's configuration; download the model again"
        )
    config = cast("dict[str, Any]", read)
    architectures = [str(name) for name in cast("list[object]", config.get("architectures") or [])]
    model_type = str(config.get("model_type", ""))
    causal = any(name.endswith(CAUSAL_SUFFIXES) for name in architectures)
    if architectures and not causal:
        found = ", ".join(architectures)
    elif NOT_CAUSAL.fullmatch(model_type) or config.get("is_encoder_decoder") is True:
        found = model_type
    elif not architectures and not model_type:
        found = "no architecture"
    else:
        return
    raise InputError(
        f"base: '{base}' is not a causal language model: got {found}, expected an architecture that ends in "
        "ForCausalLM or LMHeadModel; choose a decoder-only text model"
    )


def _check_contents(base: str, names: list[str]) -> None:
    if not any(name.endswith(".safetensors") for name in names):
        pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
        got = f"only {pickled[0]}, a pickle, which welltuned never opens" if pickled else "no weights"
        raise InputError(
            f"base: '{base}' has {got}, expected .safetensors files; "
            + ("save it again with save_pretrained(..., safe_serialization=True)" if pickled else "download them too")
        )
    if not any(name in TOKENIZER_FILES for name in names):
        raise InputError(
            f"base: '{base}' has no tokenizer, expected one of {', '.join(TOKENIZER_FILES)}; "
            "save it there with tokenizer.save_pretrained(...)"
        )


def _from_hub(base: str, name: str, patterns: tuple[str, ...], revision: str | None) -> BaseFiles:
    import huggingface_hub  # only where a hub name is used

    def download() -> str:
        fetch = cast("Callable[..., str]", huggingface_hub.snapshot_download)  # pyright: ignore[reportUnknownMemberType]
        return fetch(name, revision=revision, allow_patterns=[*patterns])

    folder = Path(_ask_hub(f"base '{base}'", revision, download))
    ggufs = [pattern for pattern in patterns if pattern.endswith(".gguf")]
    if ggufs:
        if not (folder / ggufs[0]).is_file():
            raise InputError(f"base: hub model '{name}' has no file '{ggufs[0]}'; look up its files on huggingface.co")
        return BaseFiles("gguf", (folder / ggufs[0]).parent, Path(ggufs[0]).name, folder.name)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"base: hub model '{name}' has no config.json, expected a model in Hugging Face format; "
            f'for one of its GGUF files write base = "{name}/FILE.gguf"'
        )
    _checked_folder(base, folder)
    return BaseFiles("hub", folder, None, folder.name)


def _ask_hub(what: str, revision: str | None, ask: Callable[[], T]) -> T:
    """Turn the hub's many errors into one line that says what to do."""
    import httpx2
    import huggingface_hub.errors as hub

    try:
        return ask()
    except hub.HFValidationError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{what}: neither a local path nor a name on the hub ({reason}); {_meant(what)}") from error
    except hub.RevisionNotFoundError as error:
        raise InputError(f"{what}: the hub has no revision {revision!r}; name a branch, tag or commit of it") from error
    except hub.GatedRepoError as error:
        raise InputError(
            f"{what}: the hub asks you to accept its terms; do so on its page, then `hf auth login`"
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise InputError(f"{what}: neither a local path nor on the hub; {_meant(what)}") from error
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        raise InputError(
            f"{what}: not a local path, not downloaded yet, and the hub cannot be reached (offline?); connect and run "
            f"again, or give a local path; {_meant(what)}"
        ) from error


def _meant(what: str) -> str:
    if not what.startswith("base"):
        return "check the spelling"
    return suggestion(what.removeprefix("base ").strip("'"), BUNDLED_NAMES)


# The data -------------------------------------------------------------------------------------------------------------


def hub_data(source: str) -> HubData | None:
    """Read a hub data set's name; None for the name of a file, whether or not that exists."""
    if Path(source).expanduser().exists() or source.endswith(DATA_SUFFIXES) or source.startswith((".", "/", "~")):
        return None
    found = _HUB_DATA.fullmatch(source)
    return HubData(found["name"], found["subset"], found["revision"]) if found else None


def data_hash(paths: tuple[str, ...], extra: str) -> str:
    """Return SHA-256 over the bytes of the data files in order (of hub data: its name and commit) and over `extra`."""
    parts: list[tuple[str, str]] = [("extra", hashlib.sha256(extra.encode()).hexdigest())]
    problems: list[str] = []
    for source in paths:
        hub = hub_data(source)
        path = Path(source).expanduser()
        if hub is not None:
            parts.append((f"{hub.name}:{hub.subset or ''}", hub_commit(source, hub)))
        elif path.is_file():
            parts.append(("file", file_hash(path)))
        else:
            problems.append(missing_data(source))
    if problems:
        raise InputError(problems)
    return _combine(parts)


def missing_data(source: str) -> str:
    """Compose the line for a data file that is not there."""
    expected = f"a file ({', '.join(DATA_SUFFIXES[:4])}, or .gz of the first three) or a hub name (owner/name)"
    if Path(source).expanduser().is_dir():
        return problem("data file", source, expected, "that is a folder: name the files in it, one by one")
    return problem("data file", source, expected, f"nothing is there, seen from {os.getcwd()}: check the path")


def hub_commit(source: str, hub: HubData) -> str:
    """Return the commit that a hub data set's revision stands for; offline, the one that was downloaded."""
    import httpx2
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    if hub.revision is not None and re.fullmatch(r"[0-9a-f]{40}", hub.revision):
        return hub.revision
    owner, _, name = hub.name.partition("/")
    folder = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{owner}--{name}" / "refs"
    reference = folder / (hub.revision or "main")

    def ask() -> str | None:
        try:
            return huggingface_hub.HfApi().dataset_info(hub.name, revision=hub.revision).sha
        except (OfflineModeIsEnabled, httpx2.TransportError):
            if not reference.is_file():
                raise
            return reference.read_text().strip()

    commit = _ask_hub(f"data set '{source}'", hub.revision, ask)
    if commit is None:
        raise InputError(f"data set '{source}': the hub names no commit for it; pin one, as in owner/name@COMMIT")
    return commit


# Hashes ---------------------------------------------------------------------------------------------------------------


def files_hash(paths: Iterable[Path]) -> str:
    """Return SHA-256 over the names and bytes of files, in the order given."""
    return _combine((path.name, file_hash(path)) for path in paths)


def file_hash(path: Path) -> str:
    """Return SHA-256 of a file's bytes, computed once as long as its size and time of change stay the same."""
    target = path.resolve()
    # The hub's cache names large files by their SHA-256, so they need not be read.
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    state = target.stat()
    return _hash_bytes(str(target), state.st_size, state.st_mtime_ns)


@cache
def _hash_bytes(path: str, num_bytes: int, changed_ns: int) -> str:
    """Hash a file; the last two arguments are part of the cache's key only."""
    del num_bytes, changed_ns
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _combine(parts: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in parts)
    return hashlib.sha256(lines.encode()).hexdigest()
