"""Compiled blocks: the same training as uncompiled ones, one graph, and uncompiled where nothing can compile."""

import copy
import dataclasses
import threading

import pytest
import torch
from torch._inductor import cpu_vec_isa
from transformers import MistralConfig, MistralForCausalLM
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral

import tiny
from welltuned import plugins, worker
from welltuned.packing import blocks, lines
from welltuned.records import TrainJob
from welltuned.train import loop

needs_compiler = pytest.mark.skipif(
    not blocks.available(torch.device("cpu")), reason="no C++ compiler, without which blocks run uncompiled"
)


@pytest.fixture
def compiler(monkeypatch):
    """A fresh compiler, and a norm that computes in float64: the model's own rounds to float32 on the way."""

    def norm(self, hidden):
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", norm)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return torch._dynamo.utils.counters["stats"]


@needs_compiler
@pytest.mark.parametrize(
    ("make", "method", "ranks"),
    [
        (tiny.llama, "lora", (2, 3)),
        (tiny.gpt2, "pissa", (2, 3)),
        (tiny.llama, "dora", (2, 3)),
        (tiny.llama, "vera", (2, 3)),
        (tiny.llama, "gralora", (4, 6)),
        (tiny.llama, "randlora", (3, 3)),
        (tiny.llama, "boft", (4, 4)),
    ],
)
def test_a_compiled_pack_equals_an_uncompiled_one(make, method, ranks, tmp_path, compiler):
    """Mixed batch sizes, ranks and lengths, in float64: <= 1e-9 relative; one graph serves all blocks and lengths."""
    model = make()
    settings = [{"batch_size": 4, "rank": ranks[0]}, {"batch_size": 5, "rank": ranks[1]}]  # both end together
    settings[1] |= {"scaling": 0.5} if plugins.load("methods", method).uses_alpha else {}
    trials = [tiny.trial(method=method, max_steps=8, **changes) for changes in settings]
    plain = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), trials, 3, tmp_path))
    fast = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), trials, 3, tmp_path, compiled=True))
    assert compiler["unique_graphs"] == 1
    for one in trials:
        assert fast[one.id].train_losses == pytest.approx(plain[one.id].train_losses, rel=1e-9, abs=0)
        assert fast[one.id].validation_nll == pytest.approx(plain[one.id].validation_nll, rel=1e-9, abs=0)


def windowed():
    """A two-layer Mistral whose window is shorter than its rows."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 3, "initializer_range": 0.3}
    config = MistralConfig(vocab_size=tiny.VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, **sizes)
    torch.manual_seed(0)
    return MistralForCausalLM(config).double().eval().requires_grad_(False)


@needs_compiler
@pytest.mark.parametrize(("make", "recompute"), [(tiny.llama, True), (windowed, False), (windowed, True)])
def test_compiled_lines_with_windows_and_computed_again(make, recompute, tmp_path, compiler, monkeypatch):
    """One graph, the losses of padded rows as they are; float64, 1e-9."""
    monkeypatch.setattr(modeling_mistral.MistralRMSNorm, "forward", modeling_llama.LlamaRMSNorm.forward)
    model = make()
    trials = [tiny.trial(max_steps=8, batch_size=4, init_seed=seed) for seed in range(2)]
    padded = tiny.packed(copy.deepcopy(model))
    padded.base.reads_lines = False
    plain = tiny.outcomes(tiny.run_pack(padded, trials, 4, tmp_path))
    fast = tiny.packed(copy.deepcopy(model))
    assert fast.base.reads_lines
    found = tiny.outcomes(tiny.run_pack(fast, trials, 4, tmp_path, compiled=True, recompute=recompute))
    assert compiler["unique_graphs"] == 1
    for one in trials:
        assert found[one.id].train_losses == pytest.approx(plain[one.id].train_losses, rel=1e-9, abs=0)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_lines_and_rows_of_any_length_are_compiled_once(dtype, tmp_path, compiler, monkeypatch):
    """Sizes as they come, not in sixteens, in fused and in plain attention."""
    seen: list[lines.Size] = []
    gather = lines.gather

    def noted(table, rows, width, size, joined):
        seen.append(size)
        return gather(table, rows, width, size, joined)

    monkeypatch.setattr(lines, "MULTIPLE", 1)
    monkeypatch.setattr(lines, "gather", noted)
    trials = [tiny.trial(max_steps=8, init_seed=seed) for seed in range(3)]
    tiny.outcomes(tiny.run_pack(tiny.packed(tiny.llama(dtype)), trials, 4, tmp_path, compiled=True))
    assert len({size.num_slots for size in seen}) > 2 and len({size.num_tokens for size in seen}) > 1
    assert compiler["unique_graphs"] == 1


@needs_compiler
def test_trials_that_leave_a_compiled_pack_take_no_other_compilation(tmp_path, compiler, monkeypatch):
    """Six, five, four, two, and then one, which is other code; float64, <= 1e-9 of uncompiled ones."""
    steps = (2, 4, 8, 8, 10, 12)
    trials = [tiny.trial(init_seed=seed % 2, max_steps=many, order_seed=seed) for seed, many in enumerate(steps)]
    plain = tiny.outcomes(tiny.run_pack(tiny.packed(), trials, 3, tmp_path, threads=1))
    taken = []
    take = loop.PackRun.take

    def noted(self, keep):
        taken.append((len(keep), compiler["unique_graphs"]))
        take(self, keep)

    monkeypatch.setattr(loop.PackRun, "take", noted)
    fast = tiny.outcomes(tiny.run_pack(tiny.packed(), trials, 3, tmp_path, compiled=True, threads=1))
    assert taken == [(5, 1), (4, 1), (2, 1), (1, 1), (0, 2)]
    for one in trials:
        assert fast[one.id].train_losses == pytest.approx(plain[one.id].train_losses, rel=1e-9, abs=0)


@pytest.fixture
def graphs(monkeypatch):
    """Trace blocks without making code of them; return the numbers of inputs of what was traced."""
    traced = []

    def counted(graph, inputs):
        traced.append(len(inputs))
        return graph.forward

    compiled = torch.compile
    monkeypatch.setattr(
        blocks.torch, "compile", lambda forward, dynamic, options: compiled(forward, dynamic=dynamic, backend=counted)
    )
    monkeypatch.setattr(blocks, "available", lambda device: True)
    monkeypatch.setattr(loop, "available", lambda device: True)
    return traced


def test_every_pack_of_a_process_is_compiled(tmp_path, graphs):
    """The compiler stops without a word at its 8th graph of a process."""
    model = tiny.packed()
    found = []
    for pack in range(10):
        trials = [tiny.trial(init_seed=seed, max_steps=3, batch_size=2) for seed in range(2 + pack % 3)]
        graphs.clear()
        tiny.outcomes(tiny.run_pack(model, trials, 2, tmp_path, compiled=True))
        found.append(len(graphs))
    assert set(found) == {1}


@pytest.mark.parametrize(("reads_lines", "methods"), [(True, ("lora", "dora")), (False, ("lora",))])
def test_what_is_equal_at_first_is_not_taken_to_be_the_same(reads_lines, methods, tmp_path, graphs, monkeypatch):
    """Three trials of each, then two of the first: one graph, though B has equal offsets in the first block alone."""
    model = tiny.packed()
    model.base.reads_lines = reads_lines
    trials = [
        tiny.trial(method=method, init_seed=seed, max_steps=3 if (method, seed) == ("lora", 0) else 10)
        for method in methods
        for seed in range(3)
    ]
    left = []
    take = loop.PackRun.take

    def noted(self, keep):
        left.append(len(keep))
        take(self, keep)

    monkeypatch.setattr(loop.PackRun, "take", noted)
    tiny.outcomes(tiny.run_pack(model, trials, 3, tmp_path, compiled=True, threads=1))
    assert left == [len(trials) - 1, 0] and len(graphs) == 1


def test_the_compiler_gets_ready_on_another_thread(monkeypatch):
    """It tries the processor's instructions while the base is loaded; where nothing can compile, it tries nothing."""
    tried = threading.Event()
    monkeypatch.setattr(cpu_vec_isa, "pick_vec_isa", tried.set)
    monkeypatch.setattr("shutil.which", lambda name: None)
    blocks.get_ready(torch.device("cpu"))
    assert not tried.wait(0.2)
    monkeypatch.setattr("shutil.which", lambda name: name)
    blocks.get_ready(torch.device("cpu"))
    assert tried.wait(10)


def test_without_a_compiler_blocks_run_as_they_are(tmp_path, monkeypatch):
    """The same losses to the bit as a pack that was never to be compiled, and it is said."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    trial = tiny.trial()
    plain = tiny.outcomes(tiny.run_pack(tiny.packed(), [trial], 2, tmp_path))
    fast = tiny.outcomes(tiny.run_pack(tiny.packed(), [trial], 2, tmp_path, compiled=True))
    assert fast[trial.id].train_losses == plain[trial.id].train_losses
    job, model = TrainJob("pack", (trial,), 2, compiled=True), tiny.packed()
    assert worker._beginning(job, model) == "no C++ compiler, so not compiled"
    monkeypatch.undo()
    assert worker._beginning(dataclasses.replace(job, compiled=False), model) == "initialising"


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
def test_outside_the_context_blocks_are_uncompiled(make):
    """Evaluation and generation run the model's own code."""
    model = tiny.packed(make())
    assert len(model.blocks.modules) == 2
    before = [block.forward for block in model.blocks.modules]
    model.blocks.begin()
    with model.bound(None, compiled=True):
        assert all(block.forward != own for block, own in zip(model.blocks.modules, before, strict=True))
    assert [block.forward for block in model.blocks.modules] == before
