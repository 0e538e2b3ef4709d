"""The methods that docs/add-a-method.md writes are methods: they plan, train and keep what every method must."""

import pathlib
import re
import sys

import pytest
import torch

import tiny
from small_study import edited, forge_hashes, plan_of
from welltuned import plugins
from welltuned.evaluate.conformance import check_method
from welltuned.spec import Spec

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "add-a-method.md"
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
NAMES = ("my_lab.sparse:METHOD", "my_lab.scaled:METHOD")


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    """The page's files, where Python finds them."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


def test_the_initialisation_is_under_40_lines():
    assert set(FILES) == {"my_lab/sparse.py", "my_lab/scaled.py"}
    assert len(FILES["my_lab/sparse.py"].splitlines()) < 40


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("name", NAMES)
def test_the_page_s_methods_keep_what_every_method_must(name, make, my_lab):
    checks = check_method(tiny.packed(make(torch.float64)), tiny.config(), name)
    assert all(check.ok for check in checks), checks


def test_the_sparse_rows_are_sparse(my_lab):
    init = plugins.load("methods", NAMES[0]).init
    state = init(torch.zeros(64, 1000), None, 8, 1.0, torch.Generator().manual_seed(0))
    assert ((state["A"] != 0).sum(1) == 100).all()
    assert state["A"].double().square().sum(1).mean() == pytest.approx(1 / 3, rel=0.1)  # as LoRA's rows


def test_a_study_of_them_is_planned_and_trained(my_lab, tmp_path, monkeypatch):
    """An edit of the file gives its trials new ids."""
    forge_hashes(monkeypatch)
    spec = Spec.model_validate(edited(axes={"method": ["lora", *NAMES]}))
    plan = plan_of(spec)
    assert [arm.name for arm in plan.arms] == ["lora", *NAMES]
    trials = [tiny.trial(method="lora"), *(tiny.trial(method=name, rank=2 * (name == NAMES[0])) for name in NAMES)]
    packed = tiny.packed()
    ended = tiny.outcomes(tiny.run_pack(packed, trials, 4, tmp_path / "blobs"))
    assert all(ended[trial.id].validation_nll is not None for trial in trials)
    first = plugins.source_hash(NAMES[0])
    (my_lab / "my_lab" / "sparse.py").write_text(FILES["my_lab/sparse.py"] + "# edited\n")
    del sys.modules["my_lab.sparse"]
    assert plugins.source_hash(NAMES[0]) != first
