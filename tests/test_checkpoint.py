"""A pack resumed from a checkpoint continues to the bit; blobs read back as they were written."""

import pytest

import tiny
from welltuned.errors import InputError
from welltuned.packing import adapter_file
from welltuned.records import Checkpoint, Point, Progress
from welltuned.train import checkpoint, loop

TRIALS = [
    tiny.trial(method="lora", batch_size=7, max_steps=9),
    tiny.trial(method="pissa", batch_size=4, rank=3, num_train_epochs=2, dropout=0.1),
    tiny.trial(method="lora", learning_rate=1e300, lr_scheduler_type="constant", num_train_epochs=2),
    tiny.trial(method="full", rank=0, optimizer="sgd", batch_size=24, num_train_epochs=3),
]


def timeless(outcome):
    """What of an outcome must repeat to the bit."""
    return {name: value for name, value in vars(outcome).items() if not name.endswith("seconds")}


def test_resume_from_every_checkpoint_is_exact(tmp_path, monkeypatch):
    """Gradients of a half-read effective batch, moments, a diverged neighbour and compaction all survive."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", float("inf"))  # one after every micro-step
    model = tiny.packed()
    whole = tiny.run_pack(model, TRIALS, 3, tmp_path, checkpoint_seconds=0)
    checkpoints = [event for event in whole if isinstance(event, Checkpoint)]
    assert len(checkpoints) > 10
    ends = tiny.outcomes(whole)
    points = {(event.trial_id, event.step): event for event in whole if isinstance(event, Point)}
    for place in checkpoints:
        rest = tiny.run_pack(model, TRIALS, 3, tmp_path, resume=place.blob)
        for trial_id, outcome in tiny.outcomes(rest).items():
            assert timeless(outcome) == timeless(ends[trial_id])
        for point in (event for event in rest if isinstance(event, Point)):
            assert point == points[point.trial_id, point.step]
    assert len(tiny.outcomes(rest)) < len(TRIALS)


def test_two_runs_give_the_same_bits(tmp_path):
    """One plan, one machine, the same numbers."""
    first, second = (tiny.outcomes(tiny.run_pack(tiny.packed(), TRIALS, 3, tmp_path)) for _ in range(2))
    assert {key: timeless(value) for key, value in first.items()} == {
        key: timeless(value) for key, value in second.items()
    }


@pytest.mark.parametrize("place", [0, 1, 3])
def test_adapters_read_back(place, tmp_path):
    """An adapter blob holds its trial and its own, unpadded, tensors."""
    ends = tiny.outcomes(tiny.run_pack(tiny.packed(), TRIALS, 3, tmp_path))
    trial, states = adapter_file.load(tmp_path / ends[TRIALS[place].id].adapter)
    assert trial == TRIALS[place]
    sizes = sum(tensor.numel() for state in states.values() for name, tensor in state.items() if not name.endswith("0"))
    assert sizes == ends[trial.id].num_trainable


def test_a_checkpoint_of_an_earlier_release_is_refused(tmp_path, monkeypatch):
    """Rows were read in another order: going on would train some twice and some never."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", float("inf"))
    events = tiny.run_pack(tiny.packed(), TRIALS[:1], 3, tmp_path, checkpoint_seconds=0)
    blob = next(event.blob for event in events if isinstance(event, Checkpoint))
    monkeypatch.setattr(checkpoint, "VERSION", 5)
    with pytest.raises(InputError, match=r"got version 4, expected 5, .* finish the study with that release, or run"):
        tiny.run_pack(tiny.packed(), TRIALS[:1], 3, tmp_path, resume=blob)


def test_a_checkpoint_whose_rows_were_read_in_another_way_is_refused(tmp_path, monkeypatch):
    """As many micro-steps, other rows in each: a base may read lines on one device or release, and not on another."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", float("inf"))
    events = tiny.run_pack(tiny.packed(), TRIALS[:1], 3, tmp_path, checkpoint_seconds=0)
    blob = next(event.blob for event in events if isinstance(event, Checkpoint))
    elsewhere = tiny.packed()
    elsewhere.base.reads_lines = False
    with pytest.raises(InputError, match=r"were read one behind the other, expected padded, .* or run it elsewhere"):
        tiny.run_pack(elsewhere, TRIALS[:1], 3, tmp_path, resume=blob)


def test_a_pack_says_that_it_validates_before_it_does(tmp_path):
    """Validation may take minutes, in which nothing else is heard of the pack."""
    events = tiny.run_pack(tiny.packed(), [tiny.trial(max_steps=4, num_evaluations=2)], 4, tmp_path)
    measured = [place for place, event in enumerate(events) if isinstance(event, Point) and event.step]
    assert len(measured) == 2
    for place in measured:
        said = events[place - 1]
        assert isinstance(said, Progress) and said.note == "validating" and 0 < said.fraction <= 1
