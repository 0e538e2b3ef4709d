"""Costs: operations against sums written out by hand, memory term by term, packs that hold every trial and fit."""

import dataclasses
import itertools
import random

import pytest
import torch

from small_study import TEXT, edited, forge_hashes, plan_of, survey_of
from welltuned import data, plan_cost
from welltuned import plan as plans
from welltuned.costs import activations, flops, memory, packing
from welltuned.errors import MachineError
from welltuned.models import unpadded
from welltuned.models.base import DTYPES
from welltuned.packing import lines
from welltuned.records import Config, Role, Trial
from welltuned.spec import Spec

GIB = 2**30


@pytest.fixture
def config(monkeypatch) -> Config:
    forge_hashes(monkeypatch)
    return plans.expand(Spec.parse(TEXT))[0]


def trials_of(**sections) -> list[Trial]:
    return [Trial(config, Role.SELECT) for config in plans.expand(Spec.model_validate(edited(**sections)))]


# Operations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_train", "batch_size", "epochs", "max_steps"),
    [(10, 4, 1, None), (10, 4, 3, None), (8, 4, 2, None), (10, 4, 1, 7), (10, 4, 1, 2), (10, 10, 1, 5)],
)
def test_steps_and_samples_against_counting_them(config, num_train, batch_size, epochs, max_steps):
    config = config.replace(num_train=num_train, batch_size=batch_size, num_train_epochs=epochs, max_steps=max_steps)
    steps = []
    for _ in range(epochs if max_steps is None else max_steps):
        rows = list(range(num_train))
        while rows:
            steps.append(rows[:batch_size])
            rows = rows[batch_size:]
    steps = steps[:max_steps]
    assert flops.num_steps(config) == len(steps)
    assert flops.num_samples(config) == sum(len(step) for step in steps)


def test_lora_operations_written_out(config):
    survey = survey_of(config)
    trained = 8 * ((64 + 64) + (172 + 64) + (64 + 64))
    tokens, targets = 512 * 64, 512 * 24
    work = flops.work(config, survey)
    assert flops.num_trainable(config, survey) == trained
    assert work.train_flops == tokens * (4 * 100_000 + 6 * trained) + targets * 4 * 32_768
    assert work.validation_flops == 5 * 32 * (64 * 2 * (100_000 + trained) + 24 * 2 * 32_768)


def test_full_operations_are_six_for_each_adapted_weight(config):
    survey = survey_of(config)
    adapted = 64 * 64 + 172 * 64 + 64 * 64
    work = flops.work(config.replace(method="full", rank=0), survey)
    expected = 512 * 64 * (6 * adapted + 4 * (100_000 - adapted)) + 512 * 24 * 4 * 32_768
    assert work.train_flops == expected


def test_a_clamped_rank_is_counted_as_clamped(config):
    survey = survey_of(config)
    assert flops.num_trainable(config.replace(rank=500), survey) == 64 * (128 + 236 + 128)


# Memory ---------------------------------------------------------------------------------------------------------------


PASSING = ("activation_bytes", "attention_bytes", "logits_bytes", "dequantised_bytes", "validation_bytes")


def without_overhead(found: memory.Memory) -> dict[str, float]:
    exact = ("runtime_bytes", "compiler_bytes", "base_bytes", "is_freed")
    factors = {name: memory.HOLES if name in PASSING else memory.HELD_OVERHEAD for name in vars(found)}
    return {name: value / factors[name] for name, value in vars(found).items() if name not in exact}


def test_memory_terms_written_out(config):
    survey = survey_of(config)
    trained = flops.num_trainable(config, survey)
    found = memory.estimate([config, config], survey, micro_rows=4)
    terms = without_overhead(found)
    assert found.base_bytes == 4 * 150_000
    assert terms["adapter_bytes"] == pytest.approx(2 * 4 * trained, rel=1e-4)
    assert terms["gradient_bytes"] == terms["adapter_bytes"]
    assert terms["anchor_bytes"] == 0
    assert terms["optimizer_bytes"] == pytest.approx(2 * 2 * 4 * trained, rel=1e-4)
    layer = 2 * 4 * 64 + 4 * (6 * 64 + 4 * 172) + 4 * 8  # residuals; a block's own; A x, of 3 sites in 3 layers
    assert terms["activation_bytes"] == pytest.approx(8 * 100 * (3 + 1) * layer, rel=1e-4)
    assert terms["attention_bytes"] == 0
    assert terms["logits_bytes"] == pytest.approx(12 * 8 * 24 * 512, rel=1e-4)
    assert terms["copy_bytes"] == 0  # adapters are as wide as activations
    assert found.update_bytes == 0  # gradients again fit into the holes that activations leave
    assert terms["validation_bytes"] == pytest.approx(2 * 32 * 100 * layer + terms["logits_bytes"], rel=1e-4)
    held = sum(terms[f"{name}_bytes"] for name in ("adapter", "gradient", "optimizer"))
    step = memory.HOLES * (terms["activation_bytes"] + terms["logits_bytes"])
    moment = max(step, memory.HOLES * terms["validation_bytes"])
    bytes_found = found.total_bytes - found.runtime_bytes - found.base_bytes
    assert bytes_found == pytest.approx(memory.HELD_OVERHEAD * held + moment, abs=8)
    assert found.total_bytes == sum(found.terms().values())


def test_memory_of_other_methods_dtypes_and_devices(config):
    survey = survey_of(config)
    plain = memory.estimate([config], survey, 4)
    assert memory.estimate([config.replace(method="pissa")], survey, 4).anchor_bytes == plain.adapter_bytes
    narrow = memory.estimate([config.replace(dtype="bfloat16")], survey, 4)
    assert narrow.base_bytes == pytest.approx(plain.base_bytes / 2, abs=1)
    assert narrow.adapter_bytes == plain.adapter_bytes
    scores = 6 * 2 * 100  # bytes, heads, keys of each query
    assert without_overhead(narrow)["attention_bytes"] == pytest.approx(4 * 100 * (3 + 1) * scores, rel=1e-4)
    assert memory.estimate([config.replace(dtype="bfloat16")], survey, 4, "cuda:0").attention_bytes == 0
    assert activations.MULTIPLE == lines.MULTIPLE
    on_lines = memory.estimate([config], dataclasses.replace(survey, reads_lines=True), 4)  # its output, in rows
    assert without_overhead(on_lines)["attention_bytes"] == pytest.approx(4 * 112 * (3 + 1) * 4 * 64, rel=1e-4)
    one_row = dataclasses.replace(survey, reads_lines=True)
    for dtype, scores in (("bfloat16", 2 * 2 * 112), ("float32", 0)):  # one row of each trial: a line in bfloat16 only
        found = memory.estimate([config.replace(dtype=dtype)], one_row, 1)
        assert without_overhead(found)["attention_bytes"] == pytest.approx(112 * (3 + 1) * scores, rel=1e-4)
    assert without_overhead(narrow)["copy_bytes"] == pytest.approx(without_overhead(plain)["adapter_bytes"] / 2, abs=1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("micro_rows", [1, 2])
def test_the_plan_and_the_trainer_agree_on_who_reads_lines(config, dtype, device, micro_rows):
    planned = activations.pays(config.replace(dtype=dtype), device, micro_rows)
    assert planned == unpadded.pays(DTYPES[dtype], torch.device(device), micro_rows)


@pytest.mark.parametrize(
    ("stored", "dtype", "held", "reading"),
    [
        ("bfloat16", "bfloat16", 2, 0),  # the file itself, mapped
        ("float32", "float32", 4, 0),
        ("float16", "bfloat16", 2, 2),  # as wide, but another dtype
        ("float32", "bfloat16", 2, 4),
        ("bfloat16", "float32", 4, 2),
        (None, "float32", 4, 4),  # GGUF, in float32
    ],
)
def test_what_a_base_takes_while_it_is_read_follows_from_its_file(config, stored, dtype, held, reading):
    """In bytes for each parameter; on a GPU nothing is read there."""
    large = survey_of(config, num_parameters=10**9, stored_dtype=stored)
    found = memory.estimate([config.replace(dtype=dtype)], large, 1)
    assert found.base_bytes == held * 10**9
    assert found.start_bytes / memory.HELD_OVERHEAD == pytest.approx(reading * 10**9, abs=10**6)
    assert memory.estimate([config.replace(dtype=dtype)], large, 1, "cuda:0").start_bytes < 10**6


def test_a_base_in_8_bits_is_held_beside_its_file_where_that_is_mapped(config):
    """The embedding is not quantised, and keeps the file; a file of another dtype is let go of."""
    half = config.replace(dtype="bfloat16", quantization="int8")
    large = survey_of(config, num_parameters=10**9, num_base_weights=9 * 10**8, hidden_size=1000)
    in_8_bits = 9 * 10**8 + 4 * 9 * 10**5 + 2 * 10**8
    mapped, read = (
        memory.estimate([half], dataclasses.replace(large, stored_dtype=dtype), 1) for dtype in ("bfloat16", "float32")
    )
    assert mapped.base_bytes == in_8_bits + 2 * 9 * 10**8 and read.base_bytes == in_8_bits
    assert mapped.start_bytes < 10**6
    assert read.start_bytes / memory.HELD_OVERHEAD == pytest.approx(6 * 10**9 - in_8_bits, abs=10**6)


def test_an_update_adds_to_a_micro_step_what_holes_do_not_take_in(config):
    """Uncompiled blocks leave some; compiled ones none, and a GPU hands over all that a micro-step took."""
    many, survey = [config.replace(method="full", rank=0)] * 8, survey_of(config, longest_tokens=10)
    plain, compiled, gpu = (
        memory.estimate(many, survey, 1, device, compiled=flag)
        for device, flag in (("cpu", False), ("cpu", True), ("cuda:0", False))
    )
    holes = (memory.HOLES - 1) / memory.HOLES * plain.activation_bytes
    assert 0 < holes < plain.gradient_bytes
    assert plain.update_bytes == pytest.approx(plain.gradient_bytes - holes, abs=2)
    assert compiled.update_bytes == compiled.gradient_bytes and gpu.update_bytes == gpu.gradient_bytes


def test_on_a_gpu_an_update_takes_the_place_of_what_the_micro_step_freed(config):
    many = [config.replace(method="full", rank=0)] * 8
    survey = survey_of(config)
    step = ("activation_bytes", "attention_bytes", "logits_bytes", "copy_bytes")
    for device, combine in (("cpu", sum), ("cuda:0", max)):
        found = memory.estimate(many, survey, 8, device)
        moment = combine((sum(vars(found)[name] for name in step), found.update_bytes))
        held = sum(list(found.terms().values())[:7])
        assert found.total_bytes == held + moment


def test_recomputed_layers_keep_their_inputs_and_two_layers(config):
    survey = survey_of(config, num_layers=30)
    kept = memory.estimate([config], survey, 4)
    recomputed = memory.estimate([config], survey, 4, recompute=True)
    layer = without_overhead(kept)["activation_bytes"] / (400 * 31)
    assert without_overhead(recomputed)["activation_bytes"] == pytest.approx(400 * (30 * 4 * 64 + 2 * layer), rel=1e-4)


def test_compiled_blocks_keep_less_and_the_compiler_has_a_term(config):
    survey = survey_of(config)
    plain, compiled = (memory.estimate([config] * 2, survey, 4, compiled=flag) for flag in (False, True))
    layer = 4 * (8 * 64 + 3 * 172) + 4 * 8  # no residuals of their own; one less of the MLP's size
    kept = 8 * 100 * (3 + 1) * layer
    assert compiled.activation_bytes == pytest.approx(memory.COMPILED_HOLES * kept, rel=1e-4)
    assert (plain.compiler_bytes, compiled.compiler_bytes) == (0, memory.COMPILER_BYTES)
    assert compiled.validation_bytes == plain.validation_bytes  # validation is not compiled
    assert "compiler" in compiled.terms()


def test_memory_grows_with_rows_and_trials(config):
    survey = survey_of(config)
    sizes = [memory.estimate([config] * n, survey, m).total_bytes for n, m in ((1, 1), (1, 2), (2, 2), (4, 2), (4, 8))]
    assert sizes == sorted(set(sizes))


# Packs ----------------------------------------------------------------------------------------------------------------

STUDY = {"axes": {"method": ["lora", "pissa", "milora", "full"], "batch_size": [1, 4, 16, 64], "rank": [2, 8]}}


def check_packs(jobs, trials, survey, memory_bytes):
    assert sorted(t.id for job in jobs for t in job.trials) == sorted(t.id for t in trials)
    assert len({job.id for job in jobs}) == len(jobs)
    for job in jobs:
        configs = [trial.config for trial in job.trials]
        assert len({config.data_key() for config in configs}) == 1
        assert 1 <= job.micro_rows <= min(config.batch_size for config in configs)
        assert memory.estimate(configs, survey, job.micro_rows).total_bytes <= memory_bytes
        groups = [key for key, _ in itertools.groupby(configs, key=lambda config: (config.method, config.rank))]
        assert len(groups) == len(set(groups)), "equal (method, rank) must be contiguous"


@pytest.mark.parametrize("mebibytes", [3600, 120, 40])  # beside the process itself
@pytest.mark.parametrize("mean_tokens", [10.0, 64.0, 900.0])
def test_packs_hold_every_trial_once_and_fit(monkeypatch, mebibytes, mean_tokens):
    forge_hashes(monkeypatch)
    trials = trials_of(**STUDY, train={"num_train_epochs": 2})
    survey = survey_of(trials[0].config, mean_tokens=mean_tokens)
    memory_bytes = memory.RUNTIME_BYTES + mebibytes * 2**20
    check_packs(packing.pack(trials, survey, memory_bytes), trials, survey, memory_bytes)


def test_packs_do_not_depend_on_the_order_of_trials(monkeypatch):
    forge_hashes(monkeypatch)
    trials = trials_of(**STUDY)
    survey = survey_of(trials[0].config)
    jobs = packing.pack(trials, survey, 4 * GIB)
    shuffled = trials[:]
    random.Random(1).shuffle(shuffled)
    assert packing.pack(shuffled, survey, 4 * GIB) == jobs


def test_a_pack_aims_at_the_target_of_tokens(monkeypatch):
    forge_hashes(monkeypatch)
    trials = trials_of(
        axes={"batch_size": [4, 16, 64], "learning_rate": [k * 1e-4 for k in range(1, 37)], "method": ["lora"]}
    )
    survey = survey_of(trials[0].config)
    for job in packing.pack(trials, survey, 4 * GIB):
        assert job.micro_rows == 4
        assert 0.8 * packing.MOST_TOKENS <= len(job.trials) * job.micro_rows * 64 <= packing.MOST_TOKENS


def test_few_trials_get_more_rows(monkeypatch):
    forge_hashes(monkeypatch)
    trials = trials_of(axes={"batch_size": [64], "learning_rate": [1e-3, 1e-2], "method": ["lora"]})
    (job,) = packing.pack(trials, survey_of(trials[0].config), 4 * GIB)
    assert (len(job.trials), job.micro_rows) == (2, 64)


def test_rows_that_divide_the_batches_are_preferred(monkeypatch):
    """With batches of 6 and 9, m = 6 would leave a third of the slots of 9 empty, m = 3 none."""
    forge_hashes(monkeypatch)
    trials = trials_of(axes={"batch_size": [6, 9], "learning_rate": [1e-3], "method": ["lora"]})
    (job,) = packing.pack(trials, survey_of(trials[0].config), 4 * GIB)
    assert job.micro_rows == 3


def test_trials_that_end_together_and_see_the_same_rows_are_together(monkeypatch):
    forge_hashes(monkeypatch)
    rates = [k * 1e-4 for k in range(1, 41)]
    trials = trials_of(
        axes={"num_train_epochs": [1, 2], "learning_rate": rates, "method": ["lora"], "batch_size": [4]},
        search={"seeds": 2},
    )
    jobs = packing.pack(trials, survey_of(trials[0].config), 4 * GIB)
    assert all(len({t.config.num_train_epochs for t in job.trials}) == 1 for job in jobs)
    num_mixed = sum(len({t.config.order_seed for t in job.trials}) > 1 for job in jobs)
    assert num_mixed <= 2  # one for each length at most


def test_a_pack_that_cannot_fit_says_what_it_needs(config):
    with pytest.raises(
        MachineError,
        match=r"memory: got '0\.10 GiB', expected about 0\.4\d GiB for one trial with one row; free some, or",
    ):
        packing.pack([Trial(config, Role.SELECT)], survey_of(config), GIB // 10)


def test_a_pack_that_was_too_large_is_tried_smaller_until_nothing_is_left(monkeypatch):
    forge_hashes(monkeypatch)
    trials = trials_of(axes={"method": ["lora"], "learning_rate": [1e-3, 2e-3, 5e-3], "batch_size": [4]})
    job = packing.make_job(trials, 4)
    (job,) = packing.smaller(job)
    assert (len(job.trials), job.micro_rows) == (3, 2)
    (job,) = packing.smaller(job)
    assert (len(job.trials), job.micro_rows) == (3, 1)
    one, two = packing.smaller(job)
    assert (len(one.trials), len(two.trials)) == (1, 2)
    assert one.trials + two.trials == tuple(trials)
    (recomputed,) = packing.smaller(one)
    assert (recomputed.trials, recomputed.micro_rows, recomputed.recompute) == (one.trials, 1, True)
    assert packing.smaller(recomputed) == ()


def test_blocks_are_recomputed_only_where_one_row_would_not_fit_otherwise(config):
    survey, trial = survey_of(config, num_layers=60, num_validation=1), Trial(config, Role.SELECT)
    kept, recomputed = (memory.estimate([config], survey, 1, recompute=flag).total_bytes for flag in (False, True))
    assert recomputed < kept
    (job,) = packing.pack([trial], survey, kept)
    assert not job.recompute
    (job,) = packing.pack([trial], survey, kept - 1)
    assert job.recompute and job.micro_rows > 1  # what it frees is used for rows


@pytest.mark.parametrize(
    ("num_train", "dropout", "compiled"), [(512, 0.0, False), (400_000, 0.0, True), (400_000, 0.1, False)]
)
def test_packs_that_train_for_long_are_compiled(config, num_train, dropout, compiled):
    """One trial of 64 tokens a row: half a second, and over 384 s; dropout differs from site to site."""
    trial = Trial(config.replace(num_train=num_train, dropout=dropout), Role.SELECT)
    (job,) = packing.pack([trial], survey_of(config), 64 * GIB)
    assert job.compiled is compiled
    assert all(part.compiled is compiled for part in packing.smaller(job))


def test_packs_fit_uncompiled_and_are_compiled_where_the_compiler_fits_too(config):
    trial = Trial(config.replace(num_train=400_000), Role.SELECT)
    survey = survey_of(config)
    (job,) = packing.pack([trial], survey, 64 * GIB)
    rows = job.micro_rows
    plain, compiled = (
        memory.estimate([trial.config], survey, rows, compiled=flag).total_bytes for flag in (False, True)
    )
    assert job.compiled and compiled > plain  # a small pack: the compiler takes more than compiled blocks save
    (tight,) = packing.pack([trial], survey, plain)
    assert tight == dataclasses.replace(job, compiled=False)


def test_an_id_depends_on_members_and_rows(monkeypatch):
    forge_hashes(monkeypatch)
    trials = trials_of()
    ids = {packing.make_job(trials[:n], m).id for n in (1, 2, 3) for m in (1, 2)}
    assert len(ids) == 6
    assert packing.make_job(trials, 2).id == packing.make_job(tuple(trials), 2).id


def test_counted_samples_are_those_that_the_trainer_reads(config):
    from welltuned.train import cursor

    for batch_size, max_steps in ((4, None), (5, None), (4, 20)):
        changed = config.replace(num_train=33, batch_size=batch_size, max_steps=max_steps, num_train_epochs=2)
        rows = cursor.batches(changed, 64)
        assert flops.num_samples(changed) == sum(len(step) for step in rows)
        assert flops.num_steps(changed) == len(rows)
    assert data.subset(config.replace(num_train=33), 64).tolist() == list(range(33))


# Starts that look at training rows, and factors that sites share ------------------------------------------------------


def test_what_a_start_sees_is_counted_once_for_each_set_of_rows(config, monkeypatch):
    survey = survey_of(config)
    weights, inputs = 64 * 64 + 172 * 64 + 64 * 64, 3 * 64 * 64

    def start(*configs):
        return memory.estimate(configs, survey, 1, device="cuda:0").start_bytes / memory.GPU_OVERHEAD

    def seen(method, **changes):
        ones = [config.replace(method=method, learning_rate=rate, **changes) for rate in (1e-3, 1e-2)]
        twice = [ones[0], ones[0].replace(subset="seeded", subset_seed=3)]
        plain = [one.replace(method="pissa" if method == "lora_ga" else "lora") for one in ones]
        return start(*ones) - start(*plain), start(*twice) - start(*plain)

    assert seen("lora_ga") == pytest.approx((4 * weights, 2 * 4 * weights), abs=2)
    assert seen("lora_ga", dtype="bfloat16") == pytest.approx((2 * weights, 2 * 2 * weights), abs=2)
    assert seen("eva") == pytest.approx((8 * inputs, 2 * 8 * inputs), abs=2)
    monkeypatch.setattr(memory, "SEEN_NUMBERS", weights // 2)  # less than the largest site
    assert seen("lora_ga")[0] == pytest.approx(4 * 172 * 64, abs=2)


def test_factors_that_sites_share_are_counted_once_for_trials_of_one_seed(config):
    """VeRA's: A of the widest inputs, B of the tallest outputs; of another seed or rank each trial has its own."""
    survey = survey_of(config)
    ones = [config.replace(method="vera", rank=8, learning_rate=rate) for rate in (1e-3, 1e-2)]
    shared = 8 * (64 + 172)

    def anchors(*configs):
        return without_overhead(memory.estimate(configs, survey, 1))["anchor_bytes"]

    assert anchors(ones[0]) == anchors(*ones) == pytest.approx(4 * shared, abs=1)
    assert anchors(ones[0], ones[1].replace(init_seed=1)) == pytest.approx(8 * shared, abs=1)
    lower = ones[1].replace(rank=9)
    assert anchors(ones[0], lower) == pytest.approx(4 * (8 + 9) * (64 + 172), abs=1)


def test_frozen_weights_of_a_method_s_own_are_counted(config):
    """Operations as the base's; what is scaled of shared ones, and what a token keeps, as memory."""
    survey = survey_of(config)
    sites = ((64, 64), (172, 64), (64, 64))
    tokens = flops.work(config, survey).num_tokens
    for method, frozen, kept in (
        ("vera", sum(8 * (o + i) for o, i in sites), 3 * 2 * 8),
        ("randlora", sum(64 * (o + i) for o, i in sites), 3 * 64),  # 8 terms of rank 8 at each
        ("boft", sum(o * i for o, i in sites), sum(i + 2 * o for o, i in sites)),
    ):
        one = config.replace(method=method, rank=8)
        trained = flops.num_trainable(one, survey)
        assert flops.num_frozen(one, survey) == frozen
        expected = tokens * (4 * (survey.num_base_weights + frozen) + 6 * trained)
        head = flops.work(one, survey).num_samples * survey.mean_target_tokens * 4 * survey.num_head_weights
        assert flops.work(one, survey).train_flops == pytest.approx(expected + head)
        found, lora = (
            without_overhead(memory.estimate([each], survey, 2))
            for each in (one, config.replace(method="lora", rank=8))
        )
        assert found["copy_bytes"] == pytest.approx(0 if method == "boft" else 4 * frozen, abs=1)
        more = 2 * survey.longest_tokens * (survey.num_layers + 1) / survey.num_layers * 4 * (kept - 3 * 8)
        assert found["activation_bytes"] - lora["activation_bytes"] == pytest.approx(more, abs=2)
    assert memory.num_shared([config.replace(method="randlora", rank=8)], survey) == 8 * 64 + 172 * 64


# Full fine-tuning of all weights --------------------------------------------------------------------------------------


def test_trials_of_all_weights_are_never_packed(monkeypatch):
    """Beside others that are, at equal data, and with rows enough to fill a micro-step."""
    forge_hashes(monkeypatch)
    trials = trials_of(axes={"method": ["lora", "full", "full_all"]})
    jobs = packing.pack(trials, survey_of(trials[0].config), 8 * GIB)
    check_packs(jobs, trials, survey_of(trials[0].config), 8 * GIB)
    alone = [job for job in jobs if any(trial.config.method == "full_all" for trial in job.trials)]
    assert [len(job.trials) for job in alone] == [1] * 4
    assert {len(job.trials) for job in jobs if job not in alone} == {8}
    assert all(job.micro_rows == job.trials[0].config.batch_size and not job.compiled for job in alone)
    others = [trial for trial in trials if trial.config.method != "full_all"]
    without = packing.pack(others, survey_of(trials[0].config), 8 * GIB)
    assert [job for job in jobs if job not in alone] == list(without)  # they change no other pack


def test_all_weights_are_counted(config):
    """Every parameter is trained; six operations for each of the blocks' and of the head's, none for looking up."""
    whole = config.replace(method="full_all", rank=0)
    survey = survey_of(whole)
    assert flops.num_trainable(whole, survey) == 150_000
    work = flops.work(whole, survey)
    assert work.train_flops == 512 * 6 * (64 * 100_000 + 24 * 32_768)
    assert work.validation_flops == 32 * 5 * 2 * (64 * 100_000 + 24 * 32_768)
    found = without_overhead(memory.estimate([whole], survey, 1))
    assert found["adapter_bytes"] == found["gradient_bytes"] == 4 * 150_000
    assert found["optimizer_bytes"] == 8 * 150_000 and found["anchor_bytes"] == 0
    assert found["copy_bytes"] == pytest.approx(4 * 150_000 + 4 * 32_768, abs=1)
    half = without_overhead(memory.estimate([whole.replace(dtype="bfloat16")], survey, 1))
    assert half["copy_bytes"] == pytest.approx(2 * 150_000 + 4 * 32_768, abs=1)


def test_all_weights_are_planned_beside_other_methods(monkeypatch):
    """`target_modules` is the others': one arm of one study, with its own parameter count."""
    forge_hashes(monkeypatch)
    tree = edited(model={"target_modules": ["q_proj"]}, axes={"method": ["lora", "full_all"]})
    plan = plan_of(Spec.model_validate(tree))
    summary = plan_cost.summary(plan, 8 * GIB, 1000.0)
    counts = {row.name: row.num_trainable for row in summary.arms}
    assert counts["full_all"] == (150_000, 150_000) and counts["lora"][1] < 10_000
    modules = {config.method: config.target_modules for arm in plan.arms for config in arm.configs}
    assert modules == {"lora": ("q_proj",), "full_all": ("all-linear",)}
    assert {config.rank for config in plan.arms[1].configs} == {0}
