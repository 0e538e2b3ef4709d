"""Recording surfaces: a manifest that is frozen, studies made of it, and what is trained on more than one seed."""

import pytest
from scripts import fidelities, record_surfaces, surface_search, surface_tables
from scripts.record_surfaces import Recording

import planted_surface as planted
from small_study import forge_hashes, graded, result_of
from welltuned.records import Role, Status, Trial
from welltuned.spec import Spec


@pytest.fixture(scope="module")
def manifest():
    return record_surfaces.frozen()


@pytest.fixture
def frozen_folder(tmp_path):
    for name in ("surfaces/manifest.toml", "surfaces/frozen.sha256", "scripts/surface_search.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((record_surfaces.ROOT / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["surfaces/manifest.toml", "scripts/surface_search.py"])
def test_a_manifest_or_a_search_that_was_changed_is_refused(frozen_folder, name):
    assert record_surfaces.frozen(frozen_folder)
    with (frozen_folder / name).open("a") as file:
        file.write("\n")
    with pytest.raises(SystemExit, match="was committed with before the recording began; put the old file back"):
        record_surfaces.frozen(frozen_folder)


def test_every_recording_is_a_study_of_its_own_with_enough_steps(manifest):
    found = list(record_surfaces.recordings(manifest))
    assert len({recording.name for recording in found}) == len(found)
    for recording in found:
        spec = Spec.model_validate(record_surfaces.surface_study(manifest, recording, 0.01))
        assert spec.method_names() == (recording.method,)
        assert max(recording.num_train) // max(recording.batch_size) >= 32
        assert min(recording.num_train) // max(recording.batch_size) >= 8


def test_development_surfaces_are_recorded_and_others_are_held_out(manifest):
    surfaces = {recording.surface for recording in record_surfaces.recordings(manifest)}
    assert set(manifest["development"]) < surfaces
    assert record_surfaces.split(manifest, "abacus-small r8 milora") == "held out"
    assert record_surfaces.split(manifest, "abacus-small full") == "development"


def test_a_method_without_a_rank_is_recorded_once_for_each_base_and_size(manifest):
    full = [recording for recording in record_surfaces.recordings(manifest) if recording.method == "full"]
    assert {recording.rank for recording in full} == {None}
    assert len({(recording.base, recording.num_train) for recording in full}) == len(full)


def test_all_methods_have_the_same_span_of_learning_rates(manifest):
    for centre in (1e-3, 0.0123, 0.2):
        rates = record_surfaces.rates(manifest["rates"], centre)
        assert len(rates) == 9 and rates[-1] / rates[0] == pytest.approx(256)
        assert 2**-0.5 <= rates[4] / centre <= 2**0.5
    assert record_surfaces.rates(manifest["rates"], 0.0123)[4] == 0.01


def probed(losses):
    (config,) = planted.plan().arms[0].configs[:1]
    rates = [1e-4 * 4**k for k in range(len(losses))]
    return [
        result_of(
            Trial(config.replace(learning_rate=rate), Role.SELECT),
            loss,
            Status.FINISHED if loss is not None else Status.DIVERGED,
        )
        for rate, loss in zip(rates, losses, strict=True)
    ]


def test_the_centre_is_the_vertex_of_the_parabola_through_three(monkeypatch):
    forge_hashes(monkeypatch)
    parabola = [0.5 + 0.1 * (k - 2.3) ** 2 for k in range(5)]
    assert record_surfaces.centre_of(probed(parabola), "lora") == pytest.approx(1e-4 * 4**2.3)


@pytest.mark.parametrize(("losses", "place"), [([0.9, 0.5, None, None], 1), ([0.4, 0.5, 0.9, None], 0)])
def test_the_centre_is_the_best_itself_beside_an_edge_or_a_divergence(monkeypatch, losses, place):
    forge_hashes(monkeypatch)
    assert record_surfaces.centre_of(probed(losses), "lora") == pytest.approx(1e-4 * 4**place)


def test_more_seeds_are_trained_within_four_times_the_best_then_one_finalist_is_graded(monkeypatch):
    forge_hashes(monkeypatch)
    plan = planted.plan(seeds=3, fresh_seeds=2)
    results, asked = [], []
    while not (proposal := surface_search.SEARCH.propose(plan, results)).finished:
        asked.append(proposal)
        results += [planted.result(t.config) for t in proposal.trials if t.role is Role.SELECT]
        results += [result_of(t, 0.5) for t in proposal.trials if t.role is Role.CONFIRM]
        exams = {trial.id for trial in proposal.exams}
        results = [graded(r) if r.trial_id in exams else r for r in results]
    first, more, reruns, exams = asked
    assert {trial.config.init_seed for trial in first.trials} == {0}
    assert len(first.trials) == len(planted.RATES) * len(planted.BATCHES)
    assert {trial.config.init_seed for trial in more.trials} == {1, 2}
    # The planted best at batch 4 is the fourth learning rate: two on either side are within a factor of 4.
    rates = sorted({trial.config.learning_rate for trial in more.trials if trial.config.batch_size == 4})
    assert rates == planted.RATES[1:6]
    assert [trial.config.init_seed for trial in reruns.trials] == [1000, 1001]
    best = reruns.trials[0].config
    assert (best.batch_size, best.learning_rate) == (4, planted.RATES[3])
    assert {trial.id for trial in exams.exams} == {trial.id for trial in reruns.trials}


def test_a_recording_has_the_name_of_its_surface():
    recording = Recording("abacus-small", 8, "lora", (256, 1024), (4,))
    assert (recording.surface, recording.name) == ("abacus-small r8 lora", "abacus-small-r8-lora-n1024")
    assert Recording("abacus-small", None, "full", (256,), (4,)).surface == "abacus-small full"


def test_what_is_among_the_committed_tables_is_not_recorded_again(monkeypatch, tmp_path, capsys, manifest):
    ran = []
    monkeypatch.setattr(record_surfaces.welltuned, "run", lambda spec, folder, options: ran.append(folder.name))
    committed = [one for one in record_surfaces.recordings(manifest) if record_surfaces.committed(one.name).exists()]
    assert committed, "the repository has tables"
    monkeypatch.setattr(record_surfaces, "recordings", lambda manifest: committed)
    record_surfaces.record(manifest, tmp_path, 1)
    record_surfaces.status(manifest, tmp_path)
    assert not ran
    assert capsys.readouterr().out.count(" committed\n") == len(committed)


def test_a_stopped_run_and_a_probe_are_ranked_against_the_full_runs():
    for surface in surface_tables.load():
        found = {one.kind: one for one in fidelities.rankings(surface)}
        stopped = {"stopped at 0.25", "stopped at 0.5", "stopped at 0.75"}
        has_probes = len(surface.recording.num_train) > 1
        assert set(found) == stopped | ({"probe of 0.25"} if has_probes else set())
        assert all(abs(one.correlation) <= 1 and one.regret >= 0 and one.num_pairs >= 10 for one in found.values())
        lines = fidelities.section([surface]).splitlines()
        for kind, one in found.items():
            assert f"{one.correlation:.2f}" in next(line for line in lines if kind in line)
    runs = list(fidelities._full(surface).values())
    itself = [(run.validation_nll, run) for run in runs]
    (perfect,) = fidelities._ranking(surface, "the run itself", itself)
    assert (perfect.correlation, perfect.correlation_best, perfect.regret) == pytest.approx((1, 1, 0))


def test_a_recording_may_be_taken_before_its_turn(manifest, monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(record_surfaces, "_centre", lambda *given: 1e-2)
    monkeypatch.setattr(record_surfaces, "_run", lambda study, runs, threads: ran.append(study["name"]) or True)
    record_surfaces.record(manifest, tmp_path, 1, ["abacus-large-r8-pissa-n1024"])
    assert ran == ["abacus-large-r8-pissa-n1024"]
    with pytest.raises(SystemExit, match=r"--only: got abacus-large-r9, expected names as surfaces/README.md has them"):
        record_surfaces.record(manifest, tmp_path, 1, ["abacus-large-r9"])
