"""Rows of data files (JSONL, JSON, CSV, gzipped or not, and Parquet) or of a hub data set, and the examples they make.

Every refusal names the file and the line or row, so that it can be looked at.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from welltuned import plugins
from welltuned.errors import InputError
from welltuned.fingerprint import HubData, hub_commit, hub_data, missing_data
from welltuned.tasks._task import Example

SHOWN = 60  # characters of a malformed line
CSV_CELL_CHARACTERS = 100_000_000  # the csv module's own limit, 131,072, is below a long document


def examples(task_name: str, paths: Sequence[str], split: str) -> list[Example]:
    """Read all rows of these sources as examples of a task; raises InputError with a problem for each bad source."""
    task = plugins.load("tasks", task_name)
    read_row = task.read_row
    assert read_row is not None, "a task that generates its examples has no sources"
    found: list[Example] = []
    problems: list[str] = []
    for source in paths:
        try:
            for number, row in enumerate(read(source, split), 1):
                found.append(_example(task_name, read_row, row, f"{source}, row {number}"))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def count(paths: Sequence[str], split: str) -> int:
    """Return how many rows these sources have together; raises InputError with the problems of every bad one."""
    num_rows = 0
    problems: list[str] = []
    for source in paths:
        try:
            num_rows += len(read(source, split))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return num_rows


def read(source: str, split: str) -> list[Mapping[str, object]]:
    """Return the rows of one file or hub data set; `split` is the hub's split to take."""
    hub = hub_data(source)
    if hub is not None:
        rows = _read_hub(source, hub, split)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise InputError(missing_data(source))
        rows = _read_file(path)
    if not rows:
        raise InputError(f"{source}: the file is empty, expected at least one row; check how it was made")
    return rows


def _example(
    task_name: str, read_row: Callable[[Mapping[str, object]], Example], row: Mapping[str, object], where: str
) -> Example:
    try:
        example = read_row(row)
    except KeyError as error:
        fits = _tasks_that_read(row)
        do = f'task = "{fits[0]}" reads these columns' if fits else "rename a column, or name another task"
        raise InputError(
            f"{where}: no column '{error.args[0]}', which task '{task_name}' reads, expected it among the columns "
            f"{', '.join(map(str, row))}; {do}"
        ) from error
    except ValueError as error:
        raise InputError(f"{where}: {error}; correct or remove the row") from error
    try:
        f"{example.prompt}{example.completion}".encode()
    except UnicodeEncodeError as error:  # JSON may have it as \ud800, and no tokenizer reads it
        got = f"{error.object[error.start]!r}, half of a character (a lone surrogate)"
        raise InputError(f"{where}: got {got}, expected whole characters; correct or remove the row") from error
    return example


def _tasks_that_read(row: Mapping[str, object]) -> list[str]:
    """List the tasks that ship here and can read a row; those with a grader, which ask for more of it, first."""
    fitting: list[tuple[bool, str]] = []
    for name in plugins.names("tasks"):
        task = plugins.load("tasks", name)
        if task.read_row is None:
            continue
        try:
            task.read_row(row)
        except (KeyError, ValueError):
            continue
        fitting.append((task.grade is None, name))
    return [name for _, name in sorted(fitting)]


# Files ----------------------------------------------------------------------------------------------------------------


def _read_file(path: Path) -> list[Mapping[str, object]]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _read_parquet(path)
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv}
    suffix = Path(name).suffix
    if suffix not in readers:
        raise InputError(
            f"{path}: got a file ending in '{suffix}', expected .jsonl, .json, .csv or .parquet; rename it"
        )
    return readers[suffix](path, _text(path))


def _text(path: Path) -> str:
    """Return a file's text with \\n line ends and without a byte order mark."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}), expected a whole file; copy or download it again"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text; convert the file to UTF-8") from error
    return text.replace("\r\n", "\n")


def _malformed(path: Path, line: int, error: json.JSONDecodeError | csv.Error, text: str, do: str) -> InputError:
    shown = text.strip()
    shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return InputError(f"{path}, line {line}: malformed ({reason}): {shown!r}; {do}")


def _read_jsonl(path: Path, text: str) -> list[Mapping[str, object]]:
    rows: list[Mapping[str, object]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            do = "correct the line, or name the file .json if it holds one list" if number == 1 else "correct the line"
            raise _malformed(path, number, error, line, do) from error
        if not isinstance(row, dict):
            raise InputError(
                f"{path}, line {number}: got {type(row).__name__}, expected a JSON object; correct the line"
            )
        rows.append(row)
    return rows


def _read_json(path: Path, text: str) -> list[Mapping[str, object]]:
    if not text.strip():
        return []
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        do = (
            "name the file .jsonl if it has an object on each line" if error.msg == "Extra data" else "correct the file"
        )
        raise _malformed(path, error.lineno, error, line, do) from error
    lists = [value for value in whole.values() if isinstance(value, list)] if isinstance(whole, dict) else [whole]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise InputError(
            f"{path}: got {type(whole).__name__} with {len(lists)} lists, expected a list of objects, or an object "
            "that holds one such list; write one object per line as .jsonl"
        )
    for number, row in enumerate(lists[0], 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number}: got {type(row).__name__}, expected an object; correct the row")
    return lists[0]


def _read_csv(path: Path, text: str) -> list[Mapping[str, object]]:
    """Read cells as text, empty ones too; a row whose number of cells differs from the header's is refused."""
    rows: list[Mapping[str, object]] = []
    csv.field_size_limit(CSV_CELL_CHARACTERS)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not header:
                header = [name.strip() for name in cells]
                continue
            if len(cells) != len(header):
                raise csv.Error(f"{len(cells)} cells under {len(header)} columns")
            rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        lines = text.split("\n")
        shown = lines[min(reader.line_num, len(lines)) - 1]
        do = "put cells that hold commas, quotes or line ends in double quotes"
        raise _malformed(path, reader.line_num, error, shown, do) from error
    return rows


def _read_parquet(path: Path) -> list[Mapping[str, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file ({error}); write it again, or give the data as .jsonl") from error


# The hub --------------------------------------------------------------------------------------------------------------


def _read_hub(source: str, hub: HubData, split: str) -> list[Mapping[str, object]]:
    import datasets  # only where a hub name is used

    commit = hub_commit(source, hub)
    try:
        table = datasets.load_dataset(hub.name, hub.subset, split=split, revision=commit)
    except ValueError as error:  # an unknown subset or split; the library's message lists those that exist
        reason = " ".join(str(error).split())
        raise InputError(
            f"data set '{source}': no split '{split}' of it can be read ({reason}); name a subset as in "
            "owner/name:subset, or leave data_validation and data_test out to carve them from train"
        ) from error
    except OSError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"data set '{source}': cannot be read ({reason}), expected it on the hub or downloaded; "
            "connect and run again"
        ) from error
    return table.to_list()
