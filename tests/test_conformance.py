"""What every method must meet, each file of methods/ by itself and DoRA with the starts of others."""

import copy
import math

import pytest
import torch

import tiny
from reference.samples import look
from reference.train import train
from welltuned import data, plugins, rng
from welltuned.methods._method import Frozen
from welltuned.packing import optimizer, samples, state
from welltuned.packing.batch import RowTable
from welltuned.records import Checkpoint, Point
from welltuned.train import loop
from welltuned.train.cursor import batches

METHODS = [*plugins.names("methods"), "dora+pissa", "dora+lora_ga"]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
SAMPLES = 32  # rows that LoRA-GA and EVA look at

MIXED = [
    {"batch_size": 4, "rank": 2, "learning_rate": 1e-2, "max_steps": 20, "weight_decay": 0.1, "loraplus_lr_ratio": 4.0},
    {"batch_size": 7, "rank": 3, "learning_rate": 3e-3, "max_steps": 20, "lr_scheduler_type": "linear", "scaling": 0.5},
    {"batch_size": 5, "rank": 5, "learning_rate": 2e-2, "num_train_epochs": 4, "warmup_ratio": 0.1, "order_seed": 3}
    | {"rank_pattern": ("0.self_attn.q_proj=4", "q_proj=2", "c_attn=2"), "alpha_pattern": ("up_proj=10", "c_fc=10")}
    | {"alpha": "5"},
]
# What does not depend on the method: optimizers, schedules, seeds, subsets.
SETTINGS = [
    {"batch_size": 24, "rank": 1, "learning_rate": 1e-3, "num_train_epochs": 20, "init_seed": 5, "scaling": 2.0},
    {"batch_size": 6, "rank": 4, "learning_rate": 5e-3, "max_steps": 20, "lr_scheduler_type": "cosine_with_floor"},
    {"batch_size": 3, "rank": 2, "learning_rate": 1e-3, "num_train": 10, "num_train_epochs": 5, "subset_seed": 2}
    | {"subset": "seeded", "lr_scheduler_type": "constant", "max_grad_norm": None, "beta2_batch_size": 4},
    {"batch_size": 4, "rank": 2, "learning_rate": 5e-3, "max_steps": 20, "optimizer": "sgd", "weight_decay": 0.05},
    {"batch_size": 4, "rank": 2, "learning_rate": 1e-3, "max_steps": 20, "optimizer": "sign_sgd", "weight_decay": 0.05}
    | {"loraplus_lr_ratio": 4.0},
]

# A method that trains the whole model is never packed.
PACKED = [name for name in METHODS if not plugins.load("methods", name).parametrisation().whole]

FUSED = ["lora", "pissa", "full", "full_all", "dora", "vera", "gralora", "lora_ga", "boft", "randlora"]

every_method = pytest.mark.parametrize("method", METHODS)
every_packed_method = pytest.mark.parametrize("method", PACKED)


def fitting(method, rank):
    """The rank, or the next one that the method can have on the tiny models' smallest sites."""
    misfit = plugins.load("methods", method).misfit
    return next(one for one in (rank, rank + 1, rank - 1) if not misfit(8, 16, one))


def trial(method, **changes):
    """A trial of the method at a rank that it can have, settings that it ignores left out."""
    plugin = plugins.load("methods", method)
    if not plugin.uses_rank:
        changes = {name: value for name, value in changes.items() if not name.endswith("_pattern")}
    if not plugin.uses_alpha:
        changes = {name: value for name, value in changes.items() if name not in ("alpha", "alpha_pattern", "scaling")}
    if not plugin.parametrisation().fast:
        changes.pop("loraplus_lr_ratio", None)
    return tiny.trial(method=method, rank=fitting(method, changes.pop("rank", 2)), **changes)


def table(model):
    return RowTable(tiny.rows(), 0, model.base.device)


def initial(model, trials):
    return state.initial(model.base, trials, table(model))


def reference_losses(model, config):
    """Train the configuration alone with the plain reference."""
    rows = tiny.rows()
    sites = list(tiny.base(copy.deepcopy(model)).sites)
    plain_rows = [(ids.tolist(), int(length)) for ids, length in zip(rows.token_ids, rows.prompt_lengths, strict=True)]
    is_shared = plugins.load("methods", config.method).shared_stream
    path = {site: () if is_shared else (site,) for site in sites}
    draws = {
        site: torch.Generator().manual_seed(rng.seed_of(config.study_seed, "init", config.init_seed, *path[site]))
        for site in sites
    }
    first = data.subset(config, len(plain_rows))[:SAMPLES]
    facts = look(model, sites, [plain_rows[row] for row in first])
    return train(model, sites, config, batches(config, len(plain_rows)), plain_rows, draws, facts)


# Exact ----------------------------------------------------------------------------------------------------------------


def check_against_reference(model, trials, folder):
    packs = [trials] if trials[0].config.method in PACKED else [[one] for one in trials]
    events = [event for pack in packs for event in tiny.run_pack(tiny.packed(copy.deepcopy(model)), pack, 3, folder)]
    ends = tiny.outcomes(events)
    for one in trials:
        expected = reference_losses(model, one.config)
        assert len(expected) >= 20
        assert ends[one.id].train_losses == pytest.approx(expected, rel=1e-9, abs=0)


@every_method
def test_packed_equals_reference(method, tmp_path):
    """Mixed batch sizes that m does not divide, ranks, rates, schedules, decay, LoRA+, patterns: <= 1e-9."""
    check_against_reference(tiny.llama(), [trial(method, **changes) for changes in MIXED], tmp_path)


@pytest.mark.parametrize("method", FUSED)
def test_packed_equals_reference_on_fused_layers_with_biases(method, tmp_path):
    """GPT-2's Conv1D, whose weight lies the other way round: <= 1e-9."""
    check_against_reference(tiny.gpt2(), [trial(method, **changes) for changes in MIXED[:2]], tmp_path)


@pytest.mark.parametrize("method", ["lora", "pissa", "full_all"])
def test_packed_equals_reference_under_every_optimizer(method, tmp_path):
    """Adam, SGD and sign-SGD, schedules, seeds, subsets and epochs, plain, anchored and whole: <= 1e-9."""
    check_against_reference(tiny.llama(), [trial(method, **changes) for changes in SETTINGS], tmp_path)


@pytest.mark.parametrize("dtype", DTYPES)
@every_method
def test_step_0_is_exactly_the_base(method, dtype, tmp_path):
    """With a learning rate too small to move a weight's last bit the curve stays at the base's, in any precision."""
    model = tiny.packed(tiny.llama(dtype))
    one = trial(method, learning_rate=1e-30, max_steps=2)
    points = [event for event in tiny.run_pack(model, [one], 4, tmp_path) if isinstance(event, Point)]
    assert points[0].step == 0
    assert points[-1].validation_nll == points[0].validation_nll


@every_method
def test_base_weights_are_untouched(method, tmp_path):
    """A run changes no bit of the base."""
    model = tiny.llama(torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    packed = tiny.packed(model)
    ends = tiny.outcomes(tiny.run_pack(packed, [trial(method, learning_rate=0.02)], 4, tmp_path))
    packed.close()
    assert next(iter(ends.values())).num_steps == 6
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("num_out", [12, 16])
@every_method
def test_what_is_merged_is_what_is_applied(method, num_out):
    """apply = x (its delta), for arbitrary trained tensors."""
    generator = torch.Generator().manual_seed(0)
    plugin = plugins.load("methods", method)
    form = plugin.parametrisation()

    def numbers(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    W, x = numbers(num_out, 16), numbers(2, 5, 16)
    anchors = {name: numbers(*form.shape(name, num_out, 16, 4)) for name in form.anchors}
    if "q" in anchors:
        anchors["q"] = W.square().sum(1)
    trials = [{name: numbers(*form.shape(name, num_out, 16, 4)) for name in form.trained} | anchors for _ in range(2)]
    stacked = {name: torch.stack([one[name] for one in trials]) for name in trials[0]}
    scalings = [0.5, 2.0]
    frozen = Frozen(num_out, lambda: W, lambda x: x @ W.T)
    change = form.apply(x, stacked, torch.tensor(scalings, dtype=torch.float64), frozen)
    for place, one in enumerate(trials):
        expected = x[place] @ form.delta(one, scalings[place], W).T
        assert (change[place] - expected).abs().max() < 1e-11 * expected.abs().max()


# Counting and padding -------------------------------------------------------------------------------------------------


@every_packed_method
def test_the_formula_counts_the_trained_numbers(method):
    """What `plan` prints is what is trained, at every site and in all."""
    plugin = plugins.load("methods", method)
    form = plugin.parametrisation()
    rank = fitting(method, 3)
    for num_out, num_in in ((16, 16), (8, 16), (24, 16), (16, 24)):
        shapes = [form.shape(name, num_out, num_in, rank) for name in form.trained]
        assert sum(math.prod(shape) for shape in shapes) == plugin.num_trainable(num_out, num_in, rank)
    model = tiny.packed()
    one = trial(method, rank=3)
    (group,) = initial(model, [one]).groups
    assert group.flat_NP.shape[1] == state.num_trainable(model.base, one)


@every_packed_method
def test_rank_padding_is_inert(method):
    """Gradient, moments and decay of padded ranks stay exactly zero, and all others get a gradient within 2 steps."""
    model = tiny.packed()
    if not plugins.load("methods", method).parametrisation().padded:
        ranks = (4, 4)
    else:
        ranks = (4, 6) if method == "gralora" else (2, 3)
    trials = [tiny.trial(method=method, rank=rank, weight_decay=0.1) for rank in ranks]
    pack = initial(model, trials)
    (group,) = pack.groups
    block = table(model).block([torch.arange(24).numpy()] * 2, 24)
    for count in range(1, 4):
        with model.bound(pack):
            features = model.base.features(block.ids_RT)
        pack.accumulate((features * torch.linspace(-1, 1, 24 * 2)[:, None, None]).square().sum())
        if count < 3:
            configs = [one.config for one in trials]
            optimizer.step(model.base, group, [0, 1], configs, [0.1, 0.1], [count, count])
    own = torch.zeros_like(group.flat_NP, dtype=torch.bool)
    for (site, name), (offset, shape) in group.layout.items():
        for place, rank in enumerate(ranks):
            mask = torch.zeros(shape, dtype=torch.bool)
            kept = group.parametrisation.shape(name, *model.base.shape(site), rank)
            mask[tuple(slice(size) for size in kept)] = True
            own[place, offset : offset + mask.numel()] = mask.flatten()
            assert group.moment1_NP[place, offset : offset + mask.numel()].any(), f"{site} {name} had no gradient"
    assert own[0].all() == (ranks[0] == ranks[1] or not plugins.load("methods", method).uses_rank) and own[1].all()
    for buffer in (group.flat_NP, group.grad_NP, group.moment1_NP, group.moment2_NP):
        assert not buffer[~own].any()


@pytest.mark.parametrize("method", ["boft", "randlora"])
def test_ranks_that_cannot_be_padded_share_no_group(method):
    """Where one rank is not the other with zeros, only trials of one rank at every site are stacked."""
    model = tiny.packed()
    settings = [{"rank": 4}, {"rank": 2}, {"rank": 4, "rank_pattern": ("q_proj=2",)}, {"rank": 4}]
    ones = [tiny.trial(method=method, order_seed=seed, **changes) for seed, changes in enumerate(settings)]
    order = state.grouped(ones)
    assert [one.config.order_seed for one in order] == [0, 3, 1, 2]
    pack = initial(model, order)
    assert [group.stop - group.start for group in pack.groups] == [2, 1, 1]
    for place, one in enumerate(order):
        alone = initial(model, [one]).trial_state(0)
        for site, tensors in pack.trial_state(place).items():
            assert all(torch.equal(tensor, alone[site][name]) for name, tensor in tensors.items())


# Random streams and checkpoints ---------------------------------------------------------------------------------------


@every_method
def test_a_start_depends_on_its_own_stream_only(method):
    """Not on torch's generator, the order seed or neighbours; on the init seed unless said to be deterministic."""
    model = tiny.packed()

    def start(seed, *neighbours, **changes):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        pack = initial(model, [trial(method, **changes), *neighbours])
        assert torch.equal(torch.get_rng_state(), before)
        return {
            f"{site} {name}": tensor
            for site, tensors in pack.trial_state(0).items()
            for name, tensor in tensors.items()
        }

    first = start(0)
    neighbours = [trial(method, rank=4, init_seed=7)] if method in PACKED else []
    for again in (start(1), start(0, *neighbours), start(0, order_seed=9)):
        assert all(torch.equal(again[name], first[name]) for name in first)
    other = start(0, init_seed=1)
    same = all(torch.equal(other[name], first[name]) for name in first)
    assert same == plugins.load("methods", method).deterministic


@pytest.mark.parametrize("method", ["lora_ga", "eva"])
def test_looking_at_a_few_sites_at_a_time_changes_no_start(method, monkeypatch):
    """And then no more is held at once than what the largest site takes."""
    model = tiny.packed()
    ones = [trial(method), trial(method, subset="seeded", num_train=10, subset_seed=1)]  # two looks
    expected = initial(model, ones)
    held = []
    look = samples.contexts
    monkeypatch.setattr(samples, "SEEN_NUMBERS", 1)
    monkeypatch.setattr(samples, "contexts", lambda *given: held.append(given[3]) or look(*given))
    found = initial(model, ones)
    assert held == [[site] for site in model.base.sites for _ in ones]
    for place in range(2):
        for site, tensors in expected.trial_state(place).items():
            for name, tensor in tensors.items():
                torch.testing.assert_close(found.trial_state(place)[site][name], tensor, rtol=0, atol=0)


@every_method
def test_a_checkpoint_continues_to_the_bit(method, tmp_path, monkeypatch):
    """From every checkpoint on: anchors are made again, and what is drawn or seen for them is the same."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", float("inf"))  # one after every micro-step
    model = tiny.packed()
    ranks = (2, 3) if method in PACKED else (2,)
    trials = [trial(method, rank=rank, batch_size=8, dropout=0.1) for rank in ranks]
    whole = tiny.run_pack(model, trials, 4, tmp_path, checkpoint_seconds=0)
    ends = tiny.outcomes(whole)
    checkpoints = [event for event in whole if isinstance(event, Checkpoint)]
    assert len(checkpoints) == 5
    for checkpoint in (checkpoints[0], checkpoints[3]):
        rest = tiny.outcomes(tiny.run_pack(model, trials, 4, tmp_path, resume=checkpoint.blob))
        for one in trials:
            assert rest[one.id].train_losses == ends[one.id].train_losses
            assert rest[one.id].validation_nll == ends[one.id].validation_nll
            assert rest[one.id].adapter == ends[one.id].adapter
