"""What `scripts/measure_rules.py` and `measure_proxies.py` find: planted laws, and the committed numbers again."""

import math
import pathlib
from dataclasses import replace

import numpy as np
import pytest
from scripts import measure_proxies, measure_rules, rule_tables, rules_page, surface_tables
from scripts.rule_tables import DEVELOPMENT, HELD_OUT, LARGE, SMALL, Cell

from welltuned.transfer import combine, known_errors, rules
from welltuned.transfer.setting import Setting

REAL = pathlib.Path(__file__).parents[2] / "shared" / "data"
published = pytest.mark.skipif(not REAL.is_dir(), reason="the published data sets are not at ../shared/data")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Let measurements be written to, and read from, a file of the test's own."""
    monkeypatch.setattr(known_errors, "FILE", tmp_path / "errors.toml")
    known_errors.measured.cache_clear()
    yield tmp_path / "errors.toml"
    known_errors.measured.cache_clear()


def planted(noise=0.0, constant=0.3, batch_power=0.35, samples_power=-0.25, split=DEVELOPMENT, seed=0):
    """Optima of three models after a law, over batch sizes and numbers of samples, with noise in octaves."""
    rng = np.random.default_rng(seed)
    cells = []
    for name, width in (("one", 64), ("two", 128), ("three", 256)):
        for batch in (4, 16, 64):
            for samples in (4096, 16384):
                at = Setting("lora", 8, "r", batch, width, samples, "llama")
                rate = constant * (width * 8) ** -0.5 * (batch / 16) ** batch_power * (samples / 4096) ** samples_power
                rate *= 2.0 ** rng.normal(0, noise)
                cells.append(Cell("planted", SMALL, name, split, at, rate))
    return cells


def test_a_planted_law_is_fitted_and_then_has_no_error(elsewhere):
    law = measure_rules.fit(SMALL, planted())
    assert (law.constant, law.batch_power, law.samples_power) == pytest.approx((0.3, 0.35, -0.25))
    assert set(law.fitted_powers) == {"batch_power", "samples_power"}
    rows = {(row.kind, row.name, row.held_out): row for row in measure_rules.measure(planted())}
    assert rows["formula", "fitted", False].q90 < 1e-3
    assert rows["rule", "batch", True].observed_slope == pytest.approx(0.35)
    assert rows["rule", "batch", True].rms_per_octave == pytest.approx(0.15)  # the rule says a half
    assert rows["rule", "samples", True].bias == pytest.approx(0.1)  # it says -0.2, over 2 octaves
    assert rows["rule", "width", True].q90 == pytest.approx(0, abs=1e-9)


def test_a_power_that_the_data_do_not_vary_is_the_literatures(elsewhere):
    cells = [cell for cell in planted() if cell.setting.num_samples == 4096]
    law = measure_rules.fit(SMALL, cells)
    assert law.fitted_powers == ("batch_power",) and law.samples_power == rules.SAMPLES_POWER


def test_an_error_on_development_data_is_that_of_a_law_which_did_not_see_the_cell(elsewhere):
    """One model lies an octave off: it is missed by an octave, not by what its own weight in the fit leaves of it."""
    cells = [replace(cell, rate=2 * cell.rate) if cell.group == "two" else cell for cell in planted()]
    rows = {(row.kind, row.name): row for row in measure_rules.measure(cells)}
    assert rows["formula", "fitted"].q90 == pytest.approx(1.0, abs=0.01)


def test_held_out_cells_change_no_constant_and_make_the_quoted_error(elsewhere):
    cells = planted() + [replace(cell, rate=cell.rate / 4, split=HELD_OUT) for cell in planted()]
    measure_rules.measure(cells)
    assert known_errors.fitted_law(128).constant == pytest.approx(0.3, rel=1e-3)
    quoted = known_errors.known_error("formula", "fitted", 128)
    assert quoted.held_out and quoted.bias == pytest.approx(2.0, abs=0.01)


def test_intervals_hold_what_they_promise_on_held_out_cells(elsewhere):
    """Noise of 0.5 octaves on every model's law: the 90 % interval has about 90 % of new cells."""
    measure_rules.measure(planted(0.5, seed=1) + planted(0.5, split=HELD_OUT, seed=2))
    fresh = planted(0.5, seed=3) + planted(0.5, seed=4)
    inside = [found.low <= cell.rate <= found.high for cell in fresh if (found := combine.combined(cell.setting))]
    assert len(inside) == len(fresh) and 0.8 <= np.mean(inside) <= 1.0


def test_a_best_rate_beside_divergence_is_the_best_tried_and_an_edge_is_none():
    assert rule_tables.best_rate({1e-4: 2.0, 3e-4: 1.0, 1e-3: math.inf}) == 3e-4
    assert rule_tables.best_rate({1e-4: 2.0, 3e-4: 1.0}) is None
    assert rule_tables.best_rate({1e-4: 2.0, 1e-3: 1.0, 1e-2: 2.0}) == pytest.approx(1e-3)


def test_the_committed_file_reads_back_as_it_is_written(elsewhere):
    measure_rules.measure(planted(0.3))
    found = known_errors.measured()
    measure_rules.write(found.scales, found.laws, found.errors)
    assert known_errors.measured() == found


@pytest.mark.realdata
@published
def test_the_committed_errors_on_published_tables_are_what_they_give(elsewhere):
    committed = known_errors.Path(known_errors.__file__).parent / "errors.toml"
    known = {line for line in committed.read_text().split("\n\n") if f'scale = "{LARGE}"' in line}
    cells = [cell for cell in measure_rules.all_cells(REAL) if measure_rules.has_steps(cell.setting)]
    measure_rules.measure(cells)
    again = {line for line in elsewhere.read_text().split("\n\n") if f'scale = "{LARGE}"' in line}
    assert known == again


def test_the_page_of_the_rules_has_the_committed_numbers():
    text = rules_page.PAGE.read_text(encoding="utf-8")
    assert rules_page.page(text) == text, "run `python -m scripts.rules_page`"
    assert "| muA | published | held out |" in text


@pytest.mark.realdata
@published
def test_published_best_rates_lie_within_the_intervals():
    """Nine of ten optima of the sweeps, held out or not, in the 90 % interval of the combination."""
    cells = [cell for cell in rule_tables.tinker(REAL) + rule_tables.mlperf(REAL)]
    inside = [found.low <= cell.rate <= found.high for cell in cells if (found := combine.combined(cell.setting))]
    assert len(inside) == len(cells) > 40 and np.mean(inside) >= 0.9


def test_a_surface_that_the_manifest_does_not_list_is_held_out(tmp_path):
    """The study of tests/recorded, put where surfaces lie: lora and pissa at rank 8 are listed, milora is not."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "manifest.toml").write_text('development = ["abacus-small r8 lora", "abacus-small r8 pissa"]')
    study = rule_tables.RECORDED / "batch_by_method.jsonl.gz"
    for name in ("one.jsonl.gz", "abacus-small-probe.jsonl.gz"):
        (tmp_path / "tables" / name).write_bytes(study.read_bytes())
    cells = list(rule_tables.surfaces(tmp_path))
    assert {(cell.setting.method, cell.split) for cell in cells} == {
        ("lora", DEVELOPMENT),
        ("pissa", DEVELOPMENT),
        ("milora", HELD_OUT),
    }
    assert len(cells) == 11  # of 12 cells, one has its best rate on an edge; the probe is not read
    assert {cell.setting.num_samples for cell in cells} == {4096}


# Proxies --------------------------------------------------------------------------------------------------------------


def surface(rank=8, width=64, samples=4096, batch_optimum=16.0, constant=0.3):
    """A planted surface: parabolas in log rate about the rules' law, and a best batch size."""
    rates = [1e-3 * 2.0**k for k in range(-2, 10)]
    losses, operations = {}, {}
    for batch in (4, 8, 16, 32, 64):
        best = constant * (width * rank) ** -0.5
        losses[batch] = {
            rate: 1 + 0.02 * math.log2(rate / best) ** 2 + 0.05 * math.log2(batch / batch_optimum) ** 2
            for rate in rates
        }
        operations[batch] = dict.fromkeys(rates, float(width))
    return measure_proxies.Surface("planted", width, "lora", rank, "r", samples, losses, operations)


def test_a_proxy_after_the_rules_has_no_regret_and_its_cost_is_its_sweep_and_the_probes():
    target, proxy = surface(width=256), surface(width=64)
    ((kind, one, other),) = [("model", *pair) for pair in measure_proxies.pairs([target, proxy], "model")]
    assert (one, other) == (proxy, target)
    found = measure_proxies.judge(kind, one, other)
    assert found.regret == pytest.approx(0, abs=0.01) and found.probed_regret <= found.regret
    assert found.cost == pytest.approx(64 / 256)
    assert found.probed_cost == pytest.approx(0.25 + found.num_probes / (5 * 12))


def test_less_data_as_a_proxy_takes_the_wrong_batch_size_over():
    few, many = surface(samples=1024, batch_optimum=4.0), surface(samples=16384, batch_optimum=16.0)
    (pair,) = measure_proxies.pairs([many, few], "data")
    found = measure_proxies.judge("data", *pair)
    assert found.batch_size == 4 and found.probed_regret > 0.15


def test_what_cannot_be_judged_is_none_and_not_a_guess():
    low = surface()
    edge = replace(low, losses={batch: {rate: rate for rate in cell} for batch, cell in low.losses.items()})
    assert measure_proxies.judge("rank", edge, surface(rank=32)) is None
    assert measure_proxies.loss_at({1e-3: 1.0, 1e-2: 2.0}, 1e-1) is None
    assert measure_proxies.loss_at({1e-3: 1.0, 1e-2: 2.0}, 1e-2) == pytest.approx(2.0)
    assert measure_proxies.loss_at({1e-3: 1.0, 1e-2: 2.0}, 10**-2.5) == pytest.approx(1.5)


def test_the_page_of_the_searches_has_what_the_committed_surfaces_say_of_proxies():
    section = measure_proxies.section(surface_tables.load())
    page = (rule_tables.ROOT / "docs" / "tuner.md").read_text(encoding="utf-8")
    assert section in page
    models = measure_proxies.models(surface_tables.load())
    assert models in page and "| lora | abacus-middle r8 | abacus-large r8 | " in models
    assert [line.split(" | ")[0] for line in section.splitlines()[2:]] == [
        f"| {name}" for name in measure_proxies.NAMES.values()
    ]
