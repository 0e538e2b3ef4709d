"""Anchors that all sites share (VeRA's factors) are held once, in a pack and in a file, and are the same numbers."""

import itertools

import torch
from safetensors.torch import load_file

import tiny
from welltuned.evaluate.frozen import frozen
from welltuned.packing import adapter_file
from welltuned.packing.state import assemble, initial


def shared_numbers(state):
    """Every distinct storage among the groups' anchors, in numbers."""
    tensors = [tensors[name] for group in state.groups for tensors in map(group.tensors, group.leaves) for name in "AB"]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values()) // 8


def vera(**changes):
    return tiny.trial(method="vera", **({"rank": 3} | changes))


def test_trials_of_one_seed_share_one_copy_and_others_have_their_own():
    """The tiny Llama's largest sites have 24 outputs and 24 inputs; a copy is rank (24 + 24) numbers."""
    model = tiny.packed()
    alike = [vera(learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3)]
    assert shared_numbers(initial(model.base, alike)) == 3 * 48
    seeds = [vera(init_seed=seed) for seed in range(3)]
    assert shared_numbers(initial(model.base, seeds)) == 3 * 3 * 48
    mixed = initial(model.base, [vera(), vera(rank=2)])  # one group, padded
    assert shared_numbers(mixed) == 2 * 3 * 48
    by_module = initial(model.base, [vera(rank_pattern=("q_proj=2",))])
    assert shared_numbers(by_module) == 3 * 48 + 2 * (16 + 16)  # the sites of rank 2 draw theirs for themselves


def test_a_trial_s_factors_do_not_depend_on_who_shares_them():
    model = tiny.packed()
    ones = [vera(), vera(rank=2), vera(init_seed=4), vera(rank_pattern=("q_proj=2",))]
    alone = [initial(model.base, [one]).trial_state(0) for one in ones]
    for order in itertools.permutations(range(4), 3):
        state = initial(model.base, [ones[place] for place in order])
        for position, place in enumerate(order):
            for site, tensors in state.trial_state(position).items():
                assert all(torch.equal(tensor, alone[place][site][name]) for name, tensor in tensors.items())


def test_retired_trials_take_nothing_that_others_share():
    model = tiny.packed()
    state = initial(model.base, [vera(learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3)])
    rest = state.select([0, 2])
    assert shared_numbers(rest) == 3 * 48
    for site, tensors in rest.trial_state(1).items():
        assert all(torch.equal(tensor, state.trial_state(2)[site][name]) for name, tensor in tensors.items())


def test_what_is_graded_shares_them_too():
    """Else the factors of every site of every trial were a copy, 13 times the trials' own numbers on abacus-middle."""
    model = tiny.packed()
    state = initial(model.base, [vera(learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3)])
    graded = frozen(state, [0, 2], model.base.dtype)
    assert shared_numbers(graded) == 3 * 48
    (group,), (whole,) = graded.groups, state.groups
    for site in group.leaves:
        assert set(group.anchors[site]) | set(group.parts[site]) == set(whole.tensors(site))
        for name, tensor in group.tensors(site).items():
            assert torch.equal(tensor, whole.tensors(site)[name][[0, 2]])


def test_what_is_validated_takes_no_gradients_and_moments():
    model = tiny.packed()
    state = initial(model.base, [vera(learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3)])
    (group,) = state.select([0, 2], trains=False).groups
    assert torch.equal(group.flat_NP, state.groups[0].flat_NP[[0, 2]])
    for buffer in (group.grad_NP, group.moment1_NP, group.moment2_NP):
        assert buffer.untyped_storage().nbytes() == buffer.itemsize and not buffer.any()


def test_a_file_has_them_once(tmp_path):
    """Read back they are each site's part; b and d, r + O numbers a site, are what is left."""
    model = tiny.packed()
    trial = vera()
    states = initial(model.base, [trial]).trial_state(0)
    path = tmp_path / adapter_file.save(str(tmp_path), trial, states)
    stored = load_file(path)
    trained = sum(3 + model.base.shape(site)[0] for site in states)
    assert sum(tensor.numel() for tensor in stored.values()) == trained + 3 * 48
    again, found = adapter_file.load(path)
    assert again == trial
    for site, tensors in states.items():
        assert all(torch.equal(found[site][name], tensor) for name, tensor in tensors.items())
    state = assemble(model.base, [trial, vera(learning_rate=0.5)], [found, found])
    assert shared_numbers(state) == 3 * 48
