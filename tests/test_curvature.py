"""Curvature of real adapters on tiny models, against dense derivatives of the published forms, in float64."""

import importlib.util

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.llama import modeling_llama

import tiny
from reference import curvature as dense
from reference import methods as reference
from welltuned.curvature import survey
from welltuned.curvature.blocks import Blocks, Member, Saved
from welltuned.curvature.joint import Joint
from welltuned.curvature.lanczos import Effort
from welltuned.curvature.measure import measure
from welltuned.curvature.points import chosen, trained
from welltuned.curvature.rows import Rows
from welltuned.curvature.survey import Request, check_repeatable, layer_of, passes, refuse, sites_of
from welltuned.errors import InputError
from welltuned.kernels import Skinny
from welltuned.packing.batch import RowTable
from welltuned.packing.state import grouped, initial
from welltuned.records import Runtime

NUM_ROWS = 3
KEPT = 1 << 30
# Norms of Llama and GPT-2 are computed in float32 in part, whatever the weights' dtype
RTOL = 1e-5
METHODS = ["lora", "init_ab", "pissa", "milora", "olora", "dora", "dora+pissa", "gralora", "vera", "full"]
SITES = {"llama": "model.layers.0.self_attn.q_proj", "gpt2": "transformer.h.0.attn.c_attn"}


def module_of(state, method, weight, bias, scaling):
    """The published form of a site at its trial's numbers: A and B themselves, on W without s B0 A0."""
    weight = weight.clone()
    if "dW" in state:
        return reference.FullLinear(weight + state["dW"], bias)
    if "b" in state:
        module = reference.VeraLinear(weight, bias, state["A"], state["B"])
        module.b.data, module.d.data = state["b"], state["d"]
        module._parameters = {name: module._parameters[name] for name in ("d", "b")}  # the order of the trained names
        return module
    A, B = state.get("A"), state.get("B")
    if "A0" in state:
        A, B = state["A0"] + state["dA"], state["B0"] + state["dB"]
        weight = weight - scaling * state["B0"] @ state["A0"]
    if method == "gralora":
        return reference.GraloraLinear(weight, bias, A.clone(), B.clone(), scaling)
    if "m" in state:
        module = reference.DoraLinear(weight, bias, A.clone(), B.clone(), scaling)
        module.m.data = state["m"].clone()
        return module
    return reference.LowRankLinear(weight, bias, A.clone(), B.clone(), scaling)


def block_of(base, table, state, method, site, scaling=1.0):
    weight, bias = base.weight(site), base.sites[site].bias
    bias = None if bias is None else bias.detach()  # a parameter would be taken for one that is trained
    rows = [(table.ids[row, : table.lengths[row]].tolist(), int(table.prompt_lengths[row])) for row in range(NUM_ROWS)]
    return dense.Block(base.model, site, module_of(state[site], method, weight, bias, scaling), rows)


class Setting:
    """A tiny packed model with the start of some trials, and the rows."""

    def __init__(self, methods, architecture="llama", **changes):
        bare = tiny.base(tiny.llama() if architecture == "llama" else tiny.gpt2())
        self.plain = bare  # its own modules, for the dense reference
        self.table = RowTable(tiny.rows(NUM_ROWS), 0, bare.device)
        self.rows = Rows(self.table, np.arange(NUM_ROWS))
        self.trials = grouped([tiny.trial(method=method, **changes) for method in methods])
        self.model = tiny.packed(tiny.llama() if architecture == "llama" else tiny.gpt2())
        self.state = initial(self.model.base, self.trials, self.table)

    def blocks(self, *sites, shared=None, kept=KEPT):
        members = [Member(site, group) for site in sites for group in self.state.groups]
        return Blocks(self.model, shared, members, self.rows, kept)


def matrix_of(operator, product, number):
    """The dense matrix of one block, product by product."""
    size = int(operator.own_NP[number].sum())
    columns = []
    for place in range(size):
        v_NP = torch.zeros(1, operator.length, dtype=torch.float64)
        v_NP[0, place] = 1
        columns.append(product(v_NP, [number])[0, :size])
    return torch.stack(columns, dim=1)


def close(found, expected):
    return torch.allclose(found, expected, rtol=0, atol=RTOL * expected.abs().max().item())


@pytest.mark.parametrize("architecture", SITES)
def test_products_are_those_of_the_dense_matrices_for_every_method(architecture):
    """All methods share one pass; each one's products along random vectors are its published form's."""
    setting = Setting(METHODS if architecture == "llama" else METHODS[:3], architecture)
    site = SITES[architecture]
    blocks = setting.blocks(site)
    v_NP = torch.randn(blocks.num_blocks, blocks.length, dtype=torch.float64) * blocks.own_NP
    everyone = range(blocks.num_blocks)
    found = blocks.hessian(v_NP, everyone), blocks.gauss_newton(v_NP, everyone), blocks.gradients().mean_NP
    for number, trial in enumerate(setting.trials):
        method = trial.config.method
        block = block_of(setting.plain, setting.table, setting.state.trial_state(number), method, site)
        size = len(block.point)
        v_P = v_NP[number, :size]
        expected = block.hessian() @ v_P, block.gauss_newton() @ v_P, block.gradient()
        for name, mine, theirs in zip(("Hessian", "Gauss-Newton", "gradient"), found, expected, strict=True):
            assert close(mine[number, :size], theirs), (method, name)
            assert not mine[number, size:].any(), (method, name, "padding")


def test_eigenvalues_and_the_sign_step_are_those_of_the_dense_hessian():
    setting = Setting(["lora", "pissa"])
    sites = (SITES["llama"], "model.layers.1.mlp.down_proj")
    blocks = setting.blocks(*sites)
    start = torch.randn(blocks.num_blocks, blocks.length, dtype=torch.float64)
    facts = measure(blocks, start, blocks.gradients(), None, Effort(tolerance=1e-9))
    places = [(site, number) for site in sites for number in range(2)]
    for (site, number), fact in zip(places, facts, strict=True):
        method = setting.trials[number].config.method
        block = block_of(setting.plain, setting.table, setting.state.trial_state(number), method, site)
        H, g = block.hessian(), block.gradient()
        values = torch.linalg.eigvalsh(H)
        assert fact.hessian.largest.value == pytest.approx(values[-1].item(), rel=1e-5)
        assert fact.hessian.smallest.value == pytest.approx(values[0].item(), rel=1e-5)
        top = torch.linalg.eigvalsh(block.gauss_newton())[-1].item()
        assert fact.gauss_newton.largest.value == pytest.approx(top, rel=1e-5)
        # LoRA's A has a zero gradient at the start, of which rounding must not make a sign
        sign = torch.where(g.abs() > 1e-12, g.sign(), 0)
        assert fact.gradient_l1 == pytest.approx(g.abs().sum().item(), rel=1e-6)
        assert fact.sign_curvature == pytest.approx((sign @ H @ sign).item(), rel=1e-4, abs=1e-6)


def test_the_weights_gradient_makes_most_of_loras_spectrum():
    """At B = 0 the block is [[0, C], [C^T, H_BB]]: with C = 0 there would be no negative eigenvalue to speak of."""
    setting = Setting(["lora"])
    block = block_of(setting.plain, setting.table, setting.state.trial_state(0), "lora", SITES["llama"])
    num_A = 2 * 16
    assert block.hessian()[:num_A, :num_A].abs().max() < 1e-12
    blocks = setting.blocks(SITES["llama"])
    matrix = matrix_of(blocks, blocks.hessian, 0)
    assert matrix[:num_A, :num_A].abs().max() < 1e-12
    assert close(matrix, block.hessian()) and close(matrix, matrix.T)
    weight_OI = blocks.gradients().weights[SITES["llama"]]
    cross = torch.linalg.matrix_norm(matrix[:num_A, num_A:], 2).item()
    assert torch.linalg.matrix_norm(weight_OI, 2).item() <= cross * (1 + 1e-9)


def test_chunks_and_graphs_that_are_built_again_change_nothing():
    setting = Setting(["lora", "dora"])
    v_NP = torch.randn(2, setting.blocks(SITES["llama"]).length, dtype=torch.float64)
    kept, bare = setting.blocks(SITES["llama"]), setting.blocks(SITES["llama"], kept=0)
    assert len(bare._pieces) == NUM_ROWS and not bare._kept
    for name in ("hessian", "gauss_newton"):
        one, other = (getattr(blocks, name)(v_NP * kept.own_NP, range(2)) for blocks in (kept, bare))
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-9)
    assert bare.gradients().mean_NP == pytest.approx(kept.gradients().mean_NP, rel=1e-6, abs=1e-9)


def norm_in_its_own_precision(norm, hidden):
    """RMSNorm as it is written down. That of transformers rounds to float32, which makes 1e-7 of a last bit's 1e-16."""
    variance = hidden.square().mean(-1, keepdim=True)
    return norm.weight * hidden * torch.rsqrt(variance + norm.variance_epsilon)


def test_a_block_of_the_joint_hessian_is_the_block(monkeypatch):
    """The joint product is plain double backward through the packed model, adapters' kernel included."""
    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", norm_in_its_own_precision)
    setting = Setting(["lora", "pissa", "dora", "full"])
    site = "model.layers.1.self_attn.o_proj"
    joint = Joint(setting.model, setting.state, setting.rows, KEPT)
    bare = Joint(setting.model, setting.state, setting.rows, 0)  # a trial and a row at a time
    blocks = setting.blocks(site)
    v_NP = torch.randn(blocks.num_blocks, blocks.length, dtype=torch.float64) * blocks.own_NP
    wide_NP = torch.zeros(joint.num_blocks, joint.length, dtype=torch.float64)
    everyone = range(blocks.num_blocks)
    for mine, theirs in _places(setting.state, site):
        wide_NP[theirs] = v_NP[mine]
    for name in ("hessian", "gauss_newton"):
        narrow, wide = (getattr(one, name)(v, everyone) for one, v in ((blocks, v_NP), (joint, wide_NP)))
        for mine, theirs in _places(setting.state, site):
            assert torch.allclose(narrow[mine], wide[theirs], rtol=1e-6, atol=1e-9)
        assert torch.allclose(wide, getattr(bare, name)(wide_NP, everyone), rtol=1e-9, atol=1e-12)
    few = joint.hessian(wide_NP[[2]], [2])
    assert torch.allclose(few[0], joint.hessian(wide_NP, everyone)[2], rtol=1e-6, atol=1e-9)
    narrow, wide = blocks.gradients(), joint.gradients()
    for mine, theirs in _places(setting.state, site):
        assert torch.allclose(narrow.mean_NP[mine], wide.mean_NP[theirs], rtol=1e-6, atol=1e-12)
        assert torch.allclose(narrow.variance_NP[mine], wide.variance_NP[theirs], rtol=1e-6, atol=1e-12)


def _places(state, site):
    """Where the numbers of a site are, in a block's vector and in the joint one."""
    for group in state.groups:
        first = 0
        for name, leaf in group.leaves[site].items():
            offset, size = group.layout[site, name][0], leaf[0].numel()
            rows = slice(group.start, group.stop)
            yield (rows, slice(first, first + size)), (rows, slice(offset, offset + size))
            first += size


def test_on_the_way_a_trials_own_point_is_measured(tmp_path):
    """After 3 steps: the other sites' adapters act, this one's numbers are where training has brought them."""
    setting = Setting(["pissa"])
    train = RowTable(tiny.rows(), 0, setting.plain.device)
    runtime = Runtime("cpu", 1, 1e9, str(tmp_path))
    configs = [tiny.config(method="pissa", learning_rate=3e-2)]
    (point,) = trained(setting.model, configs, (train, train), [3], runtime, [])
    site = SITES["llama"]
    blocks = Blocks(setting.model, point.state, [Member(site, point.state.groups[0])], setting.rows, KEPT)
    state = point.state.trial_state(0)
    merged = tiny.base(tiny.llama())
    for other, module in merged.sites.items():
        if other != site:
            scaled = state[other]
            A, B = scaled["A0"] + scaled["dA"], scaled["B0"] + scaled["dB"]
            module.weight.data += B @ A - scaled["B0"] @ scaled["A0"]
    block = block_of(merged, setting.table, state, "pissa", site)
    v_NP = torch.randn(1, blocks.length, dtype=torch.float64)
    assert close(blocks.hessian(v_NP, [0])[0], block.hessian() @ v_NP[0])
    assert close(blocks.gradients().mean_NP[0], block.gradient())
    P_NP = point.preconditioner([site], blocks.length)
    (group,) = point.state.groups
    offset, shape = group.layout[site, "dA"]
    second = group.moment2_NP[0, offset : offset + shape[0] * shape[1]] / (1 - 0.999**3)
    assert torch.allclose(P_NP[0, : len(second)], (1 - 0.9**3) * (second.sqrt() + 1e-8))
    start = torch.randn(1, blocks.length, dtype=torch.float64)
    (fact,) = measure(blocks, start, blocks.gradients(), P_NP, Effort(tolerance=1e-9))
    root = P_NP[0].rsqrt()
    top = torch.linalg.eigvalsh(root[:, None] * block.hessian() * root)[-1].item()
    assert fact.preconditioned.largest.value == pytest.approx(top, rel=1e-4)


def test_padding_to_another_trials_rank_stays_out():
    """Ranks 2 and 3 share a group; in the padding of the first, H has the cross term of the weight's gradient."""
    setting = Setting(["pissa"])
    trials = grouped([tiny.trial(method="pissa", rank=rank) for rank in (2, 3)])
    setting.state = initial(setting.model.base, trials, setting.table)
    blocks = setting.blocks(SITES["llama"])
    start = torch.randn(2, blocks.length, dtype=torch.float64)
    facts = measure(blocks, start, blocks.gradients(), None, Effort(tolerance=1e-9))
    for number, fact in enumerate(facts):
        state = setting.state.trial_state(number)
        values = torch.linalg.eigvalsh(block_of(setting.plain, setting.table, state, "pissa", SITES["llama"]).hessian())
        assert fact.hessian.largest.value == pytest.approx(values[-1].item(), rel=1e-5)
        assert fact.hessian.smallest.value == pytest.approx(values[0].item(), rel=1e-5)
    assert [fact.num_numbers for fact in facts] == [64, 96]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # of its dependencies
@pytest.mark.skipif(importlib.util.find_spec("curvlinops") is None, reason="curvlinops is not installed")
def test_curvlinops_finds_the_same_products():
    """An independent library, on the published form: its Hessian and GGN of the site's parameters, times vectors."""
    from curvlinops import GGNLinearOperator, HessianLinearOperator
    from torch import nn

    setting = Setting(["pissa"], "gpt2")  # it takes forward derivatives, which SiLU's gradient lacks
    site = SITES["gpt2"]
    block = block_of(setting.plain, setting.table, setting.state.trial_state(0), "pissa", site)
    numbers = list(block.model.get_submodule(site).parameters())

    class Logits(nn.Module):
        """The logits at the target positions of one row."""

        def __init__(self):
            super().__init__()
            self.inner, self.first = block.model, 0

        def forward(self, ids):
            return self.inner(input_ids=ids, use_cache=False).logits[0, self.first : -1]

    model = Logits()
    num_targets = sum(len(ids) - max(prompt, 1) for ids, prompt in block.rows)
    blocks = setting.blocks(site)
    v_NP = torch.randn(1, blocks.length, dtype=torch.float64)
    for kind, product in ((HessianLinearOperator, blocks.hessian), (GGNLinearOperator, blocks.gauss_newton)):
        total = 0.0
        for ids, prompt in block.rows:  # one row at a time: its loss is a mean over its own tokens
            model.first = max(prompt, 1) - 1
            targets = torch.tensor(ids[model.first + 1 :])
            given = (model, nn.CrossEntropyLoss(), numbers, [(torch.tensor([ids]), targets)])
            with sdpa_kernel(SDPBackend.MATH):
                operator = kind(*given, num_data=1, check_deterministic=False)
                total = total + (operator @ v_NP[0]) * len(targets) / num_targets
        assert close(product(v_NP, [0])[0], total), kind.__name__


def test_the_kernels_second_derivatives_are_whole():
    """Against finite differences of its gradient; what its forward pass keeps would be a constant there."""
    shapes = [(2, 5, 3), (2, 2, 3), (2, 4, 2)]  # x, down, up
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    scaling = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda *given: Skinny.apply(*given, scaling), inputs)


# What is asked and refused --------------------------------------------------------------------------------------------


def request(*configs, **changes):
    return Request(**{"configs": tuple(configs), "num_rows": 2, **changes})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            request(tiny.config(dropout=0.1)),
            "train.dropout: got 0.1, expected 0; set dropout = 0: the Hessian of a loss that is drawn at random "
            "changes from product to product",
        ),
        (
            request(tiny.config(method="full_all")),
            "method: got 'full_all', expected a method whose tensors belong to sites; leave it out; 'full' has the "
            "adapted layers' weights",
        ),
        (
            request(tiny.config(), num_rows=25),
            "--samples: got 25, expected 1 to 24, the training rows of the study; lower it, or raise num_train",
        ),
        (
            request(tiny.config(), steps=(0, 7)),
            "--steps: got 7, expected at most 6, the steps of the shortest trial; lower it",
        ),
        (
            request(tiny.config(), steps=(-1,)),
            "--steps: got -1, expected 0 or more; write --steps 0 --steps 10, for instance",
        ),
        (
            request(tiny.config(), tiny.config(base="other")),
            "study: got 'several problems', expected one base model and one task with its data; make it one study for "
            "each",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(asked, message):
    with pytest.raises(InputError) as caught:
        refuse(asked)
    assert caught.value.problems == (message,)


def test_blocks_are_named_by_the_end_of_a_sites_name():
    sites = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj")
    assert sites_of(("q_proj",), sites) == sites[:2]
    assert sites_of(("layers.1.mlp.up_proj",), sites) == sites[2:]
    assert sites_of(("joint",), sites) == ()
    assert sites_of((), sites) == sites
    with pytest.raises(InputError, match="got 'q_prj', which is no adapted module; did you mean 'q_proj'"):
        sites_of(("q_prj",), sites)
    assert layer_of(sites[2]) == "model.layers.1"


def test_sites_are_measured_together_as_long_as_a_pass_has_room(monkeypatch):
    """Three trials fill a pass that has room for six times the rows with two sites; layers are never mixed."""
    table = RowTable(tiny.rows(4), 0, torch.device("cpu"))
    rows = Rows(table, np.arange(4))
    num_tokens = int(table.lengths.sum())
    sites = ["h.0.q", "h.0.k", "h.0.v", "h.1.q", "h.1.k"]
    monkeypatch.setattr(survey, "TOKENS_PER_PASS", 6 * num_tokens)
    assert passes(sites, 3, rows) == [["h.0.q", "h.0.k"], ["h.0.v"], ["h.1.q", "h.1.k"]]
    assert passes(sites, 1, rows) == [["h.0.q", "h.0.k", "h.0.v"], ["h.1.q", "h.1.k"]]
    assert passes(sites, 9, rows) == [[site] for site in sites]  # a site's own trials stay together


def test_products_of_some_blocks_are_those_of_all():
    """Recurrences that have ended leave: the others' products do not change."""
    setting = Setting(["lora", "pissa", "dora"])
    blocks = setting.blocks(SITES["llama"], "model.layers.0.mlp.up_proj")
    v_NP = torch.randn(6, blocks.length, dtype=torch.float64) * blocks.own_NP
    everyone = blocks.hessian(v_NP, range(6))
    for few in ([4], [0, 5], [1, 2, 3]):
        assert torch.allclose(blocks.hessian(v_NP[few], few), everyone[few], rtol=1e-6, atol=1e-9)


def test_data_that_change_when_they_are_read_again_are_refused():
    model = tiny.packed()
    table, other = (RowTable(tiny.rows(4, seed), 0, model.base.device) for seed in (0, 1))
    rows = Rows(table, np.arange(4))
    check_repeatable(model, rows, rows)
    with pytest.raises(InputError, match="task: got other rows when the data were read again"):
        check_repeatable(model, rows, Rows(other, np.arange(4)))


def test_a_model_whose_loss_moves_is_refused():
    model = tiny.packed()
    rows = Rows(RowTable(tiny.rows(4), 0, model.base.device), np.arange(4))
    noisy = model.base.decoder.layers[0].register_forward_hook(
        lambda module, inputs, output: output + 1e-3 * torch.randn_like(output)
    )
    with pytest.raises(
        InputError, match=r"model.base: got a loss of .* on the same rows, expected the same to the bit"
    ):
        check_repeatable(model, rows, rows)
    noisy.remove()


def test_the_lowest_rate_of_each_cell_is_measured_and_the_start_once():
    rates, batches = (1e-2, 1e-3), (4, 8)
    configs = [
        tiny.config(method=method, learning_rate=rate, batch_size=batch, init_seed=seed, order_seed=seed)
        for method in ("lora", "pissa")
        for batch in batches
        for rate in rates
        for seed in (0, 1)
    ]
    found = chosen(configs, (0, 5))
    assert [config.method for config in found[0]] == ["lora", "pissa"]
    assert [(config.method, config.batch_size) for config in found[5]] == [
        ("lora", 4), ("lora", 8), ("pissa", 4), ("pissa", 8),
    ]  # fmt: skip
    assert {(config.learning_rate, config.init_seed) for config in found[5]} == {(1e-3, 0)}


def test_graphs_are_counted_without_the_weights_that_the_model_holds_anyway():
    """Else a large base's weights, counted for every chunk of rows, left room for one row at a time."""
    layer = torch.nn.Linear(64, 64).requires_grad_(False)
    saved = Saved(layer)
    with saved.counting():
        layer(torch.ones(2, 64, requires_grad=True)).relu()
    assert saved.num_bytes == 2 * 64 * 4  # what relu keeps
