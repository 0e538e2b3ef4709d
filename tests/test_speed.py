"""The speed that a plan's time rests on: measured once for a machine, within a bounded time, and said on the screen."""

import importlib.metadata
import time

import pytest

import synthetic
from small_study import TEXT
from welltuned import cli
from welltuned.executors import inline
from welltuned.executors.machine import cache_folder
from welltuned.plan_cost import Speed
from welltuned.records import JobLost, Survey, SurveyJob
from welltuned.study import Note, Options, speed

QUICK = Options(threads=1, memory_bytes=2**31, entry="fake_worker:run")
BUSY = Options(threads=1, memory_bytes=2**31, entry="slow_worker:run")


def files():
    return sorted((cache_folder() / "speeds").glob("*.json"))


def test_a_speed_is_measured_once_and_said(monkeypatch):
    monkeypatch.setattr(speed, "MOST_SECONDS", 900.0)  # this machine may be busy
    said = []
    first = speed.speed(QUICK, "float32", said.append)
    assert [note.text for note in said] == ["measuring once how fast this machine trains in float32 (at most 900 s)"]
    assert first.is_measured and first.flops_per_second > 0 and len(files()) == 1
    monkeypatch.setattr(speed, "_measure", lambda *arguments: pytest.fail("it was measured already"))
    assert speed.speed(QUICK, "float32", said.append) == first and len(said) == 1


def test_another_torch_precision_or_number_of_threads_is_measured_anew(monkeypatch):
    counted = []
    monkeypatch.setattr(speed, "_measure", lambda *arguments: counted.append(1) or Speed(1e9, 0.0))
    for _ in range(2):
        speed.speed(QUICK, "float32")
        speed.speed(QUICK, "bfloat16")
        speed.speed(Options(threads=2, entry=QUICK.entry), "float32")
    assert len(counted) == 3
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == "torch" else version(name))
    speed.speed(QUICK, "float32")
    assert len(counted) == 4


def test_a_busy_machine_is_not_waited_for_and_its_speed_is_assumed_and_not_kept(monkeypatch):
    monkeypatch.setattr(speed, "MOST_SECONDS", 2.0)
    said = []
    began = time.monotonic()
    assert speed.speed(BUSY, "float32", said.append) == speed.ASSUMED
    assert time.monotonic() - began < 600  # the worker would have slept for an hour
    assert not speed.ASSUMED.is_measured and files() == []
    assert said[-1] == Note(
        "not measured within 2 s, so the speed of two cores is assumed for the time below; plan again when this "
        "machine is less busy"
    )


def test_a_job_at_its_deadline_is_lost_and_its_worker_ended():
    with inline.Inline(BUSY.runtime("", 1), BUSY.entry) as executor:
        trial_job = speed.packing.make_job([speed.Trial(config, speed.Role.SELECT) for config in configs()], 4)
        assert list(executor.run(trial_job, time.monotonic() + 1.0)) == [JobLost(trial_job.id, inline.LATE)]
        assert executor.process_id is None


def configs():
    return speed._configs("abacus-small", "float32")


def test_a_plan_says_that_its_time_is_assumed(tmp_path, monkeypatch, capsys):
    (tmp_path / "small.toml").write_text(TEXT)
    monkeypatch.setattr(speed, "speed", lambda options, dtype, observe: speed.ASSUMED)
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["plan", str(tmp_path / "small.toml"), "--folder", str(tmp_path / "none"), "--threads", "1"])
    assert "(assumed for two cores, not measured)" in " ".join(capsys.readouterr().out.split())


def test_a_model_of_ones_own_is_timed_by_a_short_pack_of_it_and_never_assumed(monkeypatch):
    (config,) = configs()[:1]
    with inline.Inline(QUICK.runtime("", 1), QUICK.entry) as executor:
        (survey,) = (event for event in executor.run(SurveyJob("one", config)) if isinstance(event, Survey))
    asked, said = [], []
    ran = inline.Inline.run
    monkeypatch.setattr(inline.Inline, "run", lambda self, job, deadline=None: asked.append(job) or ran(self, job))
    monkeypatch.setattr(speed, "speed", lambda *arguments: pytest.fail("no bundled base is timed for it"))
    assert speed.own_rate(config, survey, QUICK, said.append) > 0
    assert {trial.config.base for job in asked for trial in job.trials} == {config.base}
    assert [note.text for note in said] == [
        f"timing two short packs of {config.base}, to say how many trials the time allows"
    ]


def test_the_rate_is_that_of_the_steps_that_the_longer_pack_has_more(monkeypatch):
    (config,) = configs()[:1]
    survey = synthetic.SURVEY
    monkeypatch.setattr(speed.packing, "pack", lambda trials, *rest: (speed.packing.make_job(trials, 4),))
    took = {1: (20.0, 1_000), 6: (45.0, 6_000)}  # seconds and tokens by optimizer steps; 15 s are for what happens once

    def trained(executor, pack, deadline):
        assert deadline is None and len(pack.trials) == 2
        return speed._Trained(*took[pack.trials[0].config.max_steps])

    monkeypatch.setattr(speed, "_trained", trained)
    assert speed.own_rate(config, survey, QUICK) == (6_000 - 1_000) / (45.0 - 20.0)
    took[1] = (50.0, 1_000)  # the machine was busy with something else
    assert speed.own_rate(config, survey, QUICK) == 6_000 / 45.0
