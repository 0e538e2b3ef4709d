"""A base held in 8 bits: its own values, read-only, half of the memory; everything else as on any other base."""

import copy

import pytest
import torch
import transformers

import tiny
from small_study import TEXT, edited, forge_hashes, survey_of
from test_conformance import MIXED, reference_losses, trial
from welltuned import data, export
from welltuned import plan as plans
from welltuned.costs import memory
from welltuned.errors import InputError
from welltuned.export import _card
from welltuned.models import base as bases
from welltuned.models import quantised, sites
from welltuned.packing import blocks, linear
from welltuned.records import Point
from welltuned.spec import Spec

# PEFT 0.21 reads a name that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
METHODS = ["lora", "pissa", "dora", "full", "lora_ga", "eva"]


def held(model):
    """The model in 8 bits, and an ordinary one whose weights are rounded in a loop to what these 8 bits say."""
    rounded, eight = copy.deepcopy(model), copy.deepcopy(model)
    for module in sites.linear_modules(rounded).values():
        for row in module.weight.data:
            wide = torch.promote_types(row.dtype, torch.float32)
            scale = row.abs().max().float() / 127
            steps = [round(float(value.float() / scale)) for value in row]
            row.copy_(torch.tensor(steps, dtype=wide) * scale.to(wide))
    quantised.hold(eight, sites.linear_modules(eight))
    return eight, rounded


# The layer ------------------------------------------------------------------------------------------------------------


def test_weights_are_the_nearest_of_255_steps_of_each_row():
    eight, rounded = held(tiny.llama())
    for name, module in sites.linear_modules(rounded).items():
        layer = eight.get_submodule(name)
        assert layer.stored.dtype == torch.int8 and layer.stored.abs().max() == 127
        assert torch.equal(layer.weight, module.weight)
        before_OI = tiny.llama().get_submodule(name).weight
        assert ((layer.weight - before_OI).abs() <= layer.scale.double()[:, None] * 0.5000001).all()


def test_a_row_of_zeros_stays_one():
    stored_OI, scale_O = quantised.quantise(torch.tensor([[0.0, 0.0], [1.0, -2.0]]))
    assert torch.equal(quantised.dequantised(stored_OI, scale_O, torch.float32)[0], torch.zeros(2))


def test_gradients_of_the_input_are_those_of_the_dequantised_layer():
    linear = torch.nn.Linear(5, 3, dtype=torch.float64)
    layer = quantised.QuantisedLinear(linear)
    x = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    plain = torch.nn.functional.linear(x, layer.weight, linear.bias)
    assert torch.equal(layer(x), plain)


def test_the_forward_pass_keeps_no_dense_weight():
    """What is kept for the backward pass is the 8-bit weight itself, which is there anyway."""
    layer = quantised.QuantisedLinear(torch.nn.Linear(64, 64))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(torch.randn(2, 64, requires_grad=True))
    assert {tensor.dtype for tensor in kept if tensor.ndim == 2} == {torch.int8}


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_packed_equals_the_reference_on_the_quantised_base(method, tmp_path):
    """Alone, by plain torch, on ordinary layers with the rounded values: <= 1e-9, in float64."""
    eight, rounded = held(tiny.llama())
    trials = [trial(method, **changes) for changes in MIXED[:2]]
    ends = tiny.outcomes(tiny.run_pack(tiny.packed(eight), trials, 3, tmp_path))
    for one in trials:
        assert ends[one.id].train_losses == pytest.approx(reference_losses(rounded, one.config), rel=1e-9, abs=0)


@pytest.mark.parametrize("method", METHODS)
def test_step_0_is_the_quantised_base_and_its_bits_stay(method, tmp_path):
    eight, rounded = held(tiny.llama(torch.bfloat16))
    before = {name: tensor.clone() for name, tensor in eight.state_dict().items()}
    model = tiny.packed(eight)
    one = trial(method, learning_rate=1e-30, max_steps=2)
    first, *_, last = (event for event in tiny.run_pack(model, [one], 4, tmp_path) if isinstance(event, Point))
    plain = tiny.run_pack(tiny.packed(rounded), [one], 4, tmp_path)
    assert first.validation_nll == last.validation_nll
    assert first.validation_nll == next(event for event in plain if isinstance(event, Point)).validation_nll
    model.close()
    after = eight.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(layer.dense is None for layer in model.base.sites.values())


@pytest.mark.skipif(not blocks.available(torch.device("cpu")), reason="no C++ compiler")
def test_a_compiled_pack_equals_an_uncompiled_one(tmp_path):
    eight, _ = held(tiny.llama())
    trials = [trial(method, max_steps=4) for method in ("lora", "dora")]
    runs = [
        tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(eight)), trials, 3, tmp_path, compiled=compiled))
        for compiled in (False, True)
    ]
    for one in trials:
        # float32 norms of the model, computed in another order
        assert runs[1][one.id].train_losses == pytest.approx(runs[0][one.id].train_losses, rel=1e-5)


def test_fused_layers_are_refused():
    model = tiny.gpt2()
    with pytest.raises(InputError, match=r'model.quantization: got \'?int8\'?, expected "none" for GPT2LMHeadModel'):
        quantised.hold(model, sites.linear_modules(model))


# The study ------------------------------------------------------------------------------------------------------------


def config_of(**changes):
    (config,) = {
        config.replace(learning_rate=1e-3)
        for config in plans.expand(
            Spec.model_validate(
                edited(model=changes, axes={"method": ["lora"], "batch_size": [4], "learning_rate": [1e-3]})
            )
        )
    }
    return config


def test_the_default_changes_no_id_and_int8_does():
    plain, eight = config_of(), config_of(quantization="int8")
    assert "quantization" not in plain.text() and '"quantization": "int8"' in eight.text()
    assert plain.data_key() != eight.data_key()  # no pack has both bases
    assert plans.survey_key(plain) != plans.survey_key(eight)


def test_an_unknown_quantization_is_refused():
    with pytest.raises(InputError, match=r"quantization: got .int4., expected"):
        Spec.parse(TEXT.replace('base = "abacus-small"', 'base = "abacus-small"\nquantization = "int4"'))


def test_a_method_that_trains_every_weight_is_refused():
    tree = edited(model={"quantization": "int8"}, axes={"method": ["lora", "full_all"]})
    with pytest.raises(InputError) as caught:
        plans.expand(Spec.model_validate(tree))
    assert caught.value.problems == (
        "model.quantization: got 'int8', expected \"none\" for method full_all, which trains the weights that would be "
        "held in 8 bits; remove it, or choose method full",
    )


@pytest.mark.parametrize(
    ("method", "is_made"), [("lora", False), ("pissa", False), ("full", False), ("boft", False), ("dora", True)]
)
def test_a_weight_is_dequantised_for_the_methods_that_ask_for_it_only(method, is_made, tmp_path, monkeypatch):
    """A product dequantises for itself, forward and backward; `linear.weight_of` is what a method asks beside that."""
    eight, _ = held(tiny.llama())
    model = tiny.packed(eight)
    asked = []
    monkeypatch.setattr(linear, "weight_of", lambda module: asked.append(module) or quantised.weight_of(module))
    list(tiny.run_pack(model, [trial(method, max_steps=1)], 4, tmp_path))
    assert bool(asked) == is_made


def test_a_product_with_the_weight_of_its_own_keeps_no_dense_weight_and_is_the_same():
    """BOFT multiplies with W once more, and DoRA where dropout changed the inputs."""
    layer = quantised.QuantisedLinear(torch.nn.Linear(64, 48, dtype=torch.float64))
    x = torch.randn(2, 5, 64, dtype=torch.float64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = quantised.product(layer, x)
    assert torch.equal(y, torch.nn.functional.linear(x, layer.weight))
    assert {tensor.dtype for tensor in kept if tensor.shape == (48, 64)} == {torch.int8}


def test_a_base_is_loaded_in_8_bits_and_made_dense_again():
    arguments = ("abacus-small", None, "bfloat16", ("q_proj",))
    base, plain = bases.load(*arguments, quantization="int8"), bases.load(*arguments)
    layers = [module for module in base.model.modules() if isinstance(module, quantised.QuantisedLinear)]
    assert len(layers) == len(sites.linear_modules(plain.model)) > len(base.sites)  # adapted or not
    ids_RT = torch.arange(2, 22).view(2, 10)
    with torch.no_grad():
        before = base.model(input_ids=ids_RT).logits
        assert not torch.equal(before, plain.model(input_ids=ids_RT).logits)
        values = {site: base.weight(site) for site in base.sites}
        base.make_dense()
        assert torch.equal(base.model(input_ids=ids_RT).logits, before)
    assert all(type(module) is torch.nn.Linear for module in base.sites.values())
    assert all(torch.equal(base.weight(site), value) for site, value in values.items())


def test_memory_counts_a_byte_for_each_weight(monkeypatch):
    forge_hashes(monkeypatch)
    plain, eight = config_of(dtype="bfloat16"), config_of(dtype="bfloat16", quantization="int8")
    survey = survey_of(plain)  # 150,000 parameters, 100,000 of them in the blocks, hidden size 64
    whole, held = (memory.estimate([config], survey, 1) for config in (plain, eight))
    assert whole.base_bytes == 2 * 150_000
    assert held.base_bytes == 100_000 + 4 * (100_000 // survey.hidden_size) + 2 * 50_000
    assert held.dequantised_bytes == round(memory.HOLES * 8 * 172 * 64) and whole.dequantised_bytes == 0


# What leaves ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    import welltuned

    spec = Spec(
        name="eight",
        model={"base": "abacus-small", "quantization": "int8"},
        task={"task": "abacus", "num_train": 32, "num_validation": 16, "num_test": 4, "max_length": 128},
        train={"rank": 4, "batch_size": 8, "learning_rate": 5e-3},
        search={"fresh_seeds": 1},
    )
    return welltuned.run(spec, folder=tmp_path_factory.mktemp("runs") / "eight")


def test_a_merged_model_has_the_quantised_base_s_weights(study, tmp_path):
    result = next(one for one in study.results() if one.adapter)
    done = export.export(study.folder, result.trial_id, tmp_path / "model", merged=True)
    assert done.agreement.share == 1.0 and done.agreement.largest < 1e-4
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert all(type(module) is torch.nn.Linear for module in sites.linear_modules(merged).values())


def test_a_peft_adapter_is_given_with_the_base_that_it_belongs_to(study, tmp_path):
    """The card's own lines round the base; with PEFT the logits are then those of training."""
    result = next(one for one in study.results() if one.adapter)
    export.export(study.folder, result.trial_id, tmp_path / "adapter")
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "rounded to 8 bits" in card and "`int8`" in card
    assert _card.ROUNDING in card
    loaded = export.load(study.folder, result.trial_id).eval()
    config = result.config
    base = bases.load(config.base, None, config.dtype, config.target_modules)
    exec(_card.ROUNDING, {"model": base.model})
    from peft import PeftModel

    own = PeftModel.from_pretrained(base.model, tmp_path / "adapter").eval()
    ids = data.load(config, base.tokenizer, ("validation",))["validation"].token_ids[0]
    ids_RT = torch.as_tensor(ids, dtype=torch.long)[None]
    with torch.no_grad():
        assert torch.equal(own(input_ids=ids_RT).logits, loaded(input_ids=ids_RT).logits)
