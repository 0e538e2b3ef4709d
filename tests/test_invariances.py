"""What must not change a training run, or must be possible in one, by the methods' mathematics."""

import pytest
import torch

import tiny
from welltuned import plugins
from welltuned.methods._method import Context
from welltuned.packing import optimizer, state
from welltuned.packing.batch import RowTable

NUM_STEPS = 8


def features_of(model, pack):
    """The features of the first rows, for every trial of the pack."""
    rows = torch.arange(6).numpy()
    block = RowTable(tiny.rows(), 0, model.base.device).block([rows] * pack.num_trials, 6)
    with model.bound(pack):
        return model.base.features(block.ids_RT).unflatten(0, (pack.num_trials, 6))


def accumulate(model, pack):
    """Add the gradient of a loss that does not look at signs or scales alike; return the features."""
    features = features_of(model, pack)
    weights = torch.linspace(-1, 2, features.shape[-1], dtype=features.dtype)
    pack.accumulate((features.sin() * weights).sum())
    return features.detach()


@pytest.mark.parametrize(("p", "q"), [(3.0, 1.0), (1.0, 0.2), (0.5, 7.0)])
@pytest.mark.parametrize("method", ["lora", "init_b"])
def test_scale_may_move_between_alpha_the_start_and_the_rates(method, p, q):
    """s / (p q), p A0, q B0, rate p of A and q of B: one Adam run, without epsilon and clipping."""
    same = {"method": method, "rank": 3, "epsilon": 1e-300}
    trials = [
        tiny.trial(**same, scaling=2.0, learning_rate=1e-2),
        tiny.trial(**same, scaling=2.0 / (p * q), learning_rate=p * 1e-2, loraplus_lr_ratio=q / p),
    ]
    model = tiny.packed()
    pack = state.initial(model.base, trials)
    (group,) = pack.groups
    with torch.no_grad():
        for tensors in group.leaves.values():
            tensors["A"][1] *= p
            tensors["B"][1] *= q
    start = features_of(model, pack).detach()
    configs = [one.config.replace(max_grad_norm=None) for one in trials]
    for count in range(1, NUM_STEPS + 1):
        features = accumulate(model, pack)
        assert (features[0] - features[1]).abs().max() < 1e-9
        optimizer.step(model.base, group, [0, 1], configs, [config.learning_rate for config in configs], [count] * 2)
    assert (features[0] - start[0]).abs().max() > 0.1


def test_dora_is_lora_at_step_0():
    """The same function, and the same gradients of A and B, while m / c is 1."""
    model = tiny.packed()
    gradients, outputs = [], []
    for method in ("lora", "dora"):
        pack = state.initial(model.base, [tiny.trial(method=method, rank=3, scaling=2.0)])
        outputs.append(accumulate(model, pack))
        (group,) = pack.groups
        views = zip(group.layout, group.grads, strict=True)
        gradients.append({key: view.clone() for key, view in views if key[1] in ("A", "B")})
    assert torch.equal(*outputs)
    assert gradients[0].keys() == gradients[1].keys()
    for key, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], expected, rtol=1e-12, atol=1e-12)
    assert any(gradient.any() for gradient in gradients[0].values())


@pytest.mark.parametrize("method", ["pissa", "olora"])
@pytest.mark.parametrize(("num_out", "num_in"), [(6, 9), (9, 6), (7, 7)])
def test_at_full_rank_every_change_of_the_weight_can_be_reached(method, num_out, num_in):
    """Full fine-tuning's function class: for any dW there are dA and dB whose delta it is."""
    generator = torch.Generator().manual_seed(0)
    W, wanted = (torch.randn(num_out, num_in, generator=generator, dtype=torch.float64) for _ in range(2))
    plugin = plugins.load("methods", method)
    rank, scaling = min(num_out, num_in), 0.5
    start = plugin.init(W, plugin.analyse(W, Context(num_out, num_in)), rank, scaling, generator)
    if num_in <= num_out:
        start["dB"] = wanted @ torch.linalg.inv(start["A0"]) / scaling
    else:
        start["dA"] = torch.linalg.inv(start["B0"]) @ wanted / scaling
    torch.testing.assert_close(plugin.parametrisation().delta(start, scaling, W), wanted, rtol=1e-9, atol=1e-9)
