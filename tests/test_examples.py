"""The README's Python and every script of examples/ run, in an empty folder, with the real worker."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = ("plan_a_grid.py", "study_in_code.py", "use_an_adapter.py")


def run(script: pathlib.Path, folder: pathlib.Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-W", "error::DeprecationWarning:welltuned", str(script)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)
    listed = re.findall(r"`(\w+\.py)`", (ROOT / "examples" / "README.md").read_text(encoding="utf-8"))
    assert tuple(listed) == EXAMPLES


@pytest.mark.slow
def test_the_examples_run_in_their_order(tmp_path):
    said = {name: run(ROOT / "examples" / name, tmp_path) for name in EXAMPLES}
    # 3 methods x 2 batch sizes x 8 learning rates (2e-4 * 10^(k/4) from 1e-4 to 1e-2), and 6 cells x 3 reruns
    assert re.match(r"512 rows: 66 trials, [\d,]+ tokens, \d+ s\n1024 rows: ", said["plan_a_grid.py"])
    assert len(re.findall(r"^ *select ", said["study_in_code.py"], re.MULTILINE)) == 4
    assert len(re.findall(r"^ *confirm ", said["study_in_code.py"], re.MULTILINE)) == 2
    assert "best: " in said["use_an_adapter.py"] and "How many pears does Ann have?" in said["use_an_adapter.py"]
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()


@pytest.mark.slow
def test_the_readme_s_python_runs(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- executed -->\n```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "readme.py").write_text(block)
    shown = run(tmp_path / "readme.py", tmp_path)
    assert "validation_nll" in shown and len(shown.splitlines()) == 1 + 4 + 2
