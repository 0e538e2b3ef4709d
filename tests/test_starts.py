"""Starts from the cache: the same bits as computed ones, no decomposition, and nothing that is damaged is believed."""

import os

import pytest
import torch

import tiny
from welltuned.executors.machine import cache_folder
from welltuned.packing import starts
from welltuned.packing.state import initial


@pytest.fixture(autouse=True)
def small_sites(monkeypatch):
    """Keep the starts of the tiny models' sites, too."""
    monkeypatch.setattr(starts, "FEWEST_WEIGHTS", 1)


def files():
    folder = cache_folder() / "starts"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def tensors(dtype=torch.float64, seed=0, **changes):
    """The step-0 tensors of one trial on a tiny model."""
    changes = {"method": "pissa", "rank": 3, "scaling": 0.5} | changes
    state = initial(tiny.base(tiny.llama(dtype, seed)), [tiny.trial(**changes)]).trial_state(0)
    return {(site, name): tensor for site, named in state.items() for name, tensor in named.items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


@pytest.fixture
def counted(monkeypatch):
    """Count the decompositions of torch."""
    calls = []
    for name in ("svd", "qr"):
        compute = vars(torch.linalg)[name]
        monkeypatch.setattr(torch.linalg, name, lambda *a, compute=compute, **k: calls.append(1) or compute(*a, **k))
    return calls


@pytest.mark.parametrize("method", ["pissa", "milora", "olora", "dora+pissa"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_start_from_the_cache_has_the_same_bits_and_decomposes_nothing(method, dtype, counted, monkeypatch):
    monkeypatch.setattr(starts, "FEWEST_WEIGHTS", 1 << 60)
    computed = tensors(dtype, method=method)
    assert not files()
    monkeypatch.setattr(starts, "FEWEST_WEIGHTS", 1)
    first = tensors(dtype, method=method)
    counted.clear()
    second = tensors(dtype, method=method)
    assert not counted and len(files()) == 14
    assert same(first, computed) and same(second, computed)


def test_trials_of_a_pack_share_one_start(counted):
    trials = [tiny.trial(method="pissa", learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3)]
    initial(tiny.base(), trials)
    assert len(counted) == len(files()) == 14


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"rank": 2}, {"scaling": 1.0}, {"method": "milora"}, {"dtype": torch.float32}, {"method_version": 9}],
)
def test_whatever_decides_a_start_decides_its_file(changes, counted):
    tensors()
    counted.clear()
    tensors(**changes)
    assert len(counted) == 14 and len(files()) == 28


def test_other_threads_are_another_file(counted):
    """Sums over other numbers of threads may differ in the last bit."""
    tensors()
    counted.clear()
    torch.set_num_threads(2)
    try:
        tensors()
    finally:
        torch.set_num_threads(1)
    assert len(counted) == 14


def test_changed_code_is_another_file(monkeypatch, counted):
    tensors()
    counted.clear()
    monkeypatch.setattr(starts, "_code", lambda: "changed")
    tensors()
    assert len(counted) == 14


@pytest.mark.parametrize("method", ["lora", "pissa_randomized", "lora_ga"])
def test_starts_that_depend_on_more_are_not_kept(method):
    from welltuned.packing.batch import RowTable

    model = tiny.packed()
    initial(model.base, [tiny.trial(method=method)], RowTable(tiny.rows(), 0, model.base.device))
    assert not files()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_computed_again_and_said(damage, counted):
    expected = tensors()
    victim = files()[0]
    content = bytearray(victim.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    victim.write_bytes({"cut": content[:-8], "flipped": content, "empty": b""}[damage])
    counted.clear()
    with pytest.warns(UserWarning, match=r"got a damaged start \(.*\), which is computed again"):
        again = tensors()
    assert len(counted) == 1 and same(again, expected)
    counted.clear()
    assert same(tensors(), expected) and not counted


def test_a_cache_that_cannot_be_written_changes_nothing(monkeypatch):
    expected = tensors()

    def refuse(*arguments):
        raise OSError("no space left on device")

    for file in files():
        file.unlink()
    monkeypatch.setattr(starts, "save_file", refuse)
    assert same(tensors(), expected) and not files()


def test_the_oldest_files_are_deleted_first_and_used_ones_are_young(monkeypatch):
    tensors(rank=2)
    old = files()
    for file in old:
        os.utime(file, (1, 1))
    tensors(rank=3)
    tensors(rank=2)  # used: young again
    total = sum(file.stat().st_size for file in files())
    monkeypatch.setattr(starts, "MOST_BYTES", total)
    tensors(rank=1)  # smaller than what is as old
    assert sum(file.stat().st_size for file in files()) <= total
    assert set(old) <= set(files())


def test_nothing_unfinished_stays_behind():
    tensors()
    assert all(file.suffix == starts.SUFFIX for file in files())
