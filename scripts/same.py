"""Prove that a change of the code changed no loss: train the same packs with another revision's code and with this.

    make same REF=HEAD~1

Trains packs of every method on the smallest bundled base with the sources of git revision REF and with those of the
working tree, on one thread, and compares every trial's curve and final adapter bit for bit, in float64, float32 and
bfloat16. Exits with 1 where one differs.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]
DTYPES = ("float64", "float32", "bfloat16")
STUDY = """
name = "same"
[model]
base = "abacus-small"
dtype = "{dtype}"
[task]
task = "abacus"
num_train = 40
num_validation = 8
num_test = 2
[train]
weight_decay = 0.01
learning_rate = 1e-2
num_evaluations = 2
[axes]
method = ["lora", "pissa", "milora", "full"]
batch_size = [4, 7]
rank = [2, 8]
dropout = [0.0, 0.1]
[search]
fresh_seeds = 1
"""


def main(
    ref: Annotated[str, typer.Argument(help="the git revision to compare with")] = "HEAD",
) -> None:
    """Compare the losses of the working tree with those of a revision."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        other = folder / "other"
        _git("worktree", "add", "--detach", str(other), ref)
        try:
            found = {dtype: [_losses(root, folder, dtype) for root in (other, ROOT)] for dtype in DTYPES}
        finally:
            _git("worktree", "remove", "--force", str(other))
    different = 0
    for dtype, (old, new) in found.items():
        wrong = [trial for trial in old.keys() | new.keys() if old.get(trial) != new.get(trial)]
        different += len(wrong)
        print(
            f"{dtype}: {len(new)} trials, {len(wrong)} differ from {ref}" + "".join(f"\n  {one}" for one in wrong[:5])
        )
    if different:
        raise typer.Exit(1)
    print("the same, to the bit")


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True)


def _losses(root: Path, folder: Path, dtype: str) -> dict[str, list[str | None]]:
    """Run the study with the sources of `root`; return each trial's adapter hash and curve, by settings."""
    study = folder / f"{root.name}-{dtype}"
    study.with_suffix(".toml").write_text(STUDY.format(dtype=dtype))
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    arguments = ["run", str(study.with_suffix(".toml")), "--folder", str(study), "--threads", "1", "--memory", "4GB"]
    subprocess.run([sys.executable, "-m", "welltuned", *arguments], env=environment, check=True, capture_output=True)
    code = (
        "import json, sys, welltuned\n"
        "rows = welltuned.open(sys.argv[1]).results()\n"
        "key = lambda c: (c.method, c.rank, c.batch_size, c.learning_rate, c.dropout, c.order_seed)\n"
        "print(json.dumps({str(key(r.config)): [r.adapter, *(repr(p) for p in r.curve)] for r in rows}))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(study)], env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(shown.stdout)


if __name__ == "__main__":
    typer.run(main)
