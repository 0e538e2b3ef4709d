"""A study from its file to its results: the loop, the comparison around it, and the view on what is stored."""

from welltuned.study.compare import compare, oracle
from welltuned.study.loop import run
from welltuned.study.options import Note, Notice, Observer, Options, Planned, Started
from welltuned.study.surveys import preview
from welltuned.study.view import Study

__all__ = [
    "Note",
    "Notice",
    "Observer",
    "Options",
    "Planned",
    "Started",
    "Study",
    "compare",
    "oracle",
    "preview",
    "run",
]
