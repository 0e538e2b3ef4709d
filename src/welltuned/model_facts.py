"""What a base model's configuration says of it (widths, family), read without torch and without a download.

Of a GGUF file only the header is read, up to the entries wanted: little-endian, version 2 or 3, as in the format's
specification (ggml docs/gguf.md). A hub name must be in the hub's cache of this machine.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from welltuned.errors import InputError, problem
from welltuned.fingerprint import BUNDLED_FAMILY, BUNDLED_NAMES

# Names that configurations of transformers give the hidden size and the MLP's inner width.
WIDTH_KEYS = ("hidden_size", "n_embd", "d_model", "dim")
INNER_KEYS = ("intermediate_size", "n_inner", "ffn_dim", "d_ff")
INNER_MODULES = ("down_proj", "fc2", "dense_4h_to_h", "w2")  # modules whose inputs are the inner width
ATTENTION_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "c_attn", "query_key_value")
GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type
GGUF_WHOLE = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
GGUF_STRING, GGUF_ARRAY = 8, 9
GIVE_WIDTH = "give the hidden size yourself: --hidden-size 4096"


@dataclass(frozen=True)
class ModelFacts:
    """A model's hidden size, the inner width of its MLP (None: not said), and its model_type ("" where not said)."""

    hidden_size: int
    inner_size: int | None
    family: str


def read(base: str) -> ModelFacts:
    """Read a bundled name, a folder with config.json or one GGUF file, a .gguf file, or a cached hub name."""
    path = Path(base).expanduser()
    if base in BUNDLED_NAMES and not path.exists():
        path = Path(__file__).parent / "models" / BUNDLED_FAMILY / base.removeprefix(f"{BUNDLED_FAMILY}-")
    if path.is_dir():
        return _of_folder(base, path)
    if path.is_file() and path.suffix == ".gguf":
        return _of_gguf(path)
    if path.is_file() or base.startswith((".", "~", "/")) or base.endswith(".gguf"):
        raise InputError(
            problem("model", base, "a folder or .gguf file that exists", f"check the path, or {GIVE_WIDTH}")
        )
    return _of_config(base, _cached_config(base))


def inputs(facts: ModelFacts, target_modules: tuple[str, ...]) -> int:
    """Return the number of inputs of the adapted layers: the hidden size, unless all of them lie behind the MLP."""
    if not target_modules or not all(name.rpartition(".")[2] in INNER_MODULES for name in target_modules):
        return facts.hidden_size
    if facts.inner_size is None:
        expected = "a configuration with an intermediate size"
        raise InputError(problem("model", "none", expected, f"for {', '.join(target_modules)} {GIVE_WIDTH}"))
    return facts.inner_size


def attention_only(target_modules: tuple[str, ...]) -> bool:
    """Say whether only attention's layers are adapted."""
    return bool(target_modules) and all(name.rpartition(".")[2] in ATTENTION_MODULES for name in target_modules)


def _of_folder(base: str, folder: Path) -> ModelFacts:
    config = folder / "config.json"
    if config.is_file():
        return _of_config(base, config)
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) != 1:
        got = f"{len(ggufs)} .gguf files and no config.json"
        raise InputError(
            f"model: got a folder with {got}, expected config.json or one .gguf file; name the file, or {GIVE_WIDTH}"
        )
    return _of_gguf(ggufs[0])


def _of_config(base: str, path: Path) -> ModelFacts:
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"model: {path} is not valid JSON ({error}); download it again, or {GIVE_WIDTH}") from error
    config = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    inner = config.get("text_config")  # of models that see and hear as well
    text = cast("dict[str, Any]", inner) if isinstance(inner, dict) else config
    width = _whole(text, WIDTH_KEYS)
    if width is None:
        raise InputError(
            f"model: the config.json of '{base}' names no hidden size, expected one of {', '.join(WIDTH_KEYS)}; "
            f"{GIVE_WIDTH}"
        )
    return ModelFacts(width, _whole(text, INNER_KEYS), str(text.get("model_type") or config.get("model_type") or ""))


def _whole(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    values = [config.get(name) for name in names]
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def _cached_config(base: str) -> Path:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{base.replace('/', '--')}"
    reference = folder / "refs" / "main"
    if reference.is_file():
        config = folder / "snapshots" / reference.read_text().strip() / "config.json"
        if config.is_file():
            return config
    raise InputError(
        f"model: got '{base}', which is no local path and whose config.json is not in the hub's cache here, expected a "
        f"bundled name ({', '.join(BUNDLED_NAMES)}), a folder, a .gguf file or a downloaded hub model; nothing is "
        f"downloaded here: run `hf download {base} config.json` first, or {GIVE_WIDTH}"
    )


# The header of a GGUF file --------------------------------------------------------------------------------------------


def _of_gguf(path: Path) -> ModelFacts:
    with path.open("rb") as file:
        magic, version, _, num_entries = struct.unpack("<4sIQQ", _take(file, 24, path))
        if magic != b"GGUF" or version not in (2, 3):
            got = f"magic {magic!r}, version {version}"
            raise InputError(
                problem(f"model {path}", got, "a GGUF file of version 2 or 3", f"download it again, or {GIVE_WIDTH}")
            )
        found: dict[str, int | str] = {}
        for _ in range(num_entries):
            name = _text(file, path)
            value = _value(file, int(struct.unpack("<I", _take(file, 4, path))[0]), path)
            if value is not None:
                found[name] = value
            family = str(found.get("general.architecture", ""))
            width, inner = found.get(f"{family}.embedding_length"), found.get(f"{family}.feed_forward_length")
            if isinstance(width, int) and isinstance(inner, int):
                return ModelFacts(width, inner, family)
    width = found.get(f"{found.get('general.architecture')}.embedding_length")
    if isinstance(width, int):
        return ModelFacts(width, None, str(found["general.architecture"]))
    raise InputError(f"model: the header of {path} has no embedding_length, expected the hidden size; {GIVE_WIDTH}")


def _take(file: BinaryIO, num_bytes: int, path: Path) -> bytes:
    found = file.read(num_bytes)
    if len(found) < num_bytes:
        raise InputError(f"model: {path} ends within its header, expected a whole GGUF file; download it again")
    return found


def _text(file: BinaryIO, path: Path) -> str:
    (length,) = struct.unpack("<Q", _take(file, 8, path))
    return _take(file, length, path).decode("utf-8", errors="replace")


def _value(file: BinaryIO, kind: int, path: Path) -> int | str | None:
    """Read a value; of what is neither a whole number nor text only the bytes are passed over."""
    if kind == GGUF_STRING:
        return _text(file, path)
    if kind == GGUF_ARRAY:
        of, length = struct.unpack("<IQ", _take(file, 12, path))
        if of in GGUF_SIZES:
            _take(file, GGUF_SIZES[of] * length, path)
        else:
            for _ in range(length):
                _value(file, of, path)
        return None
    if kind not in GGUF_SIZES:
        raise InputError(f"model: {path} has a value of unknown type {kind} in its header; {GIVE_WIDTH}")
    data = _take(file, GGUF_SIZES[kind], path)
    return int(struct.unpack(GGUF_WHOLE[kind], data)[0]) if kind in GGUF_WHOLE else None
