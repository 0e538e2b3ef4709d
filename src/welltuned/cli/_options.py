"""The flags that several verbs share: where and how much, never a hyperparameter."""

import re
from pathlib import Path
from typing import Annotated

import typer

from welltuned.errors import InputError, problem

SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

StudyFile = Annotated[Path, typer.Argument(help="The study file (TOML).")]
StudyFolder = Annotated[Path, typer.Argument(help="The study's folder.")]
Folder = Annotated[
    Path | None, typer.Option("--folder", help="Where the study is kept. Default: runs/NAME, after the study's name.")
]
Device = Annotated[str, typer.Option("--device", help='Where it is trained: "cpu", "cuda:0".')]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads to compute with. Default: all cores.")]
Memory = Annotated[
    str | None, typer.Option("--memory", help='Memory to plan for, as in "12GB". Default: most of what is available.')
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]
Yes = Annotated[bool, typer.Option("--yes", help="Overwrite what is there.")]


def parse_bytes(text: str | None) -> int | None:
    """Read a number of bytes.

    >>> parse_bytes("12GB"), parse_bytes("1.5 g"), parse_bytes("800M"), parse_bytes(None)
    (12000000000, 1500000000, 800000000, None)
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)b?", text.strip().lower())
    if not found or float(found.group(1)) <= 0:
        raise InputError(problem("--memory", text, 'a number of bytes as in "12GB"', "write --memory 12GB"))
    return round(float(found.group(1)) * SCALES[found.group(2)])
