"""Replay on published tables: learning rate and rank (Tinker), batch size and learning rate (MLPerf)."""

import csv
import dataclasses
import math
import pathlib

import pytest
from scripts import replays
from scripts.replays import Case, Contender, Variant

import planted_surface as planted
from small_study import forge_hashes, result_of, survey_of
from welltuned import plan as plans
from welltuned.records import Arm, Role, Status, Trial

REAL = pathlib.Path(__file__).parents[2] / "shared" / "data"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not REAL.is_dir(), reason="the published data sets are not at ../shared/data"),
]
PLAIN = Variant("as recorded")
BASE_NLL = 2.0  # Tinker leaves out runs above it as diverged


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def rows(*parts):
    with REAL.joinpath(*parts).open() as file:
        return list(csv.DictReader(file))


def case_of(name, points, base_loss):
    """Make a case of (learning rate, batch size, rank, loss or None) points; repeated ones are seeds."""
    (template,) = planted.plan().arms[0].configs[:1]
    seeds, results = {}, []
    for rate, batch, rank, loss in points:
        setting = {"learning_rate": rate, "batch_size": batch, "rank": rank}
        seed = seeds[rate, batch, rank] = seeds.get((rate, batch, rank), -1) + 1
        config = template.replace(**setting, init_seed=seed, order_seed=seed, num_train=100_000, base=name)
        status = Status.DIVERGED if loss is None else Status.FINISHED
        loss = base_loss if loss is None else loss
        results.append(result_of(Trial(config, Role.SELECT), loss, status, base_validation_nll=base_loss))
    configs = tuple(result.config for result in results if result.config.init_seed == 0)
    surveys = {plans.survey_key(config): survey_of(config, hidden_size=2048) for config in configs}
    return Case(name, "held out", (Arm("lora", configs, 1),), tuple(results), surveys, {})


def tinker(model):
    points = []
    for row in rows("tinker_sft_sweep", "sft_sweep.csv"):
        if row["model"] != model:
            continue
        ranks = [int(rank) for rank in row["lora_rank"].split(",")]
        diverged = int(row["diverged"]) > 0
        loss = None if diverged else float(row["test_nll"])
        points += [(float(row["lr"]), int(row["batch_size"]), rank, loss) for rank in ranks]
    return case_of(model, points, BASE_NLL)


def mlperf(fewest_runs=10):
    """Thousands of samples to the target loss, which is what was to be low there."""
    points = [
        (float(row["opt_base_learning_rate"]), int(row["global_batch_size"]), 16, float(row["samples_to_0925"]) / 1000)
        for row in rows("mlperf_llama2_70b_lora", "runs.csv")
        if row["samples_to_0925"]
    ]
    kept = [point for point in points if sum(other[:3] == point[:3] for other in points) >= fewest_runs]
    return case_of("llama2-70b", kept, 30.0)


def mean_regret(case, contender, budget, num_replays=6):
    one = dataclasses.replace(contender, budgets=(budget,))
    found = list(replays._computed(case, one, PLAIN, num_replays))
    assert all(score.cost <= budget + 1e-9 for score in found)
    return sum(score.regret for score in found) / len(found)


@pytest.mark.parametrize("model", ["Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-8B"])
def test_everything_of_tinkers_sweep_gives_its_best_and_four_draws_come_near(model):
    case = tinker(model)
    random = Contender("random", "uniform")
    # Where one run stands for a point, training all of them finds what is best but for the smoothing.
    assert mean_regret(case, random, 100) <= 0.01
    assert mean_regret(case, random, 100) <= mean_regret(case, random, 4) <= 0.08


def test_guided_comes_within_two_percent_on_tinkers_sweep_as_chance_does():
    """The sweep is flat: six random candidates of it come as near, so that nothing is gained there by a model."""
    case = tinker("Qwen/Qwen3-30B-A3B")
    assert mean_regret(case, Contender("guided", "guided"), 6) <= 0.02
    assert mean_regret(case, Contender("random", "uniform"), 6) <= 0.02


def test_mlperfs_cells_are_an_uneven_table_and_what_was_not_run_is_not_offered():
    case = mlperf()
    offered = {(config.batch_size, config.learning_rate) for config in case.arms[0].configs}
    assert len(offered) >= 15 and (128, 4e-4) not in offered
    assert mean_regret(case, Contender("random", "uniform"), 100) <= mean_regret(case, Contender("r", "uniform"), 2)
    # Small batches need the fewest samples: whoever looks at one batch of 128 pays for it.
    losses = {r.config.batch_size: r.validation_nll for r in case.results}
    assert math.isfinite(losses[8]) and losses[8] < losses[128]
