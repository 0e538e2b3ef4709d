"""Trials that go on from an adapter folder start with its function, and what does not fit is said before training."""

import copy
import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

import tiny
from small_study import edited, forge_hashes, plan_of
from welltuned import adapter_folder, cli, plugins, report
from welltuned.costs import flops
from welltuned.errors import InputError
from welltuned.packing import adapter_file
from welltuned.packing.state import initial
from welltuned.records import Config, Site, Trial
from welltuned.spec import Spec
from welltuned.store import blobs
from welltuned.study import Study
from welltuned.study.options import Options

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS = torch.arange(2, 14).view(2, 6)


def peft_folder(model, folder, **changes):
    """Let PEFT write an adapter whose B is not zero; return its logits."""
    settings = {"r": 3, "lora_alpha": 6, "target_modules": "all-linear", "init_lora_weights": False} | changes
    torch.manual_seed(1)
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**settings))
    adapted.save_pretrained(folder)
    with torch.no_grad():
        return adapted.eval()(input_ids=IDS).logits


def continued(folder, **changes):
    """A trial that goes on from the folder, as the plan makes it."""
    settings = {"rank": 3, "scaling": 2.0, "dtype": "float32", "start_hash": adapter_folder.content_hash(str(folder))}
    return tiny.trial(start_from=str(folder), **(settings | changes))


def logits_at_step_0(model, trial):
    packed = tiny.packed(copy.deepcopy(model))
    with torch.no_grad(), packed.bound(initial(packed.base, [trial])):
        logits = packed.base.model(input_ids=IDS).logits
    packed.close()
    return logits


def sites_of(model):
    base = tiny.base(copy.deepcopy(model))
    return tuple(Site(name, *base.shape(name)) for name in base.sites)


def misfits(folder, sites, **changes):
    config = continued(folder).config.replace(**changes)
    name = plugins.load("methods", config.method).parametrisation().name
    scalings = {site.name: config.scaling for site in sites}
    return list(adapter_folder.misfits(adapter_folder.read(str(folder)), config, name, sites, scalings))


def test_a_peft_adapter_is_the_function_at_step_0(tmp_path):
    """Also under rsLoRA's multiplier, and with another trial, from the method's own start, beside it."""
    model = tiny.llama(torch.float32)
    expected = peft_folder(model, tmp_path)
    own = logits_at_step_0(model, continued(tmp_path))
    assert (own - expected).abs().max() < 1e-5
    with torch.no_grad():
        assert (own - model(input_ids=IDS).logits).abs().max() > 1e-2
    packed = tiny.packed(model)
    state = initial(packed.base, [tiny.trial(rank=3, dtype="float32"), continued(tmp_path)])
    assert all((tensors["B"] == 0).all() for tensors in state.trial_state(0).values())
    assert all((tensors["B"] != 0).any() for tensors in state.trial_state(1).values())


def test_packed_with_a_neighbour_it_trains_as_alone(tmp_path):
    model = tiny.llama(torch.float32)
    peft_folder(model, tmp_path / "adapter")
    trials = [continued(tmp_path / "adapter", learning_rate=1e-3), tiny.trial(rank=3, dtype="float32")]
    losses = {}
    for name in ("together", "alone"):
        packed = tiny.packed(copy.deepcopy(model))
        ended = tiny.outcomes(tiny.run_pack(packed, trials[: 2 if name == "together" else 1], 4, tmp_path / name))
        losses[name] = ended[trials[0].id].train_losses
    assert losses["together"] == pytest.approx(losses["alone"], rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_an_exported_trial_starts_with_its_own_tensors(method, tmp_path):
    """`welltuned.safetensors` is the trial's blob: factors and anchors, which A and B alone do not say."""
    model = tiny.llama(torch.float32)
    trial = tiny.trial(method=method, rank=3, scaling=2.0, dtype="float32")
    states = initial(tiny.base(copy.deepcopy(model)), [trial]).trial_state(0)
    for state in states.values():
        for name in plugins.load("methods", method).parametrisation().trained:
            state[name] += 0.1
    peft_folder(model, tmp_path)
    blob = adapter_file.save(str(tmp_path / "blobs"), trial, states)
    shutil.copy(blobs.path(tmp_path / "blobs", blob), tmp_path / adapter_folder.OWN)
    again = continued(tmp_path, method=method)
    assert misfits(tmp_path, sites_of(model), method=method) == []
    found = initial(tiny.base(copy.deepcopy(model)), [again]).trial_state(0)
    for site, state in states.items():
        assert all(torch.equal(found[site][name], state[name]) for name in state)
    assert "train.rank: got 4, expected 3, the exported trial's" in misfits(tmp_path, (), rank=4, method=method)[0]
    assert "train.alpha: got 'r', expected the exported" in misfits(tmp_path, (), scaling=1.0, method=method)[0]


def test_what_does_not_fit_is_said_with_what_to_do(tmp_path):
    model = tiny.llama(torch.float32)
    peft_folder(model, tmp_path)
    settings = json.loads((tmp_path / adapter_folder.SETTINGS).read_text())
    settings["base_model_name_or_path"] = "elsewhere/Tiny"
    (tmp_path / adapter_folder.SETTINGS).write_text(json.dumps(settings))
    sites = sites_of(model)
    assert misfits(tmp_path, sites) == []
    for changes, line in [
        ({"rank": 4}, "train.rank: got 4, expected 3, the adapter's at model.layers.0.self_attn.q_proj; set rank = 3"),
        (
            {"scaling": 1.0},
            "train.alpha: got 'r', expected one whose multiplier is the adapter's 2 at .*; set alpha = 6",
        ),
        ({"method": "pissa"}, "train.method: got 'pissa', expected one that trains A and B and nothing else"),
        ({"base": "other"}, "model.base: got 'other', expected 'elsewhere/Tiny', which .* was trained on"),
    ]:
        (found,) = misfits(tmp_path, sites, **changes)
        with pytest.raises(AssertionError, match=line):
            raise AssertionError(found)
    (found,) = misfits(tmp_path, sites[:3])
    assert "target_modules: got 3 sites (0 of them not in" in found and 'set target_modules = ["down_proj"' in found
    wider = (Site(sites[0].name, sites[0].num_out, sites[0].num_in + 1), *sites[1:])
    (found,) = misfits(tmp_path, wider)
    assert "model.base: got model.layers.0.self_attn.q_proj with W of 16 x 17, expected 16 x 16" in found


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"peft_type": "VERA"}, "peft_type: got 'VERA', expected 'LORA'"),
        ({"use_dora": True}, "use_dora: got True, expected False"),
        ({"bias": "all"}, "bias: got 'all', expected 'none'"),
        ({"init_lora_weights": "pissa_niter_4"}, "an adapter of the unchanged base; convert it first"),
    ],
)
def test_a_folder_that_says_more_than_a_and_b_is_refused(changes, line, tmp_path):
    peft_folder(tiny.llama(torch.float32), tmp_path)
    settings = json.loads((tmp_path / adapter_folder.SETTINGS).read_text()) | changes
    (tmp_path / adapter_folder.SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(InputError, match=line):
        adapter_folder.read(str(tmp_path))


def test_a_folder_with_other_tensors_or_without_files_is_refused(tmp_path):
    peft_folder(tiny.llama(torch.float32), tmp_path)
    weights = load_file(tmp_path / adapter_folder.WEIGHTS)
    save_file(weights | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, tmp_path / adapter_folder.WEIGHTS)
    with pytest.raises(InputError, match=r"1 tensors beside lora_A and lora_B \(base_model.model.lm_head.weight\)"):
        adapter_folder.read(str(tmp_path))
    (tmp_path / adapter_folder.WEIGHTS).write_bytes(b"no")
    with pytest.raises(InputError, match=r"which cannot be read .*; save it again"):
        adapter_folder.read(str(tmp_path))
    with pytest.raises(InputError, match=r"adapter_config.json and adapter_model.safetensors is not there"):
        adapter_folder.read(str(tmp_path / "nowhere"))


def test_patterns_and_rslora_give_the_multiplier_that_peft_uses(tmp_path):
    changes = {"use_rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"0.self_attn.q_proj": 5}}
    model = tiny.llama(torch.float32)
    peft_folder(model, tmp_path, **changes)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    found = adapter_folder.read(str(tmp_path)).scalings
    linears = {name: module for name, module in loaded.named_modules() if isinstance(module, peft.tuners.lora.Linear)}
    theirs = {name: module.scaling["default"] for name, module in linears.items()}
    assert {f"{adapter_folder.PREFIX}{site}": scaling for site, scaling in found.items()} == pytest.approx(theirs)


def test_the_adapter_s_bytes_are_part_of_the_trial_s_id(tmp_path, monkeypatch):
    """And a trial that starts as its method does has the id that it had before there was such a setting."""
    forge_hashes(monkeypatch)
    peft_folder(tiny.llama(torch.float32), tmp_path)
    spec = Spec.model_validate(edited(train={"start_from": str(tmp_path), "learning_rate": 1e-3}))
    from welltuned import plan

    first = plan.expand(spec)[0]
    (tmp_path / adapter_folder.SETTINGS).write_text((tmp_path / adapter_folder.SETTINGS).read_text() + " ")
    second = plan.expand(spec)[0]
    assert first.start_hash and first.id() != second.id()
    assert Config.parse(first.text()) == first
    assert "start" not in tiny.config().text()
    with pytest.raises(InputError, match=r"train.method: got 'pissa'"):
        plan_of(spec)


def test_an_adapter_that_changed_after_planning_is_not_trained_from(tmp_path):
    model = tiny.llama(torch.float32)
    peft_folder(model, tmp_path)
    trial = continued(tmp_path)
    (tmp_path / adapter_folder.SETTINGS).write_text((tmp_path / adapter_folder.SETTINGS).read_text() + " ")
    with pytest.raises(InputError, match="put back the files that the study began with"):
        initial(tiny.base(model), [trial])


# The rest of an exported trial ----------------------------------------------------------------------------------------

WHOLE = {"batch_size": 5, "max_steps": 14, "lr_scheduler_type": "constant", "weight_decay": 0.05, "num_evaluations": 1}
CUT = 6  # of 14 steps; 5 are an epoch of 24 rows, the last of 4


def exported(model, folder, trials):
    """Train all trials together up to the cut, moments kept; return each one's folder, as an export has it."""
    packed = tiny.packed(copy.deepcopy(model))
    cut = [one for one in trials]
    ended = tiny.outcomes(tiny.run_pack(packed, cut, 5, folder / "blobs", keep_moments=True))
    packed.close()
    places = []
    for place, one in enumerate(cut):
        path = folder / str(place)
        peft_folder(tiny.llama(torch.float32), path)  # PEFT's two files, which nobody reads here
        shutil.copy(blobs.path(folder / "blobs", ended[one.id].adapter), path / adapter_folder.OWN)
        places.append(path)
    return places


def rest_of(whole, folder):
    """The same trial, begun where the exported one ended."""
    start = {"start_from": str(folder), "start_hash": adapter_folder.content_hash(str(folder)), "start_step": CUT}
    return whole.config.replace(**start)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "sign_sgd"])
@pytest.mark.parametrize("method", ["lora", "pissa", "dora+pissa", "vera", "gralora"])
def test_the_rest_of_an_exported_trial_is_the_uninterrupted_one(method, optimizer, tmp_path):
    """Alone, to the bit: losses, validation, adapter. Beside a neighbour of another rank: to 1e-9."""
    model = tiny.llama()
    settings = WHOLE | {"optimizer": optimizer, "rank": 2, "warmup_steps": 2}
    whole = tiny.trial(method=method, **settings)
    neighbour = tiny.trial(method="lora", **(settings | {"rank": 3, "order_seed": 4}))
    uninterrupted = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), [whole], 5, tmp_path))[whole.id]
    first = Trial(whole.config.replace(max_steps=CUT), whole.role)
    (folder,) = exported(model, tmp_path / "cut", [first])
    rest = Trial(rest_of(whole, folder), whole.role)
    assert rest.id != whole.id
    alone = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), [rest], 5, tmp_path))[rest.id]
    assert alone.num_steps == 14 - CUT
    assert alone.train_losses == uninterrupted.train_losses[CUT:]
    assert alone.validation_nll == uninterrupted.validation_nll
    mine, theirs = (adapter_file.load(tmp_path / one.adapter)[1] for one in (alone, uninterrupted))
    for site, state in theirs.items():
        assert all(torch.equal(mine[site][name], tensor) for name, tensor in state.items())
    together = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), [rest, neighbour], 3, tmp_path))[rest.id]
    assert together.train_losses == pytest.approx(uninterrupted.train_losses[CUT:], rel=1e-9, abs=0)


def test_without_the_moments_it_is_another_trajectory(tmp_path):
    """What the moments are for: the same numbers and rows, Adam begun anew, and the losses part."""
    model = tiny.llama()
    whole = tiny.trial(**WHOLE)
    uninterrupted = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), [whole], 5, tmp_path))[whole.id]
    (folder,) = exported(model, tmp_path / "cut", [Trial(whole.config.replace(max_steps=CUT), whole.role)])
    state = initial(tiny.base(copy.deepcopy(model)), [Trial(rest_of(whole, folder), whole.role)])
    assert state.groups[0].moment1_NP.any() and state.groups[0].moment2_NP.any()
    fresh = Trial(rest_of(whole, folder).replace(start_step=0), whole.role)
    anew = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), [fresh], 5, tmp_path))[fresh.id]
    assert anew.num_steps == 14
    assert anew.train_losses[1] != pytest.approx(uninterrupted.train_losses[CUT + 1], rel=1e-6)


@pytest.mark.parametrize(("method", "adapter_numbers"), [("lora", 1), ("pissa", 2)])
def test_moments_cost_twice_the_trained_numbers_and_only_where_asked(method, adapter_numbers, tmp_path):
    """In bytes of the blob; the adapter is read without them."""
    sizes = {}
    for keep in (False, True):
        trial = tiny.trial(method=method, max_steps=6, learning_rate=2e-3)
        ended = tiny.outcomes(tiny.run_pack(tiny.packed(), [trial], 4, tmp_path / str(keep), keep_moments=keep))
        found = load_file(tmp_path / str(keep) / ended[trial.id].adapter)
        sizes[keep] = sum(tensor.numel() for tensor in found.values())
        _, states = adapter_file.load(tmp_path / str(keep) / ended[trial.id].adapter)
        assert sum(tensor.numel() for state in states.values() for tensor in state.values()) == sizes[False]
    num_trained = ended[trial.id].num_trainable
    assert sizes == {False: adapter_numbers * num_trained, True: (adapter_numbers + 2) * num_trained}


def test_what_is_not_the_rest_of_the_exported_trial_is_said(tmp_path):
    model = tiny.llama()
    whole = tiny.trial(**WHOLE)
    (folder,) = exported(model, tmp_path / "cut", [Trial(whole.config.replace(max_steps=CUT), whole.role)])
    sites = sites_of(model)
    config = rest_of(whole, folder)

    def found(**changes):
        given = config.replace(**changes)
        return list(adapter_folder.misfits(adapter_folder.read(str(folder)), given, "low_rank", sites, {}))

    assert found() == []
    assert found(learning_rate=1.0, max_steps=100) == []  # these may differ
    for changes, line in [
        ({"start_step": 5}, "train.start_step: got 5, expected 6, the steps of the exported trial; set start_step = 6"),
        ({"order_seed": 7}, "train.order_seed: got 7, expected 0, the exported trial's; set it, or start_step = 0"),
        ({"study_seed": 7}, "seed: got 7, expected 0, the exported trial's; set it, or start_step = 0"),
        ({"batch_size": 6}, "train.batch_size: got 6, expected 5, the exported trial's"),
        ({"num_train": 20}, "task.num_train: got 20, expected 24, the exported trial's"),
        ({"optimizer": "sgd"}, "train.optimizer: got 'sgd', expected 'adamw', the exported trial's"),
    ]:
        (said,) = found(**changes)
        assert said.startswith(line)
    peft_folder(tiny.llama(torch.float32), tmp_path / "peft")
    said = misfits(tmp_path / "peft", sites, start_step=3)[0]
    assert "expected 0: the folder has no optimizer's moments; set it to 0, or export from a study with keep" in said


def test_a_start_step_needs_its_folder_and_steps_to_go(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"train.start_step: got 4, expected 0, since no start_from names"):
        Spec.model_validate(edited(train={"start_step": 4, "learning_rate": 1e-3}))
    forge_hashes(monkeypatch)
    peft_folder(tiny.llama(torch.float32), tmp_path)
    settings = {"start_from": str(tmp_path), "start_step": 500, "max_steps": 500, "learning_rate": 1e-3}
    with pytest.raises(InputError, match=r"train.start_step: got 500, expected fewer than 500, the steps of the whole"):
        plan_of(Spec.model_validate(edited(train=settings, search={"fresh_seeds": 0})))
    with pytest.raises(
        InputError, match=r"search.fresh_seeds: got 2, expected 0: .* set fresh_seeds = 0, or start_step"
    ):
        Spec.model_validate(edited(train=settings))
    assert "start_step" not in tiny.config().text()
    rest = tiny.config(start_step=7, batch_size=5, max_steps=14)
    assert (flops.num_steps(rest), flops.num_samples(rest)) == (7, 68 - 34)


STUDY = """
name = "{name}"
[model]
base = "abacus-small"
dtype = "float32"
[task]
task = "abacus"
num_train = 36
num_validation = 8
num_test = 2
[train]
method = "{method}"
rank = 2
batch_size = 8
learning_rate = 5e-3
lr_scheduler_type = "constant"
num_evaluations = 1
{more}
[search]
fresh_seeds = 0
"""


@pytest.mark.parametrize("method", ["lora", "randlora"])
def test_on_the_command_line_the_rest_of_an_exported_trial_is_the_uninterrupted_one(
    method, tmp_path, monkeypatch, capsys
):
    """run with keep_moments, export, run with start_from and start_step: the adapter of one run, to the bit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "build", lambda results, declaration, folder: folder)  # figures take seconds

    def welltuned(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words])
        assert ended.value.code == 0

    def run(name, more, keeps="false"):
        text = STUDY.format(name=name, method=method, more=more) + f"keep_moments = {keeps}\n"
        Path(f"{name}.toml").write_text(text)
        welltuned("run", f"{name}.toml", "--threads", "1", "--memory", "2GB", "--folder", name)
        (result,) = Study(Path(name)).results()
        return result, adapter_file.load(Path(name) / "blobs" / result.adapter)[1]

    whole, expected = run("whole", "max_steps = 12")
    run("first", f"max_steps = {CUT}", keeps="true")
    welltuned("export", "first", "best", "--to", "adapter")
    assert f"`start_step = {CUT}` is the rest of this trial" in Path("adapter/README.md").read_text()
    more = 'max_steps = 12\nstart_from = "adapter"\nstart_step = '
    rest, found = run("rest", f"{more}{CUT}")
    assert rest.validation_nll == whole.validation_nll
    assert [point.step for point in rest.curve][-1] == 12 - CUT
    for site, state in expected.items():
        assert all(torch.equal(found[site][name], tensor) for name, tensor in state.items())


def test_a_study_keeps_moments_where_asked(tmp_path):
    """From [search] to the worker; an export says how to go on."""
    assert not Options().runtime("blobs", 1, Spec.model_validate(edited()).search.keep_moments).keep_moments
    spec = Spec.model_validate(edited(search={"keep_moments": True}))
    assert Options().runtime("blobs", 1, spec.search.keep_moments).keep_moments
    assert Spec.parse(spec.text()).search.keep_moments
