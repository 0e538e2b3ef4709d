"""The benchmark times equal work: every runner trains the same trials, and what it reports follows from the numbers."""

import json
import os
import pathlib
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from benchmarks import (
    cases,
    child,
    compare,
    generation,
    journal,
    loop,
    memory,
    packed,
    packed_vs_peft,
    parts,
    retiring,
    settings,
    startup,
    trainer,
    width,
    work,
    writing,
)
from benchmarks.records import Assignment, Measurement, Setting
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from welltuned.costs import packing
from welltuned.data import Rows
from welltuned.executors import machine
from welltuned.packing import lines
from welltuned.packing.batch import RowTable
from welltuned.records import Role, Site, Survey, Trial

# PEFT 0.21 reads a name that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

ROOT = pathlib.Path(__file__).parents[1]
FLOAT32 = Setting("float32", "float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A two-layer Llama with grouped queries and the abacus tokenizer, as a folder."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=135,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "src/welltuned/models/abacus/small" / name, folder)
    return str(folder)


def options(base, samples=16):
    return cases.Options(base=base, dtype="float32", samples=samples)


def two_jobs(base, batch_size=4):
    configs = cases.batch(options(base), batch_size, 16, 1.0).contenders[0].configs[-2:]
    return tuple(packing.make_job([Trial(config, Role.SELECT)], batch_size) for config in configs)


# What is counted ------------------------------------------------------------------------------------------------------


def survey():
    """A base of 1000 weights in one site of 20 x 50, and a head of 320."""
    return Survey("", (Site("s", 20, 50),), 1320, 1000, 320, 50, 1, 1, 32, 9, 1, 1, 4.0, 5, 2.5, 0, 0, 0)


def test_useful_operations_are_those_counted_by_hand():
    rows = Rows((np.arange(3), np.arange(5)), np.array([1, 2]), (None, None), 0, 0)
    config = tiny.config(num_train=2, batch_size=2, num_train_epochs=3, rank=1)
    counted = work.count(config, rows, survey())
    tokens, targets, adapter = 3 * (3 + 5), 3 * (2 + 3), 1 * (20 + 50)
    assert (counted.num_rows, counted.num_tokens, counted.num_targets) == (6, tokens, targets)
    assert counted.flops == 4 * 1000 * tokens + 6 * adapter * tokens + 4 * 320 * targets


def test_a_first_token_is_no_target():
    rows = Rows((np.arange(4),), np.array([0]), (None,), 0, 0)
    assert work.count(tiny.config(num_train=1, batch_size=1, rank=1), rows, survey()).num_targets == 3


def test_the_peak_is_a_rate_of_matmuls(monkeypatch):
    monkeypatch.setattr(work, "MATMUL_SECONDS", 0.01)
    monkeypatch.setattr(work, "MATMUL_SIZES", ((64, 64, 64),))
    found = work.matmul_peaks(["bfloat16", "float32"], 1)
    assert set(found) == {"bfloat16", "float32"} and all(1e5 < rate < 1e14 for rate in found.values())


# The runners ----------------------------------------------------------------------------------------------------------


def test_every_runner_gives_the_same_losses(base):
    jobs = two_jobs(base)
    together = (packing.make_job([job.trials[0] for job in jobs], 2),)
    found = {
        "packed": packed.run(Assignment("packed", together, 1)),
        "alone": packed.run(Assignment("alone", jobs, 1)),
        "trainer": trainer.run(Assignment("trainer", jobs, 1, FLOAT32)),
        "loop": loop.run(Assignment("loop", jobs, 1, FLOAT32)),
    }
    assert all(len(losses) == 4 for each in found.values() for losses in each.losses.values())
    worst, num_trials = compare.largest_difference(found)
    assert num_trials == 2 and worst < 1e-4
    for each in found.values():
        assert each.seconds >= sum(each.job_seconds) > 0 and each.peak_bytes > 0
        assert each.num_padded_tokens > 0


@pytest.mark.parametrize("runner", [trainer, loop])
def test_padding_free_trains_the_same_trials_on_fewer_slots(base, runner):
    jobs = two_jobs(base)
    concatenated = Setting("padding-free", "float32", padding_free=True)
    one, other = (runner.run(Assignment("", jobs, 1, setting)) for setting in (FLOAT32, concatenated))
    assert compare.largest_difference({"one": one, "other": other})[0] < 1e-4
    assert other.num_padded_tokens < one.num_padded_tokens


def test_slots_are_counted_inside_only():
    before = lines.gather
    table, rows = RowTable(tiny.rows(8), 0, torch.device("cpu")), [np.arange(2)]
    size = lines.needed(table, rows, joined=True)
    with packed.counted_slots() as slots:
        read = lines.gather(table, rows, 2, size, joined=True)
        table.block(rows, 2)  # of validation
    lines.gather(table, rows, 2, size, joined=True)
    assert slots.number == read.ids_LS.numel() and lines.gather is before


def test_compilations_that_the_compiler_forgets_are_counted(monkeypatch):
    """Every pack begins anew with it; `begin` is as before afterwards."""
    begin, spent = packed.blocks.Blocks.begin, iter([0.0, 17.0, 3.0])
    monkeypatch.setattr(child, "compile_seconds", lambda: next(spent))
    model = tiny.packed()
    with packed.every_compilation() as earlier:
        model.blocks.begin()
        model.blocks.begin()
    model.blocks.begin()
    assert earlier == [0.0, 17.0] and packed.blocks.Blocks.begin is begin


def test_a_method_that_peft_is_not_compared_on_is_refused(base):
    job = two_jobs(base)[0]
    pissa = packing.make_job([Trial(job.trials[0].config.replace(method="pissa"), Role.SELECT)], 4)
    with pytest.raises(ValueError, match="got 'pissa', expected 'lora'"):
        loop.run(Assignment("loop", (pissa,), 1, FLOAT32))


def test_a_child_has_a_peak_of_its_own():
    held = torch.ones(1 << 27)  # 512 MiB, which a child would inherit in ru_maxrss
    assert child.call(machine.peak_bytes) < machine.peak_bytes() - held.numel()
    assert child.compile_seconds() >= 0


def _fail():
    raise ValueError("planted")


def test_what_a_child_raises_is_raised_here_and_one_that_ends_is_named():
    with pytest.raises(ValueError, match="planted"):
        child.call(_fail)
    with pytest.raises(RuntimeError, match="_exit: got exit code 3 from its process, expected a result"):
        child.call(os._exit, 3)


def test_a_child_is_stopped_after_its_time():
    began = time.monotonic()
    assert child.within(1.0, time.sleep, 600) is None
    assert time.monotonic() - began < 300


def test_a_benchmark_that_was_cut_off_goes_on_with_what_it_has(tmp_path):
    done = []

    def measure(value):
        return lambda: done.append(value) or value

    first = journal.Journal(tmp_path / "j", ["a"])
    assert [first.result(measure(value)) for value in (1, None)] == [1, None]
    again = journal.Journal(tmp_path / "j", ["a"])
    assert [again.result(measure(value)) for value in (1, None, 3)] == [1, None, 3] and done == [1, None, 3]
    with pytest.raises(ValueError, match="got the journal of a, expected this command's"):
        journal.Journal(tmp_path / "j", ["b"])


# Cases and settings ---------------------------------------------------------------------------------------------------


def test_cases_have_the_trials_that_their_titles_say(base, tmp_path):
    sizes = {name: cases.make(name, options(base, 256)).contenders for name in cases.NAMES if "smollm2" not in name}
    assert {name: [len(each.configs) for each in found] for name, found in sizes.items()} == {
        **{name: [32] * 4 for name in ("batch-4", "batch-16", "batch-64", "mixed")},
        "pissa": [32, 32],
        "dora": [32, 32],
    }
    assert len({config.batch_size for config in sizes["mixed"][0].configs}) == 4
    assert "needs --smollm2" in cases.make("smollm2", options(base))
    assert "needs --smollm2" in cases.make("smollm2-long", options(base))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "2 + 2?", "answer": "2 + 2 = 4\n#### 4"}))
    long = cases.make("smollm2-long", cases.Options(base, "float32", None, pathlib.Path(base), rows))
    assert [(each.runner, len(each.configs)) for each in long.contenders] == [("packed", 8), ("alone", 8)]
    assert {config.num_train for config in long.contenders[0].configs} == {128}
    assert (long.name, long.against) == ("smollm2-long", "alone") and "128 rows" in long.title


def test_some_trials_of_every_batch_size_are_measured(base):
    configs = cases.mixed(options(base, 256), 256, 1.0).contenders[0].configs
    chosen = cases.measured(configs, 4)
    assert [config.batch_size for config in chosen] == [4, 4, 16, 64, 256]
    assert cases.measured(configs, None) == list(configs)


def test_the_fastest_setting_that_keeps_the_order_is_chosen(base):
    seconds = {"float32": 2.0, "bfloat16 weights": 1.0, "bfloat16 weights, group_by_length": 0.1}

    def measure(task, limit):
        each = seconds.get(task.setting.name, 3.0)
        return Measurement(0, 0, 0, 0, {}, [5 + each, 0.5 + each], [each, each])

    configs = cases.batch(options(base, 96), 4, 96, 1.0).contenders[0].configs
    best, tried = settings.select(configs, 1, measure)
    assert best.name == "bfloat16 weights"
    chosen = next(item for item in tried if item.setting == best)
    assert chosen.rows_per_second == 96 and chosen.once_seconds == 4.5
    assert chosen.projected_seconds == pytest.approx(4.5 + 32 * 0.5 + 32 * 1.0)
    assert sum(not item.may_be_chosen for item in tried) == 1


def test_the_setting_that_comes_first_is_measured_twice_and_counts_the_second_time(base):
    """Whoever comes first pays for memory that a virtual machine fetches from its host."""
    calls = []

    def measure(task, limit):
        calls.append(task.setting.name)
        each = 10.0 if len(calls) == 1 else 1.0 + 0.1 * len(calls)
        return Measurement(0, 0, 0, 0, {}, [each, each], [each, each])

    configs = cases.batch(options(base, 96), 4, 96, 1.0).contenders[0].configs
    best, tried = settings.select(configs, 1, measure)
    assert calls[:3] == ["float32", "float32", "bfloat16 weights"] and best.name == "float32"
    assert [item.setting.name for item in tried].count("float32") == 1


def test_a_precision_that_trains_other_losses_is_told_and_not_chosen(base):
    """Its row would not count; what packed would be against it is told by the short trials."""
    off = "bfloat16 autocast"

    def measure(task, limit):
        is_off = task.setting.name == off
        losses = {trial.id: [1.006 if is_off else 1.0] for trial in task.trials}
        each = 1.0 if is_off else 2.0
        return Measurement(0, 0, 0, 0, losses, [each, each], [each, each])

    configs = cases.batch(options(base, 96), 4, 96, 1.0).contenders[0].configs
    best, tried = settings.select(configs, 1, measure)
    assert best.name == "float32"
    (found,) = [item for item in tried if item.setting.name == off]
    assert writing.tried_cells(found)[-1] == "for the record: final losses 0.6% from float32's"
    for seconds, told in ((20.0, "1.50"), (40.0, "0.80")):  # the chosen one was projected to 64 s, this to 32 s
        case = SimpleNamespace(rows=(SimpleNamespace(speed=3.0, seconds=seconds),))
        (line,) = writing.faster(case, tried)
        assert f"{off} is faster with other losses (0.6% from float32's)" in line and f"at {told} x" in line
    assert writing.faster(case, [item for item in tried if item.setting.name != off]) == []


def test_a_setting_that_cannot_win_is_stopped_and_never_chosen(base):
    limits = []

    def measure(task, limit):
        limits.append(limit)
        return None if task.setting.compiled else Measurement(0, 0, 0, 0, {}, [3.0, 1.5], [1.0, 1.0])

    configs = cases.batch(options(base, 96), 4, 96, 1.0).contenders[0].configs
    best, tried = settings.select(configs, 1, measure)
    stopped = next(item for item in tried if item.setting.compiled)
    assert not best.compiled and stopped.is_stopped and not stopped.may_be_chosen
    assert limits[:2] == [None, None] and set(limits[2:]) == {settings.LEAST_SECONDS}  # 1.5 + 32 x 0.5 + 32 s are fewer
    assert writing.tried_cells(stopped)[-2:] == ("> 60", "stopped: it cannot win")


def test_the_loop_takes_trainer_s_setting_without_the_compiler():
    compiled = Setting("float32, torch_compile", "float32", compiled=True)
    assert packed_vs_peft.of_loop(compiled) == FLOAT32


# From measurements to rows --------------------------------------------------------------------------------------------


def test_trials_that_were_not_measured_count_as_their_batch_size_and_loading_once(base):
    contender = cases.mixed(options(base, 256), 256, 1.0).contenders[2]
    chosen = [config.id() for config in cases.measured(contender.configs, 4)]
    measured = Measurement(0, 0, 0, 0, {}, [13.0, 8.0, 4.0, 2.0, 1.0])
    assert compare.case_seconds(contender, measured, chosen) == 5 + 8 * (8 + 4 + 2 + 1)
    everyone = [config.id() for config in contender.configs]
    assert compare.case_seconds(contender, Measurement(7.0, 0, 0, 0, {}), everyone) == 7.0


def compared(differ=0.0):
    """Two contenders, two trials each: 10 s and 40 s."""
    configs = tuple(tiny.config(init_seed=seed) for seed in (0, 1))
    contenders = tuple(cases.Contender(name, name, configs) for name in ("packed", "alone", "trainer"))
    case = cases.Case("case", "a case", contenders, "trainer", 3.0)
    ids = [config.id() for config in configs]
    repeats = {
        name: [
            Measurement(seconds * factor, 1.0, 2**30, 300, {trial: [3.0, 1 + differ * place] for trial in ids})
            for factor in (0.9, 1.0, 5.0)
        ]
        for place, (name, seconds) in enumerate({"packed": 10.0, "alone": 20.0, "trainer": 40.0}.items())
    }
    works = {trial: work.Work(24, 100, 50, 1e9) for trial in ids}
    named = {name: ("float32", "float32") for name in repeats}
    return compare.compare(case, repeats, dict.fromkeys(repeats, ids), named, works, {"float32": 1e9})


def test_rows_hold_medians_rates_and_ratios():
    case = compared()
    ours, alone, theirs = case.rows
    assert (ours.seconds, ours.speed, ours.packing_gain) == (10.0, 4.0, 2.0)
    assert (ours.trials_per_hour, theirs.trials_per_hour) == (720.0, 180.0)
    assert (ours.target_tokens_per_second, ours.real_tokens_per_second) == (10.0, 20.0)
    assert ours.padded_tokens_per_second == pytest.approx(30.0)
    assert ours.matmul_fraction == pytest.approx(2e9 / 10 / 1e9)
    assert alone.packing_gain is None and theirs.speed == 1.0
    assert case.counts and case.largest_difference == 0.0


def test_rows_that_disagree_do_not_count():
    case = compared(differ=0.004)
    assert case.largest_difference == pytest.approx(0.008 / 1.008) and not case.counts
    assert "DOES NOT COUNT" in writing.verdict(case)
    assert "4.00 x trainer, aimed at 3 x" in writing.verdict(compared(differ=0.002))


# What is written ------------------------------------------------------------------------------------------------------


def test_a_page_gets_a_dated_section_with_the_machine(tmp_path):
    page, case = tmp_path / "performance.md", compared()
    page.write_text("# Performance\n")
    text = writing.section("packed", "2025-01-31", "make bench", {"cores": "2"}, [writing.case_markdown(case, [])])
    writing.append(page, text)
    lines = page.read_text().splitlines()
    assert lines[:3] == ["# Performance", "", "## 2025-01-31: packed"] and "Machine: cores 2." in lines
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3 and all(line.count("|") == len(writing.HEADINGS) + 1 for line in table)
    assert "4.00 x" in table[2] and "2.00 x" in table[2]


def test_results_are_json_without_nan(tmp_path):
    writing.write_json(tmp_path / "deep" / "results.json", {"case": compared()})
    read = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert read["case"]["rows"][0]["seconds"] == 10.0
    with pytest.raises(ValueError):
        writing.write_json(tmp_path / "nan.json", {"seconds": float("nan")})


def test_scaled_rows_say_so(capsys):
    row = compared().rows[2]
    scaled = compare.Row(**{**vars(row), "num_measured": 1})
    assert writing.cells(scaled)[1] == "1 of 2, scaled" and writing.cells(row)[1] == "2"
    writing.show("a case", writing.HEADINGS, [writing.cells(scaled)])
    assert "1 of 2, scaled" in capsys.readouterr().out


# The smaller benchmarks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merged", [False, True])
def test_generation_in_turn_and_packed_write_the_same_tokens(base, merged):
    first = cases.batch(options(base), 4, 16, 1.0).contenders[0].configs[0]
    configs = [first.replace(init_seed=seed) for seed in range(2)]
    manner = generation.Manner(merged, "float32", 3, "dynamic")
    ours = generation.packed(configs, 4, 5, 1)
    theirs = generation.in_turn(configs, 4, 5, 1, manner)
    assert [[len(ids) for ids in prompts] for prompts in ours.ids] == [[5] * 4] * 2
    assert generation.same_share(ours.ids, theirs.ids) == 1.0


def test_packs_of_any_width_hold_different_trials(base):
    config = cases.batch(options(base), 4, 16, 1.0).contenders[0].configs[0]
    assert len({trial.id for trial in width.trials_of(config, 128)}) == 128


def test_the_first_step_is_seen_in_the_store(tmp_path):
    assert not startup.has_stepped(tmp_path)


@pytest.mark.slow
def test_a_study_is_timed_to_its_first_step():
    assert 0 < startup.seconds_to_first_step("abacus-small", "float32", 1) < startup.MOST_SECONDS


@pytest.fixture
def no_children(monkeypatch):
    """Call in this process: children are slow to start, and a test has one of its own."""
    monkeypatch.setattr(child, "call", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(child, "within", lambda seconds, function, *arguments: function(*arguments))


def test_the_whole_benchmark_runs_and_writes(base, tmp_path, monkeypatch, no_children, capsys):
    monkeypatch.setattr(settings, "PRECISIONS", ())
    monkeypatch.setattr(settings, "variants", lambda precision: ())
    monkeypatch.setattr(work, "MATMUL_SECONDS", 0.01)
    output, page = tmp_path / "results.json", tmp_path / "page.md"
    packed_vs_peft.main(
        case=["batch-4", "smollm2"],
        base=base,
        dtype="float32",
        samples=20,
        repeats=1,
        measured=2,
        threads=1,
        output=output,
        write=page,
    )
    results = json.loads(output.read_text())
    (found,) = results["cases"]
    assert found["counts"] and found["case"]["compared_trials"] == 2 and found["case"]["largest_difference"] < 1e-4
    assert {row["contender"]: row["num_measured"] for row in found["case"]["rows"]} == {
        **{"packed": 32, "alone": 2, "trainer": 2, "loop": 2}
    }
    assert all(len(row["all_seconds"]) == 1 and row["matmul_fraction"] > 0 for row in found["case"]["rows"])
    assert results["skipped"] == ["Skipped smollm2: needs --smollm2 PATH.gguf and --gsm8k PATH.jsonl."]
    assert "trainer (float32)" in page.read_text() and "Skipped smollm2" in capsys.readouterr().out


def test_an_unknown_case_is_refused():
    with pytest.raises(typer.BadParameter, match="got batch-5, expected batch-4, "):
        packed_vs_peft.main(case=["batch-5"])


def test_memory_is_measured_at_equal_slots_and_written(base, tmp_path, no_children):
    output = tmp_path / "memory.json"
    memory.main(base=base, dtype="float32", tokens=64, threads=1, output=output, write=tmp_path / "page.md")
    found = json.loads(output.read_text())
    assert len(found["peak_bytes"]) == 2
    assert [(line[0], line[1], line[2]) for line in found["lines"]] == [("1", "16", "1,024"), ("16", "1", "1,024")]
    assert "### memory: " in (tmp_path / "page.md").read_text()


def test_memory_is_refused_where_there_is_too_little(base, tmp_path, monkeypatch, no_children):
    monkeypatch.setattr(memory, "memory_bytes", lambda device: 1 << 20)
    with pytest.raises(typer.BadParameter, match=r"needs about 0\.\d GiB; 0\.0 GiB can be used; close"):
        memory.main(base=base, dtype="float32", tokens=64, threads=1, output=tmp_path / "memory.json")


def test_half_of_a_retiring_pack_stops_at_a_tenth(base):
    config = cases.batch(options(base), 4, 16, 1.0).contenders[0].configs[0]
    whole, early = retiring.jobs(config, 20).values()
    assert {trial.config.max_steps for trial in whole.trials} == {20}
    assert sorted(trial.config.max_steps for trial in early.trials) == [2] * 16 + [20] * 16


def test_the_parts_of_a_micro_step_are_all_of_it(base, tmp_path, monkeypatch, no_children):
    monkeypatch.setattr(work, "MATMUL_SECONDS", 0.01)
    output, page = tmp_path / "parts.json", tmp_path / "page.md"
    parts.main(base=base, dtype="float32", samples=40, steps=2, threads=1, output=output, write=page)
    found = json.loads(output.read_text())["found"]
    assert sum(found["by_part"].values()) == pytest.approx(sum(found["by_operation"].values()))
    assert found["by_part"][parts.BASE] > 0 and found["by_part"][parts.BATCHED] > 0
    assert not found["is_compiled"] and parts.COMPILED not in found["by_part"]  # too little work to compile for
    assert 0 < found["tokens"] <= found["slots"] and found["milliseconds"] > 0
    assert "### a micro-step of " in page.read_text() and "at the peak of a large matmul" in page.read_text()


def test_more_micro_steps_than_a_trial_has_are_refused(base, no_children):
    with pytest.raises(typer.BadParameter, match="got trials of 4 micro-steps, expected at least 8"):
        parts.main(base=base, dtype="float32", samples=16, steps=2, threads=1)


def test_a_page_names_no_folder_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["parts.py", "--gsm8k", str(tmp_path / "train.jsonl"), "--write", "page.md"])
    writing.finish("parts", "parts", 1, {}, [], tmp_path / "found.json", tmp_path / "page.md")
    assert "`python -m benchmarks.parts --gsm8k train.jsonl --write page.md`" in (tmp_path / "page.md").read_text()
    assert json.loads((tmp_path / "found.json").read_text())["command"].endswith("--gsm8k train.jsonl --write page.md")


def test_operations_are_told_apart():
    names = {"aten::mm": parts.BASE, "aten::addmm": parts.BASE, "aten::bmm": parts.BATCHED, "aten::copy_": parts.COPIES}
    names |= {"aten::baddbmm": parts.BATCHED, "CompiledFunctionBackward": parts.COMPILED, "aten::lerp_": parts.REST}
    names |= {"## Call CompiledFxGraph fbmmlinear ##": parts.COMPILED}  # a hash may have any letters
    assert {name: parts.part_of(name) for name in names} == names
