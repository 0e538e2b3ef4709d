"""Strands: a pack whose trials train in two threads trains what it trains in one, whichever of them is ahead."""

import concurrent.futures
import contextlib
import dataclasses
import gc
import itertools
import weakref

import pytest
import torch

import tiny
from test_checkpoint import timeless
from test_compiled import compiler, needs_compiler
from welltuned.costs import strands
from welltuned.packing import lines
from welltuned.packing.state import grouped, initial
from welltuned.records import Checkpoint, Status
from welltuned.train import crew, loop, strand

assert compiler  # a fixture

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
# Two groups of four: ranks differ within each, batch sizes differ, half have dropout.
MIXED = [
    tiny.trial(method=method, rank=rank, batch_size=batch_size, init_seed=seed, dropout=0.1 * seed, num_train_epochs=2)
    for (method, rank), (batch_size, seed) in itertools.product(
        [("lora", 2), ("lora", 3), ("dora", 2), ("dora", 3)], [(4, 0), (7, 1)]
    )
]


class InTurn(concurrent.futures.Executor):
    """Runs what is submitted at once, in the caller's thread."""

    def __init__(self, *_):
        self.submitted = 0

    def submit(self, function, *arguments):
        """Return a future that is done."""
        self.submitted += 1
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def numbers(monkeypatch):
    """Let packs of four trials have two strands; return the numbers of strands that were dealt."""
    monkeypatch.setattr(strands, "FEWEST_TRIALS", 2)
    dealt = []
    deal = crew.Crew.deal

    def noted(self, *arguments):
        deal(self, *arguments)
        dealt.append(len(self.strands))

    monkeypatch.setattr(crew.Crew, "deal", noted)
    return dealt


def ends(model, trials, folder, threads, **how):
    """Train a pack; return what of its outcomes must repeat, by trial."""
    found = tiny.outcomes(tiny.run_pack(model, trials, 3, folder, threads=threads, **how))
    return {trial_id: timeless(outcome) for trial_id, outcome in found.items()}


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_two_threads_train_the_bits_of_two_halves_in_turn(dtype, tmp_path, numbers, monkeypatch):
    """Adapters, too: they are files named by their content."""
    threaded = [ends(tiny.packed(tiny.llama(DTYPES[dtype])), MIXED, tmp_path, threads=2) for _ in range(3)]
    assert set(numbers) == {2, 1} and numbers[0] == 2
    monkeypatch.setattr(crew, "ThreadPoolExecutor", InTurn)
    in_turn = ends(tiny.packed(tiny.llama(DTYPES[dtype])), MIXED, tmp_path, threads=2)
    assert threaded == [in_turn] * 3
    assert {end["status"] for end in in_turn.values()} == {Status.FINISHED}


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
def test_every_trial_trains_as_alone(make, tmp_path, numbers):
    """Packed == alone, float64: <= 1e-9 relative, with dropout, mixed ranks and batch sizes."""
    found = ends(tiny.packed(make()), MIXED, tmp_path, threads=2)
    assert numbers[0] == 2
    for one in MIXED:
        alone = ends(tiny.packed(make()), [one], tmp_path, threads=1)[one.id]
        assert found[one.id]["train_losses"] == pytest.approx(alone["train_losses"], rel=1e-9, abs=0)
        assert found[one.id]["validation_nll"] == pytest.approx(alone["validation_nll"], rel=1e-9, abs=0)


@pytest.mark.parametrize("left_out", [(3,), (3, 7), (1, 2, 3, 7)])
def test_groups_of_odd_sizes_are_dealt_evenly_where_nothing_is_compiled(left_out, tmp_path, numbers):
    """Strands of 3 and 4, of 3 and 3, of 2 and 2; each trains as alone, and every trial is dealt once."""
    trials = [one for place, one in enumerate(MIXED) if place not in left_out]
    shares = initial(tiny.base(), grouped(trials)).deal(2)
    sizes = [len(places) for _, places in shares]
    assert max(sizes) - min(sizes) <= 1 and [share.num_trials for share, _ in shares] == sizes
    assert sorted(place for _, places in shares for place in places) == list(range(len(trials)))
    found = ends(tiny.packed(), trials, tmp_path, threads=2)
    assert numbers[0] == 2
    for one in trials:
        alone = ends(tiny.packed(), [one], tmp_path, threads=1)[one.id]
        assert found[one.id]["train_losses"] == pytest.approx(alone["train_losses"], rel=1e-9, abs=0)
        assert found[one.id]["validation_nll"] == pytest.approx(alone["validation_nll"], rel=1e-9, abs=0)


def test_a_strand_whose_trials_have_all_ended_waits_for_the_others(tmp_path, numbers, monkeypatch):
    """Batches of 4 take more micro-steps of 3 rows than batches of 6, and nobody leaves before a planned compaction."""
    monkeypatch.setattr(loop, "NUM_COMPACTIONS", 1)
    trials = [tiny.trial(init_seed=seed % 2, batch_size=4 if seed < 2 else 6, num_train_epochs=4) for seed in range(4)]
    found = ends(tiny.packed(), trials, tmp_path, threads=2)
    assert numbers == [2, 1]
    for one in trials:
        alone = ends(tiny.packed(), [one], tmp_path, threads=1)[one.id]
        assert found[one.id]["train_losses"] == pytest.approx(alone["train_losses"], rel=1e-9, abs=0)
        assert found[one.id]["validation_nll"] == pytest.approx(alone["validation_nll"], rel=1e-9, abs=0)


def test_a_trial_that_diverges_leaves_both_strands_alone(tmp_path, numbers):
    """It is computed along until it leaves; the others train as where nothing diverges, float64, <= 1e-9."""
    calm = [tiny.trial(init_seed=seed, num_train_epochs=2) for seed in range(8)]
    wild = tiny.trial(init_seed=1, num_train_epochs=2, learning_rate=1e300, lr_scheduler_type="constant")
    mixed = [calm[0], wild, *calm[2:]]
    expected = ends(tiny.packed(), calm, tmp_path, threads=2)
    found = ends(tiny.packed(), mixed, tmp_path, threads=2)
    assert 2 in numbers and found[wild.id]["status"] is Status.DIVERGED
    for one in calm[:1] + calm[2:]:
        assert found[one.id]["train_losses"] == pytest.approx(expected[one.id]["train_losses"], rel=1e-9, abs=0)
        assert found[one.id]["status"] is Status.FINISHED


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_compiler)])
def test_a_pack_that_becomes_small_goes_on_in_one_strand(compiled, tmp_path, numbers, compiler):
    """Half of four trials end early; float64, <= 1e-9 of each alone. Compiled: one graph for each number of strands."""
    trials = [tiny.trial(init_seed=seed, max_steps=3 if seed < 2 else 12) for seed in range(4)]
    found = ends(tiny.packed(), trials, tmp_path, threads=2, compiled=compiled)
    assert numbers == [2, 1, 1]  # and nothing is left to deal
    if compiled:
        assert compiler["unique_graphs"] == 2
    for one in trials:
        alone = ends(tiny.packed(), [one], tmp_path, threads=1)[one.id]
        assert found[one.id]["train_losses"] == pytest.approx(alone["train_losses"], rel=1e-6 if compiled else 1e-9)


@needs_compiler
def test_one_compilation_serves_both_strands(tmp_path, numbers, compiler):
    """Mixed methods, ranks and batch sizes: a graph for both, one for one trial of each; two runs, the same bits."""
    trials = [dataclasses.replace(one, config=one.config.replace(dropout=0.0)) for one in MIXED]
    plain = ends(tiny.packed(), trials, tmp_path, threads=2)
    numbers.clear()
    first = ends(tiny.packed(), trials, tmp_path, threads=2, compiled=True)
    assert numbers == [2, 2, 1] and compiler["unique_graphs"] == 2  # strands of four trials, of two, and nothing left
    assert ends(tiny.packed(), trials, tmp_path, threads=2, compiled=True) == first
    for one in trials:
        assert first[one.id]["train_losses"] == pytest.approx(plain[one.id]["train_losses"], rel=1e-9, abs=0)


@needs_compiler
def test_compiled_strands_of_three_and_two_trials_have_one_code(tmp_path, numbers, compiler):
    """Float64, <= 1e-9 of uncompiled ones."""
    trials = [tiny.trial(init_seed=seed) for seed in range(5)]
    plain = ends(tiny.packed(), trials, tmp_path, threads=2)
    numbers.clear()
    found = ends(tiny.packed(), trials, tmp_path, threads=2, compiled=True)
    assert numbers[0] == 2 and compiler["unique_graphs"] == 1
    for one in trials:
        assert found[one.id]["train_losses"] == pytest.approx(plain[one.id]["train_losses"], rel=1e-9, abs=0)


@needs_compiler
def test_trials_leave_compiled_strands_without_another_compilation(tmp_path, numbers, compiler):
    """Two groups of five: strands of 3 + 2 and 2 + 3, and then of four trials of one and five of the other."""
    trials = [
        tiny.trial(method=method, init_seed=seed, max_steps=3 if (method, seed) == ("lora", 0) else 10)
        for method in ("lora", "pissa")
        for seed in range(5)
    ]
    plain = ends(tiny.packed(), trials, tmp_path, threads=2)
    numbers.clear()
    found = ends(tiny.packed(), trials, tmp_path, threads=2, compiled=True)
    assert numbers[:2] == [2, 2] and compiler["unique_graphs"] == 1
    for one in trials:
        assert found[one.id]["train_losses"] == pytest.approx(plain[one.id]["train_losses"], rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("trials", "left", "serves"),
    [
        ({"lora": 6}, [5], True),
        ({"lora": 6}, [1], False),
        ({"lora": 4, "dora": 2}, [4, 1], False),
        ({"lora": 4, "dora": 2}, [4, 0], False),
        ({"lora": 4, "dora": 1}, [3, 1], True),  # one trial is what the code of that group is for
    ],
)
def test_trials_leave_at_once_where_the_code_serves_the_others(trials, left, serves, tmp_path):
    """Uncompiled always."""
    pack = [tiny.trial(method=method, init_seed=seed) for method, many in trials.items() for seed in range(many)]
    state = initial(tiny.base(), grouped(pack))
    for compiled in (True, False):
        manner = strand.Manner(3, True, compiled, False)
        hands = crew.Crew(tiny.packed(), 1, None, manner)
        hands.deal(state, list(range(len(pack))))
        assert hands.serves(left) == (serves or not compiled)


def test_compiled_strands_stay_two_where_few_trials_are_left(tmp_path):
    """Uncompiled, and with fewer than two trials each, one strand goes on. What came between decides nothing."""
    for compiled, expected in ((True, 2), (False, 1)):
        state = initial(tiny.base(), [tiny.trial(init_seed=seed) for seed in range(16)])
        hands = crew.Crew(tiny.packed(), 2, None, strand.Manner(3, True, compiled, False))
        dealt = []
        for many in (16, 15, 4, 3, 4):
            assert many in (16, 3) or len(dealt) == 4 or hands.serves([many])
            hands.deal(state.select(list(range(many))), list(range(many)))
            dealt.append(len(hands.strands))
        assert dealt == [2, expected, expected, 1, expected]


def test_resume_from_every_checkpoint_is_exact(tmp_path, numbers, monkeypatch):
    """What is saved is the pack's, however it was dealt: a checkpoint goes on with two strands to the bit."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", float("inf"))  # one after every micro-step
    model = tiny.packed()
    trials = [*MIXED[:-1], tiny.trial(method="dora", rank=3, batch_size=7, init_seed=1, max_steps=4)]
    events = tiny.run_pack(model, trials, 3, tmp_path, checkpoint_seconds=0, threads=2)
    expected = {trial_id: timeless(outcome) for trial_id, outcome in tiny.outcomes(events).items()}
    blobs = [event.blob for event in events if isinstance(event, Checkpoint)]
    assert len(blobs) > 10 and set(numbers) == {1, 2}
    for blob in blobs:
        rest = ends(model, trials, tmp_path, threads=2, resume=blob)
        assert rest == {trial_id: expected[trial_id] for trial_id in rest}


@pytest.mark.parametrize("error", [MemoryError("full"), RuntimeError("wrong")])
def test_an_error_of_a_thread_is_the_packs(error, tmp_path, numbers, monkeypatch):
    """It reaches the caller as it is, so that a pack out of memory is tried again smaller."""
    gather = lines.gather

    def fails(table, rows, *others):
        if fails.calls == 5:
            raise error
        fails.calls += 1
        return gather(table, rows, *others)

    fails.calls = 0
    monkeypatch.setattr(lines, "gather", fails)
    with pytest.raises(type(error), match=str(error)):
        tiny.run_pack(tiny.packed(), MIXED, 3, tmp_path, threads=2)
    assert numbers == [2]


def test_a_pack_that_failed_is_forgotten_at_once(tmp_path, numbers, monkeypatch):
    """Its memory is free for the smaller one that follows, without a collector that happens to come by."""
    seen = []

    def fails(self, micro_step):
        seen.append(weakref.ref(self.state))
        raise MemoryError("full")

    monkeypatch.setattr(strand.Strand, "advance", fails)
    model = tiny.packed()
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(MemoryError):
            tiny.run_pack(model, MIXED, 3, tmp_path, threads=2)
        assert len(seen) == 2 and not any(state() for state in seen)
    finally:
        gc.enable()


def test_a_twin_has_the_weights_of_its_base():
    """Not a copy: a second strand takes no second base."""
    base = tiny.base()
    twin = base.twin()
    own, others = dict(base.model.named_parameters()), dict(twin.model.named_parameters())
    assert own.keys() == others.keys() and all(own[name] is others[name] for name in own)
    assert base.model.model.rotary_emb.inv_freq is not twin.model.model.rotary_emb.inv_freq  # a pass may write it
    assert all(one is not other for one, other in zip(base.model.modules(), twin.model.modules(), strict=True))
    assert twin.decoder is twin.model.get_decoder()
    assert all(twin.parent(site)[0] is not base.parent(site)[0] for site in base.sites)
