"""Looking on while a study runs: what is read, how it reads, when it is drawn or built again, and when it ends."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import a_config
from small_study import TEXT
from test_cli import call, environment
from welltuned import report
from welltuned.cli import _standing, _watch
from welltuned.cli import report as report_verb
from welltuned.cli import show as show_verb
from welltuned.errors import InputError
from welltuned.records import JobEnd, Outcome, Point, Role, Status, TrainJob, Trial
from welltuned.spec import Spec
from welltuned.store import Store

RATES = (1e-3, 1e-2)
TRIALS = [
    Trial(a_config.CONFIG.replace(method=method, learning_rate=rate), Role.SELECT)
    for method in ("lora", "pissa")
    for rate in RATES
]
FIRST, SECOND = TrainJob("first", tuple(TRIALS[:2]), 4), TrainJob("second", tuple(TRIALS[2:]), 4)


@pytest.fixture
def store(tmp_path):
    """Run a study of two cells, two rates and two packs, the first of which has begun."""
    spec = Spec.parse(TEXT)
    with Store.create(tmp_path / "study", "small", spec.text(), spec.hash()) as store:
        store.settle("cell", json.dumps(["method"]))
        store.add_jobs([FIRST, SECOND])
        yield store


def end(store: Store, job: TrainJob, *nlls: float, seconds: float = 10.0) -> None:
    for trial, nll in zip(job.trials, nlls, strict=True):
        store.append(
            Outcome(trial.id, Status.FINISHED, "", 8, 64, 500, seconds, 2 * seconds, 0.0, nll, None, (0.1,), 128),
            job.id,
        )
    store.append(JobEnd(job.id, 2 * seconds, 1, "{}"), job.id)


def drawn(picture) -> str:
    page = io.StringIO()
    Console(file=page, width=200).print(picture)
    return page.getvalue()


def standing_in(store: Store) -> _standing.Standing:
    with Store.open(store.folder) as reader:
        return _standing.read(reader)


def test_the_standing_counts_what_is_trained_what_is_left_and_what_it_takes(store):
    before = standing_in(store)
    assert (before.num_ended, before.num_planned, before.num_under_way) == (0, 4 + 2 * 2, 0.0)
    assert before.left_seconds is None and before.tokens_per_second is None
    end(store, FIRST, 0.5, 0.4)
    store.append(Point(TRIALS[2].id, 4, 32, 640, 1e-3, 0.7, 2.0), "second")  # of the 64 / 8 steps
    after = standing_in(store)
    assert (after.num_ended, after.num_under_way, after.doing) == (2, 0.5, "training 2 trials together")
    assert after.seconds_per_trial == 10.0 and after.tokens_per_second == 50.0
    assert after.left_seconds == 10.0 * (8 - 2.5)
    assert list(after.selection.values()) == [(2, 2), (0, 2)]


def test_a_standing_reads_as_a_line_and_a_table_with_the_best_so_far(store):
    end(store, FIRST, 0.5, 0.4)
    state, cells = _standing.lines(standing_in(store), quiet_seconds=75.0)
    assert state == (
        "2/8 trials, 1 job of 2 done, 50 tokens/s, about 1 min 00 s left, training 2 trials together, "
        "nothing new for 1 min 15 s"
    )
    assert re.search(r"^\* +lora +2/2 +1e-2 +\(0\.4000\) +0$", cells, re.MULTILINE)
    assert re.search(r"^ +pissa +0/2 +– +– +0$", cells, re.MULTILINE)


def test_before_its_plan_a_study_says_what_it_does(tmp_path):
    spec = Spec.parse(TEXT)
    with Store.create(tmp_path / "study", "small", spec.text(), spec.hash()) as store:
        assert "looking at the base and its data" in drawn(_standing.picture(standing_in(store)))


def test_a_poll_sees_growth_and_the_last_one_sees_the_end(store):
    steps = iter([lambda: None, lambda: end(store, FIRST, 0.5, 0.4), lambda: store.settle("finished", "yes")])
    found = list(_watch.polls(store.folder, lambda seconds: next(steps)()))
    assert [poll.changed for poll in found] == [True, False, True, True]
    assert [poll.last for poll in found] == [False, False, False, True] and found[-1].finished
    assert _watch.ending(found[-1], store.folder) == "the study is finished"


def test_a_study_that_nobody_runs_is_not_waited_for(tmp_path):
    spec = Spec.parse(TEXT)
    store = Store.create(tmp_path / "study", "small", spec.text(), spec.hash())
    found = list(_watch.polls(store.folder, lambda seconds: store.close()))
    assert [(poll.running, poll.last) for poll in found] == [(True, False), (False, True)]
    assert "no process runs the study now; welltuned run" in _watch.ending(found[-1], store.folder)


def test_a_killed_process_does_not_run_its_study(store):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert store.holder() == os.getpid()
    (store.folder / "study.lock").write_text(f"{process.pid}\n")
    assert store.holder() is None


def test_a_reader_sees_one_moment_of_a_growing_study(store):
    with Store.open(store.folder) as reader:
        end(store, FIRST, 0.5, 0.4)
        assert reader.results() == () and len(store.results()) == 2
    assert len(standing_in(store).rows) == 1


def test_the_view_is_drawn_at_every_poll_and_ends_with_the_study(store):
    now, pictures = [0.0], []
    steps = iter([lambda: None, lambda: end(store, FIRST, 0.5, 0.4), lambda: store.settle("finished", "yes")])

    def sleep(seconds):
        now[0] += 70.0
        next(steps)()

    show_verb.follow(store.folder, lambda picture: pictures.append(drawn(picture)), lambda: now[0], sleep)
    assert ["nothing new for 1 min 10 s" in text for text in pictures] == [False, True, False]
    assert "0/8 trials" in pictures[1] and "2/8 trials" in pictures[2] and "(0.4000)" in pictures[2]


def test_the_report_is_built_on_growth_not_too_often_and_once_more_at_the_end(store):
    now, built = [0.0], []
    steps = iter(
        [
            (1.0, lambda: end(store, FIRST, 0.5, 0.4)),  # grown, too early
            (20.0, lambda: None),
            (10.0, lambda: None),  # due by now
            (40.0, lambda: None),  # due, not grown
            (1.0, lambda: store.settle("finished", "yes")),
        ]
    )

    def sleep(seconds):
        passed, happen = next(steps)
        now[0] += passed
        happen()

    reason = report_verb.rebuild(store.folder, lambda: built.append(now[0]), lambda: now[0], sleep)
    assert built == [0.0, 31.0, 72.0] and reason == "the study is finished"


@pytest.mark.parametrize("arguments", [("show",), ("show", "--once"), ("report", "--watch")])
def test_a_wrong_folder_is_refused(arguments, tmp_path, capsys):
    verb, *rest = arguments
    assert call(verb, str(tmp_path / "nope"), *rest) == 2
    error = capsys.readouterr().err
    assert "expected a folder with a study.db" in error and "check the path, or run a study first" in error


def test_polling_a_folder_that_is_gone_raises(tmp_path):
    with pytest.raises(InputError, match=r"expected a folder with a study\.db"):
        next(_watch.polls(Path(tmp_path), lambda seconds: None))


def test_without_a_terminal_a_running_study_is_printed_once(store, capsys):
    end(store, FIRST, 0.5, 0.4)
    assert call("show", str(store.folder)) == 0
    assert "2 of 4 trials known so far have ended" in capsys.readouterr().out


def test_ctrl_c_ends_the_watching_with_a_line_and_130(store, capsys, monkeypatch):
    def interrupted(results, declaration, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "build", interrupted)
    assert call("report", str(store.folder), "--watch") == 130
    assert capsys.readouterr().err.splitlines() == [
        "no longer watched; the study itself goes on, and the page is as it was built last"
    ]


def test_ctrl_c_on_a_terminal_ends_the_view_and_not_the_study(store):
    end(store, FIRST, 0.5, 0.4)
    master, slave = pty.openpty()
    code = "import sys; from welltuned import cli; cli.main(sys.argv[1:])"
    arguments = [sys.executable, "-c", code, "show", str(store.folder)]
    with subprocess.Popen(
        arguments, stdout=slave, stdin=slave, env=environment(TERM="xterm", COLUMNS="150"), start_new_session=True
    ) as process:
        os.close(slave)
        shown = _read(master, until="2/8 trials")
        process.send_signal(2)
        shown += _read(master, until="call it again to look on")
        assert process.wait(timeout=60) == 130
    os.close(master)
    assert "2 of 4 trials known so far have ended" in shown and "Traceback" not in shown


def _read(terminal: int, until: str) -> str:
    text = ""
    while until not in text:
        ready, _, _ = select.select([terminal], [], [], 300)
        assert ready, f"no {until!r} in {text!r}"
        text += os.read(terminal, 65536).decode(errors="replace")
    return text


def test_libraries_draw_no_bars_across_the_programs_own():
    """As transformers would while it converts a GGUF file."""
    code = "import welltuned.cli as c\ntry:\n    c.main(['--version'])\nexcept SystemExit:\n    pass\n"
    code += "from tqdm.auto import tqdm\nfor _ in tqdm(range(3), desc='Converting'):\n    pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stderr == ""
