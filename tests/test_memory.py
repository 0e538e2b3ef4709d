"""Memory: real packs against the prediction, a worker that is killed or refused memory, the plan of a large base."""

import pytest
import torch

import tiny
from small_study import edited, forge_hashes, survey_of
from welltuned import plan as plans
from welltuned.costs import memory, packing
from welltuned.objectives import causal_lm
from welltuned.packing.state import initial
from welltuned.records import Config, JobLost, Role, Site, Status, Survey, TrainJob, Trial
from welltuned.spec import Spec
from welltuned.store import Store
from welltuned.study import Options, Study
from welltuned.study import run as run_study

MIB = 2**20
GIB = 2**30

# A worker that runs out of memory ------------------------------------------------------------------------------------

SPEC = """
name = "hungry"
[model]
base = "abacus-small"
dtype = "float32"
[task]
task = "abacus"
num_train = 128
num_validation = 16
num_test = 4
max_length = 128
[train]
method = "lora"
rank = 4
batch_size = 64
[axes]
learning_rate = [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3]
[search]
fresh_seeds = 1
"""
LIMIT_BYTES = 110 * MIB  # between what 16 rows of each trial take here and what 4 do; measured


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("unlimited") / "study"
    return run_study(Spec.parse(SPEC), folder, options=Options(memory_bytes=4 * GIB, threads=1))


@pytest.mark.parametrize(("kind", "said"), [("kill", "SIGKILL"), ("data", "out of memory")])
def test_a_pack_that_is_too_large_is_trained_with_fewer_rows_and_the_same_batches(
    unlimited, tmp_path, monkeypatch, kind, said
):
    monkeypatch.setenv("LIMIT_BYTES", str(LIMIT_BYTES))
    monkeypatch.setenv("LIMIT_KIND", kind)
    options = Options(memory_bytes=4 * GIB, threads=1, entry="limited_worker:run")
    study = run_study(Spec.parse(SPEC), tmp_path / "study", options=options)
    with Store.open(tmp_path / "study") as store:
        jobs = [job for job in store.jobs() if isinstance(job, TrainJob)]
        reasons = [event.reason for _, event in store.events("JobLost") if isinstance(event, JobLost)]
    assert reasons and all(said in reason for reason in reasons)
    tried = [[job.micro_rows for job in jobs if job.trials[0].role is role] for role in (Role.SELECT, Role.CONFIRM)]
    assert 2 <= len(tried[0]) <= 4
    for rows in tried:
        assert rows == [rows[0] // 2**place for place in range(len(rows))]
    assert sum(len(rows) - 1 for rows in tried) == len(reasons)
    assert study.declaration().num_lost == len(reasons)
    for limited, free in zip(study.results(), unlimited.results(), strict=True):
        assert limited.status is free.status is Status.FINISHED
        assert (limited.config, limited.curve[-1].step) == (free.config, free.curve[-1].step)
        assert limited.validation_nll == pytest.approx(free.validation_nll, rel=1e-4)


# What is kept, counted ------------------------------------------------------------------------------------------------


def kept_bytes(method: str, num_tokens: int) -> int:
    """Bytes that one pass of one trial on a tiny Llama keeps for its backward pass, the weights left out."""
    packed = tiny.packed(tiny.llama(torch.float32))
    trial = tiny.trial(method=method, dtype="float32", rank=2)
    state = initial(packed.base, [trial])
    weights = [*packed.base.model.parameters(), state.groups[0].flat_NP]
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids_RT = torch.arange(num_tokens).view(1, -1) % packed.base.vocab_size
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), packed.bound(state):
        features = packed.base.features(ids_RT)
        total = sum(kept.values())
    del features
    return total


def test_dora_keeps_the_base_s_output_at_every_site():
    """What a token more keeps: beyond LoRA's, the outputs of all sites; counted from what autograd saves."""
    sites = tiny.packed(tiny.llama(torch.float32)).base
    outputs = 4 * sum(sites.shape(site)[0] for site in sites.sites)
    per_token = {method: (kept_bytes(method, 24) - kept_bytes(method, 12)) / 12 for method in ("lora", "dora")}
    assert per_token["dora"] - per_token["lora"] == pytest.approx(outputs, rel=0.05)


def test_the_estimate_counts_the_outputs_that_dora_keeps(large):
    survey = llama_2_7b(large[0].config)
    lora, dora = (
        memory.estimate([large[0].config.replace(method=method)], survey, 1, "cuda:0") for method in ("lora", "dora")
    )
    outputs = 32 * (4 * 4096 + 2 * 11008 + 4096)
    more = (dora.activation_bytes - lora.activation_bytes) / memory.GPU_OVERHEAD
    assert more == pytest.approx(512 * 2 * outputs * 33 / 32, rel=1e-4)


# A large base, on paper -----------------------------------------------------------------------------------------------


def llama_2_7b(config: Config) -> Survey:
    """What a survey of Llama-2-7B says, from its published shape: 32 layers of 4096, an MLP of 11008, 32 heads."""
    shapes = [("q", 4096, 4096), ("k", 4096, 4096), ("v", 4096, 4096), ("o", 4096, 4096)]
    shapes += [("gate", 11008, 4096), ("up", 11008, 4096), ("down", 4096, 11008)]
    sites = tuple(Site(f"layers.{layer}.{name}_proj", *shape) for layer in range(32) for name, *shape in shapes)
    return survey_of(
        config,
        sites=sites,
        num_parameters=6_738_415_616,
        num_base_weights=6_738_415_616 - 2 * 32_000 * 4096,
        num_head_weights=32_000 * 4096,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        vocab_size=32_000,
        mean_tokens=256.0,
        longest_tokens=512,
        mean_target_tokens=192.0,
        num_validation=256,
    )


@pytest.fixture
def large(monkeypatch) -> list[Trial]:
    forge_hashes(monkeypatch)
    rates = [k * 1e-5 for k in range(1, 17)]
    tree = edited(
        model={"base": "llama-2-7b", "dtype": "bfloat16"},
        train={"rank": 128},
        axes={"method": ["lora"], "batch_size": [16], "learning_rate": rates},
    )
    return [Trial(config, Role.SELECT) for config in plans.expand(Spec.model_validate(tree))]


def test_the_terms_of_llama_2_7b_by_hand(large):
    survey = llama_2_7b(large[0].config)
    found = memory.estimate([large[0].config], survey, 1, "cuda:0")
    trained = 32 * 128 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert trained == 319_815_680
    token = 32 * 7 * 128 * 2  # A x at every site, in bfloat16
    token += 32 * (2 * 4 * 4096 + 2 * (6 * 4096 + 4 * 11008))  # 32 layers: residuals in float32, the rest in bfloat16
    token += token // 32  # a layer's gradients
    by_hand = {
        "adapter_bytes": 4 * trained,
        "gradient_bytes": 4 * trained,
        "optimizer_bytes": 8 * trained,
        "activation_bytes": 512 * token,
        "attention_bytes": 0,
        "copy_bytes": 2 * trained,
    }
    assert found.base_bytes == 2 * 6_738_415_616
    for name, value in by_hand.items():
        assert vars(found)[name] / memory.GPU_OVERHEAD == pytest.approx(value, rel=1e-4, abs=1), name


def test_llama_2_7b_is_planned_for_one_gpu_of_80_gb(large):
    survey = llama_2_7b(large[0].config)
    jobs = packing.pack(large, survey, 64 * 10**9, "cuda:0")  # 0.8 of what the device has
    assert sum(len(job.trials) for job in jobs) == 16
    for job in jobs:
        need = memory.estimate([trial.config for trial in job.trials], survey, job.micro_rows, "cuda:0")
        assert need.total_bytes <= 64 * 10**9
        assert len(job.trials) >= 4


def test_the_plan_and_the_objective_know_the_same_chunks_of_logits():
    assert (memory.CPU_NUMBERS, memory.GPU_NUMBERS) == (causal_lm.CPU_NUMBERS, causal_lm.GPU_NUMBERS)
    assert causal_lm._rows(torch.empty(1, device="cpu"), 151_936) == 27
    # Any other device reads the head anew 16 times less.
    assert causal_lm._rows(torch.empty(1, device="meta"), 151_936) == 441
