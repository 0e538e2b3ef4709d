"""Trained alone, welltuned agrees with what everyone runs today: Hugging Face PEFT with `transformers.Trainer`."""

import copy
from types import SimpleNamespace

import peft
import pytest
import torch
import transformers
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import LoraGAConfig, preprocess_loraga

import tiny
from welltuned.packing.batch import RowTable
from welltuned.packing.state import initial
from welltuned.train.cursor import batches

# PEFT 0.21 reads a name that transformers 5.23 has renamed
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing when gradients are computed:UserWarning"),
    pytest.mark.filterwarnings("ignore:lora with eva initialization used with low_cpu_mem_usage:UserWarning"),
]

NUM_STEPS, BATCH_SIZE, RANK = 30, 4, 4


class Losses(transformers.TrainerCallback):
    """Collects the loss of every step."""

    def __init__(self):
        self.values = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.values.append(logs["loss"])


class OrderedTrainer(transformers.Trainer):
    """A Trainer that reads the data set in the order given."""

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def ordered_row(row):
    """A row as Trainer wants it, labels on the completion only."""
    rows = tiny.rows()
    ids = torch.tensor(rows.token_ids[row], dtype=torch.long)
    labels = ids.clone()
    labels[: rows.prompt_lengths[row]] = -100
    return {"input_ids": ids, "labels": labels}


def ordered_examples(config):
    """The rows in welltuned's order."""
    return [ordered_row(row) for batch in batches(config, len(tiny.rows().token_ids)) for row in batch]


def collate(examples):
    """Right-pad a batch."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([example["input_ids"] for example in examples], batch_first=True)
    labels = pad([example["labels"] for example in examples], batch_first=True, padding_value=-100)
    mask = pad([torch.ones_like(example["input_ids"]) for example in examples], batch_first=True)
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def our_start(model, trial):
    """welltuned's tensors at step 0, by site."""
    packed = tiny.packed(copy.deepcopy(model))
    return initial(packed.base, [trial], RowTable(tiny.rows(), 0, packed.base.device)).trial_state(0)


def layer(adapted, site):
    """PEFT's module at a site."""
    return adapted.base_model.model.get_submodule(site)


def factors(adapted, site):
    """PEFT's A and B at a site."""
    module = layer(adapted, site)
    return module.lora_A["default"].weight.data, module.lora_B["default"].weight.data


def same_values(adapted, start):
    """Deterministic starts: B A, and each row of A up to its sign, are the same numbers."""
    for site, ours in start.items():
        A, B = factors(adapted, site)
        torch.testing.assert_close(B @ A, ours["B0"] @ ours["A0"], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(A.abs(), ours["A0"].abs(), rtol=1e-3, atol=1e-4)


def same_distribution(theirs, ours):
    """Random starts: the same bounds and standard deviation, over all sites; then theirs are given our numbers."""
    one, other = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (theirs, ours))
    assert float(one.std()) == pytest.approx(float(other.std()), rel=0.1)
    assert float(one.abs().max()) == pytest.approx(float(other.abs().max()), rel=0.1)
    for target, source in zip(theirs, ours, strict=True):
        target.copy_(source)


def same_lora(adapted, start):
    """A uniform, B zero; DoRA's magnitudes are the norms of W's rows."""
    same_distribution([factors(adapted, site)[0] for site in start], [ours["A"] for ours in start.values()])
    for site, ours in start.items():
        assert not factors(adapted, site)[1].any()
        if "m" in ours:
            torch.testing.assert_close(layer(adapted, site).lora_magnitude_vector["default"].weight.data, ours["m"])


def same_eva(adapted, start):
    """PEFT's directions, from the same rows in one batch, are ours up to their signs; then theirs are given ours."""
    rows = [ordered_row(row) for row in range(len(tiny.rows().token_ids))]
    with torch.enable_grad():  # PEFT makes the factors anew, to be trained
        peft.initialize_lora_eva_weights(adapted, [collate(rows)], show_progress_bar=False)
    for site, ours in start.items():
        A, B = factors(adapted, site)
        assert ((A * ours["A"]).sum(1).abs() > 0.999).all()  # cosines; PEFT's SVD is a randomized one
        assert not B.any()
        A.copy_(ours["A"])


def same_vera(adapted, start):
    """The shared factors have the sizes of the largest site; vectors d = 0.1 and b = 0."""
    model = adapted.base_model
    A = max((ours["A"] for ours in start.values()), key=lambda tensor: tensor.shape[1])
    B = max((ours["B"] for ours in start.values()), key=lambda tensor: tensor.shape[0])
    assert model.vera_A["default"].shape == A.shape and model.vera_B["default"].shape == B.shape
    bounds = (6 / A.shape[1]) ** 0.5, (6 / RANK) ** 0.5
    for theirs, ours, bound in zip((model.vera_A["default"], model.vera_B["default"]), (A, B), bounds, strict=True):
        assert 0.9 * bound < theirs.abs().max() <= bound and 0.9 * bound < ours.abs().max() <= bound
        theirs.copy_(ours)
    for site, ours in start.items():
        torch.testing.assert_close(layer(adapted, site).vera_lambda_d["default"].data, ours["d"])
        assert not layer(adapted, site).vera_lambda_b["default"].any()


def same_gralora(adapted, start):
    """PEFT's A holds, for input block n, the columns of all output blocks side by side."""
    theirs = [layer(adapted, site).gralora_A["default"].data for site in start]
    same_distribution(theirs, [ours["A"].flatten(1, 2).mT for ours in start.values()])
    assert not any(layer(adapted, site).gralora_B["default"].any() for site in start)


def same_randlora(adapted, start):
    """The parts of the shared factors that a site uses have PEFT's deviation and bounds; l = 0, g = 1 / min(O, I)."""
    model = adapted.base_model
    A = max((ours["A"][:, None] for ours in start.values()), key=torch.numel)
    B = max((ours["B"] for ours in start.values()), key=torch.numel)
    shared = model.randlora_A["default"], model.randlora_B["default"]
    used = [one[tuple(slice(size) for size in ours.shape)] for one, ours in zip(shared, (A, B), strict=True)]
    same_distribution(used, [A, B])
    for site, ours in start.items():
        assert torch.equal(layer(adapted, site).randlora_lambda["default"].data, ours["l"]) and not ours["l"].any()
        torch.testing.assert_close(layer(adapted, site).randlora_gamma["default"].data, ours["g"])


def same_boft(adapted, start):
    """R zero, of two factors, and s one."""
    for site, ours in start.items():
        assert torch.equal(layer(adapted, site).boft_R["default"].data, ours["R"]) and not ours["R"].any()
        assert torch.equal(layer(adapted, site).boft_s["default"].data[:, 0], ours["s"]) and (ours["s"] == 1).all()


@pytest.fixture(autouse=True)
def block_diagonal(monkeypatch):
    """PEFT's BOFT has two factors only with its CUDA kernel, which lays blocks on a diagonal: here as torch does it."""

    def forward(blocks):
        return [torch.stack([torch.block_diag(*factor) for factor in blocks])]

    def backward(gradient, blocks):
        _, count, size, _ = blocks.shape
        tiles = gradient.unflatten(2, (count, size)).unflatten(1, (count, size))
        return [torch.stack([tiles[:, place, :, place] for place in range(count)], dim=1)]

    kernel = SimpleNamespace(forward=forward, backward=backward)
    monkeypatch.setattr("peft.tuners.boft.layer.get_fbd_cuda", lambda: kernel)


def lora(**settings):
    """PEFT's settings for a low-rank method with multiplier 1."""
    return peft.LoraConfig(**{"r": RANK, "lora_alpha": RANK, "target_modules": "all-linear"} | settings)


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# welltuned's method and settings, PEFT's settings, and the comparison of the starts
CASES = {
    "lora": ("lora", {}, lora(), same_lora),
    "lora+": ("lora", {"loraplus_lr_ratio": 4.0, "weight_decay": 0.0}, lora(), same_lora),
    "rslora": ("lora", {"alpha": "3/sqrt(r)", "scaling": 1.5}, lora(lora_alpha=3, use_rslora=True), same_lora),
    "pissa": ("pissa", {"weight_decay": 0.0}, lora(init_lora_weights="pissa"), same_values),
    "olora": ("olora", {"weight_decay": 0.0}, lora(init_lora_weights="olora"), same_values),
    "eva": ("eva", {}, lora(init_lora_weights="eva", eva_config=peft.EvaConfig(rho=1.0)), same_eva),
    "dora": ("dora", {"scaling": 2.0}, lora(lora_alpha=2 * RANK, use_dora=True), same_lora),
    "dora+pissa": (
        *("dora+pissa", {"weight_decay": 0.0}, lora(init_lora_weights="pissa", use_dora=True)),
        same_values,
    ),
    "vera": ("vera", {"max_grad_norm": 0.01}, peft.VeraConfig(r=RANK, target_modules="all-linear"), same_vera),
    "gralora": (
        *("gralora", {"scaling": 2.0}, peft.GraloraConfig(r=RANK, alpha=2 * RANK, target_modules="all-linear")),
        same_gralora,
    ),
    "randlora": (
        *(
            "randlora",
            {"scaling": 20.0},
            peft.RandLoraConfig(r=RANK, randlora_alpha=20 * RANK, target_modules="all-linear"),
        ),
        same_randlora,
    ),
    "boft": (
        *("boft", {}, peft.BOFTConfig(boft_block_size=RANK, boft_n_butterfly_factor=2, target_modules=ALL)),
        same_boft,
    ),
}


def trainer_losses(adapted, config, folder):
    """Train with PEFT and Trainer."""
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH_SIZE,
        max_steps=NUM_STEPS,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        adam_beta2=config.beta2,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        optim="adamw_torch",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    losses = Losses()
    optimizer = None
    if config.loraplus_lr_ratio != 1:
        settings = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2), "eps": config.epsilon}
        ratio = config.loraplus_lr_ratio
        optimizer = create_loraplus_optimizer(adapted, torch.optim.AdamW, loraplus_lr_ratio=ratio, **settings)
    trainer = OrderedTrainer(
        model=adapted,
        args=arguments,
        train_dataset=ordered_examples(config),
        data_collator=collate,
        callbacks=[losses],
        optimizers=(optimizer, None),
    )
    trainer.train()
    return losses.values


@pytest.mark.parametrize("name", CASES)
def test_alone_equals_peft_and_trainer(name, tmp_path):
    """30 steps in float32, same rows, schedule with warm-up, clip and decay: losses agree to 1e-4 relative.

    The starts are compared first, as PEFT makes them; where they are random, PEFT then trains from our numbers.
    """
    method, changes, settings, same = CASES[name]
    model = tiny.llama(torch.float32)
    one = tiny.trial(
        method=method,
        rank=RANK,
        batch_size=BATCH_SIZE,
        learning_rate=3e-3,
        num_train_epochs=5,
        warmup_steps=3,
        **({"weight_decay": 0.01, "max_grad_norm": 0.5} | changes),
    )
    torch.manual_seed(0)
    adapted = peft.get_peft_model(copy.deepcopy(model), settings)
    with torch.no_grad():
        same(adapted, our_start(model, one))
    packed = tiny.packed(copy.deepcopy(model))
    ours = tiny.outcomes(tiny.run_pack(packed, [one], BATCH_SIZE, tmp_path))[one.id]
    theirs = trainer_losses(adapted, one.config, tmp_path / "trainer")
    assert len(ours.train_losses) == NUM_STEPS
    assert ours.clip_fraction > 0
    assert ours.train_losses == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])  # tied embeddings, both; GPT-2 has biases
def test_full_fine_tuning_of_all_weights_equals_trainer(make, tmp_path):
    """30 steps in float32 of every parameter, clipped, decayed but for norms and biases: losses agree to 1e-4."""
    model = make(torch.float32)
    for module in model.modules():  # Trainer switches GPT-2's dropout on, which a frozen base does not have
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    settings = {"learning_rate": 3e-3, "num_train_epochs": 5, "warmup_steps": 3, "weight_decay": 0.1}
    one = tiny.trial(method="full_all", rank=0, batch_size=BATCH_SIZE, max_grad_norm=0.5, **settings)
    ours = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), [one], BATCH_SIZE, tmp_path))[one.id]
    theirs = trainer_losses(copy.deepcopy(model).requires_grad_(), one.config, tmp_path / "trainer")
    assert ours.num_trainable == sum(parameter.numel() for parameter in model.parameters())
    assert len(ours.train_losses) == NUM_STEPS and ours.clip_fraction > 0
    assert ours.train_losses == pytest.approx(theirs, rel=1e-4)
    assert ours.train_losses[-1] < 0.9 * ours.train_losses[0]


def peft_lora_ga(model, trial, **settings):
    """PEFT's own LoRA-GA, its gradient taken from the same rows, those that our start looks at."""
    names = sorted({site.rpartition(".")[2] for site in tiny.base(copy.deepcopy(model)).sites})
    config = lora(init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig(**settings), target_modules=names)
    base = copy.deepcopy(model).requires_grad_()
    rows = [ordered_row(row) for row in range(trial.config.num_train)]
    preprocess_loraga(base, config, lambda: base(**collate(rows)).loss.backward())
    return peft.get_peft_model(base, config)


def test_lora_ga_is_the_papers_and_pefts_is_another_scale(tmp_path):
    """The same singular vectors of the same gradient; the paper scales both factors, PEFT B alone, by S, too.

    No option of PEFT's has the paper's scale, so for the 30 steps PEFT is given our factors, taken off its weights.
    """
    model = tiny.llama(torch.float32)
    settings = {"learning_rate": 3e-3, "num_train_epochs": 5, "warmup_steps": 3, "weight_decay": 0.0}
    one = tiny.trial(method="lora_ga", rank=RANK, batch_size=BATCH_SIZE, max_grad_norm=0.5, **settings)
    start = our_start(model, one)
    adapted = peft_lora_ga(model, one)
    for site, ours in start.items():
        A, B = factors(adapted, site)
        scale = ours["B0"].shape[0] ** 0.25 / 4
        torch.testing.assert_close(scale * A.abs(), ours["A0"].abs(), rtol=1e-2, atol=1e-3)
        theirs = B / B.norm(dim=0)
        torch.testing.assert_close(scale * theirs.abs(), ours["B0"].abs(), rtol=1e-2, atol=2e-3)
        with torch.no_grad():
            layer(adapted, site).get_base_layer().weight += B @ A - ours["B0"] @ ours["A0"]
            A.copy_(ours["A0"])
            B.copy_(ours["B0"])
    ours = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), [one], BATCH_SIZE, tmp_path))[one.id]
    theirs = trainer_losses(adapted, one.config, tmp_path / "trainer")
    assert len(ours.train_losses) == NUM_STEPS and ours.clip_fraction > 0
    assert ours.train_losses == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("scale", ["stable", "weight_svd", "gd_scale", "unit"])
def test_no_option_of_peft_has_the_papers_scale(scale):
    """What methods.md lists as a divergence: B0 A0 of the paper (algorithm 1) and of PEFT, for each of its scales."""
    model = tiny.llama(torch.float32)
    one = tiny.trial(method="lora_ga", rank=RANK)
    adapted = peft_lora_ga(model, one, scale=scale)
    for site, ours in our_start(model, one).items():
        A, B = factors(adapted, site)
        product = ours["B0"] @ ours["A0"]
        assert (B @ A - product).norm() > 0.1 * product.norm(), site
        singular_values = torch.linalg.svdvals(product)[:RANK]  # the paper's factors are orthonormal, times g
        torch.testing.assert_close(singular_values, torch.full_like(singular_values, len(ours["B0"]) ** 0.5 / 16))
