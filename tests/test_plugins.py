"""A study names a plug-in from outside whose file is at fault: the error says what, where, and what to do."""

import re
import sys

import pytest

from small_study import edited, forge_hashes
from welltuned import plan as plans
from welltuned import plugins
from welltuned.cli import main
from welltuned.errors import InputError
from welltuned.spec import Spec

FINE = "from welltuned.methods import Method\nfrom welltuned.methods.lora import METHOD\n"
# the file's text, what the study calls it, and the line that is shown
CASES = {
    "no such module": (
        *(None, "my_lab.absent:METHOD"),
        r"a module that Python finds, but there is none called 'my_lab\.absent'; install it, or run "
        "`python -m welltuned` from the folder that holds it",
    ),
    "no such package": (
        *(None, "nowhere.sparse:METHOD"),
        r"a module that Python finds, but there is none called 'nowhere'; install it, or run",
    ),
    "a missing package": (
        *("import torch_but_better\n" + FINE, "my_lab.broken:METHOD"),
        r"all that it imports to be installed, but there is no 'torch_but_better' \(.*my_lab.broken\.py, line 1\); "
        "install 'torch_but_better' into the environment that runs welltuned",
    ),
    "a missing name": (
        *("from welltuned.methods import Methods\n", "my_lab.broken:METHOD"),
        r"a module that can be imported, but it raised ImportError: cannot import name 'Methods' from .* "
        r"\(.*my_lab.broken\.py, line 1\); correct it; `python -c \"import my_lab\.broken\"` shows all of it",
    ),
    "a syntax error": (
        *(FINE + "def init(:\n", "my_lab.broken:METHOD"),
        r"a module of valid Python, but .*my_lab.broken\.py, line 3, says: invalid syntax; correct that line",
    ),
    "a failure": (
        *(FINE + "\n\ndef share():\n    return 1 / 0\n\n\nSHARE = share()\n", "my_lab.broken:METHOD"),
        r"but it raised ZeroDivisionError: division by zero \(.*my_lab.broken\.py, line 6\); correct it;",
    ),
    "an unfinished METHOD": (
        *("from welltuned.methods import Method\nMETHOD = Method(summary='sparse')\n", "my_lab.broken:METHOD"),
        r"but it raised TypeError: .*missing \d+ required positional arguments: 'paper', .*, line 2\); correct it;",
    ),
    "no METHOD": (
        *("SHARE = 0.1\n", "my_lab.broken:METHOD"),
        r"but module 'my_lab\.broken' has no 'METHOD', expected one that it exports; write METHOD = \.\.\. in it",
    ),
    "another METHOD": (
        *(FINE + "SPARSE = METHOD\ndel METHOD\n", "my_lab.broken:METHOD"),
        r"has no 'METHOD', expected one that it exports; did you mean 'my_lab\.broken:SPARSE'\?",
    ),
    "no Method": (
        *("METHOD = 'lora'\n", "my_lab.broken:METHOD"),
        r"which is of type str, expected a Method; make it one, as docs/add-a-method\.md shows",
    ),
    "no name": (
        *(None, "my_lab.broken:"),
        r"expected a name such as 'my_lab\.sparse:METHOD'; write the module, a colon, the",
    ),
    "a path": (
        *(None, "my_lab/broken.py:METHOD"),
        r"expected a name such as 'my_lab\.sparse:METHOD'; write the module, a",
    ),
}


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    """An empty package, where Python finds it."""
    (tmp_path / "my_lab").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path / "my_lab"
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


@pytest.mark.parametrize("case", CASES)
def test_a_method_from_outside_that_fails_is_one_clear_line(case, my_lab, monkeypatch):
    """What was named, what is wrong with it and where, what was expected, what to do; when the study is planned."""
    text, name, line = CASES[case]
    if text is not None:
        (my_lab / "broken.py").write_text(text)
    forge_hashes(monkeypatch)
    spec = Spec.model_validate(edited(axes={"method": ["lora", name]}))
    with pytest.raises(InputError) as raised:
        plans.expand(spec)
    (shown,) = raised.value.problems
    assert re.fullmatch(rf"methods plug-in: got '{re.escape(name)}', .*{line}.*", shown), shown


def test_a_method_from_outside_that_is_fine_is_itself(my_lab):
    (my_lab / "fine.py").write_text(FINE)
    assert plugins.load("methods", "my_lab.fine:METHOD") is plugins.load("methods", "lora")


def test_a_task_that_fails_and_a_start_that_fails_are_told(my_lab):
    (my_lab / "broken.py").write_text("raise OSError('no disk')\n")
    with pytest.raises(
        InputError, match=r"tasks plug-in: got 'my_lab\.broken:TASK', .* raised OSError: no disk \(.*line 1"
    ):
        plugins.load("tasks", "my_lab.broken:TASK")
    with pytest.raises(InputError, match=r"methods plug-in: got 'my_lab\.broken:METHOD', expected .* OSError: no disk"):
        plugins.load("methods", "dora+my_lab.broken:METHOD")


def test_the_command_line_shows_the_line_and_no_traceback(my_lab, capsys):
    (my_lab / "broken.py").write_text(FINE + "def init(:\n")
    with pytest.raises(SystemExit) as ended:
        main(["methods", "my_lab.broken:METHOD"])
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert "says: invalid syntax; correct that line" in " ".join(shown.split()) and "Traceback" not in shown
