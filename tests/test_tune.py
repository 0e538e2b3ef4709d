"""`welltuned tune`: the study it writes, what it refuses, and one tuning from the command line to the adapter."""

import dataclasses
import itertools
import json
import math

import pytest

import synthetic
from small_study import SITES
from welltuned import transfer
from welltuned.cli import _tuned, main
from welltuned.cli import tune as verb
from welltuned.cli.tune import parse_budget
from welltuned.errors import InputError
from welltuned.records import Role, Status
from welltuned.study import Options, Study, tune, tune_spec
from welltuned.study.options import silent
from welltuned.study.tune_spec import Budget, Request

REQUEST = Request(
    base="abacus-small",
    task="abacus",
    data_train=(),
    num_train=512,
    num_validation=32,
    num_test=8,
    budget=Budget(runs=10.0),
)


def request(**changes) -> Request:
    return Request(**(vars(REQUEST) | changes))


def composed(asked: Request = REQUEST):
    return tune_spec.direct(asked, tune_spec.draft(asked, asked.base, Options(), silent), Options(), silent)


def axes_of(spec) -> dict:
    return {name: tuple(values) for name, values in spec.axes.items()}


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5x", Budget(runs=5.0)),
        ("30m", Budget(seconds=1800.0)),
        ("2 h", Budget(seconds=7200.0)),
        ("300k", Budget(tokens=3e5)),
        ("5M", Budget(tokens=5e6)),
    ],
)
def test_a_budget_is_runs_time_or_tokens(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "x", "-3x", "0x", "5 weeks", "1e3x"])
def test_any_other_budget_is_refused_with_examples(text):
    with pytest.raises(InputError, match=r'--budget: got .*, expected "16x" .*; write --budget 16x'):
        parse_budget(text)


def test_batch_sizes_leave_enough_steps():
    spec = composed()
    assert axes_of(spec)["batch_size"] == (4, 8, 16)  # 512 rows: 32 steps of 16


def test_learning_rates_reach_beyond_the_prior_on_both_sides():
    rates = tune_spec.rates_of_prior(64, "lora", (4, 16), (4, 16), 512)
    logs = [math.log2(rate) for rate in rates]
    steps = [later - earlier for earlier, later in itertools.pairwise(logs)]
    assert steps == pytest.approx([0.5] * len(steps), abs=0.02)
    for rank, batch_size in itertools.product((4, 16), (4, 16)):
        prior = transfer.prior(64, "lora", rank, "r", batch_size, 512)
        reach = max(tune_spec.LEAST_OCTAVES, 2 * prior.sd_octaves)
        assert logs[0] <= prior.centre_log2 - reach and logs[-1] >= prior.centre_log2 + reach


def test_ranks_are_those_asked_for_else_up_to_half_of_the_smallest_site():
    assert axes_of(composed())["rank"] == (4, 16)
    assert composed(request(ranks=(8,))).train.rank == 8


def test_the_budget_holds_the_reruns_too():
    large, small = (composed(request(budget=Budget(runs=runs))) for runs in (10.0, 5.0))
    assert (large.search.budget, large.search.fresh_seeds) == (8.0, 2)
    assert (small.search.budget, small.search.fresh_seeds) == (4.0, 1)
    assert (tune.budget_of(large), tune.budget_of(small)) == (10.0, 5.0)


def test_tokens_are_counted_in_full_trials():
    by_runs = composed()
    # rows of a full trial: 512 for training, and one validation of 32
    survey_tokens = 10 * (512 + 32) * mean_tokens()
    by_tokens = composed(request(budget=Budget(tokens=survey_tokens)))
    assert by_tokens.search.budget == pytest.approx(by_runs.search.budget, abs=0.01)


def test_time_is_counted_by_a_short_pack_of_the_model_itself(monkeypatch):
    rate = 1000.0  # real tokens per second
    monkeypatch.setattr(tune_spec, "own_rate", lambda config, survey, options, observe: rate)
    training = 512 * mean_tokens() / rate
    spec = composed(request(budget=Budget(seconds=20 * training)))
    # Reading the 32 rows of validation, and before the first step, takes between a third and a half of training on 64.
    assert 20 / (1 + 64 / 512 / 2) < tune.budget_of(spec) < 20 / (1 + 64 / 512 / 3)


def test_the_plan_says_what_it_takes_and_a_time_is_not_turned_round(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tune_spec, "own_rate", lambda config, survey, options, observe: 1000.0)
    arguments = ["tune", "--model", "abacus-small", "--num-train", "512", "--plan-only", "--folder"]
    for number, (budget, says) in enumerate({"10m": "time: 10 min 00 s in all", "8x": "time: about "}.items()):
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*arguments, str(tmp_path / str(number)), "--budget", budget])
        shown = capsys.readouterr().out
        assert says in shown and "memory: about " in shown


def mean_tokens() -> float:
    from welltuned.study.surveys import preview

    (survey,) = preview(composed()).surveys.values()
    return survey.mean_tokens


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"budget": Budget(runs=2.0)},
            r"--budget: got '?2x, which is 2 full trials'?, expected at least 3 full trials",
        ),
        ({"num_train": 100}, r"--num-train: got 100, expected at least 128 rows"),
        ({"base": "abacus-tiny"}, "base"),
    ],
)
def test_what_cannot_be_tuned_is_refused_and_leaves_nothing(changes, says, tmp_path):
    with pytest.raises(InputError, match=says):
        tune.prepare(request(**changes), tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_the_same_request_goes_on_and_another_is_refused(tmp_path):
    first = tune.prepare(REQUEST, tmp_path / "out", Options())
    again = tune.prepare(REQUEST, tmp_path / "out", Options())
    assert first.spec.hash() == again.spec.hash()
    with pytest.raises(InputError, match=r"num_train 1024 instead of 512.*name another --folder"):
        tune.prepare(request(num_train=1024), tmp_path / "out", Options())


def test_a_request_with_a_proxy_is_refused_where_one_without_began(tmp_path):
    tune.prepare(REQUEST, tmp_path / "out", Options())
    began = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    asked = request(base="abacus-middle", proxy="abacus-small")
    with pytest.raises(InputError, match=r"base abacus-middle instead of abacus-small, proxy abacus-small instead of"):
        tune.prepare(asked, tmp_path / "out", Options())
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == began


@pytest.mark.parametrize(("method", "rank"), [("vera", 4), ("boft", 4), ("randlora", 4), ("full", 0)])
def test_a_proxy_whose_learning_rate_no_rule_can_move_is_refused(method, rank):
    asked = request(base="abacus-middle", proxy="abacus-small", method=method)
    config = synthetic.CONFIG.replace(method=method, rank=rank, num_train=512)
    target, smaller = (
        tune_spec.Draft(None, config, dataclasses.replace(synthetic.SURVEY, hidden_size=width)) for width in (128, 64)
    )
    says = rf"--proxy: got method '{method}', expected one whose learning rate the rules can move .*; leave out --proxy"
    with pytest.raises(InputError, match=says):
        tune._check_movable(asked, target, smaller)
    tune._check_movable(asked, *(dataclasses.replace(draft, config=lora_of(draft)) for draft in (target, smaller)))


def lora_of(draft):
    return draft.config.replace(method="lora", rank=4)


def test_what_must_fail_after_the_proxy_is_refused_before_it_is_tuned(tmp_path):
    asked = request(base="abacus-middle", proxy="abacus-small", ranks=(4,), budget=Budget(runs=3.5))
    says = (
        r"--budget: got '3.5x, which is 3.5 full trials', expected at least 4 full trials' worth: the proxy's, and 2 of"
    )
    with pytest.raises(InputError, match=says + r".*; raise it, or lower --num-train, or leave out --proxy"):
        tune.prepare(asked, tmp_path / "out", Options())
    with pytest.raises(InputError, match="leave out --proxy, or choose another --method"):
        tune.prepare(dataclasses.replace(asked, method="vera", ranks=None), tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_a_method_that_refuses_rank_1_is_tuned_at_ranks_that_it_accepts():
    assert axes_of(composed(request(method="gralora")))["rank"] == (4, 16)


def test_ranks_that_a_method_refuses_are_not_offered():
    site = dataclasses.replace(SITES[0], num_out=64, num_in=72)  # BOFT: twice the rank divides the inputs
    survey = dataclasses.replace(synthetic.SURVEY, sites=(site,))
    assert tune_spec._offered(request(method="boft"), survey) == (4,)
    assert tune_spec._offered(request(method="lora"), survey) == (4, 16)
    narrow = dataclasses.replace(survey, sites=(dataclasses.replace(site, num_in=12),))
    assert tune_spec._offered(request(method="boft"), narrow) == (6,)
    assert tune_spec._offered(request(method="boft", ranks=(8,)), narrow) == (8,)  # asked for: the plan refuses it


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Tune once on the command line, in a folder that all tests below read."""
    folder = tmp_path_factory.mktemp("tune") / "out"
    arguments = ["tune", "--model", "abacus-small", "--budget", "6x", "--num-train", "256", "--rank", "8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder.parent / "state"))
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--folder", str(folder)])
    assert left.value.code == 0
    return folder, arguments


def test_it_says_what_it_chose_and_keeps_to_the_budget(tuned):
    folder, _ = tuned
    facts = json.loads((folder / "tuned.json").read_text())
    assert facts["batch_size"] in (4, 8) and facts["rank"] == 8
    assert facts["spent_runs"] <= 6.0 + 1e-6
    assert facts["belief"]["low_nll"] < facts["belief"]["expected_nll"] < facts["belief"]["high_nll"]
    assert facts["belief"]["expected_nll"] < facts["base_nll"]
    assert len(facts["fresh_nll"]) == 1


def test_it_never_reads_test_data(tuned):
    from welltuned.store import Store

    folder, _ = tuned
    with Store.open(folder / "study") as store:
        assert store.num_test_reads() == 0
        assert all(result.test_correct is None for result in store.results())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_it_hands_over_an_adapter_that_peft_loads(tuned):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from welltuned import fingerprint

    folder, _ = tuned
    base = AutoModelForCausalLM.from_pretrained(fingerprint.resolve_base("abacus-small", None).folder)
    assert PeftModel.from_pretrained(base, folder / "adapter").peft_config["default"].r == 8
    assert (folder / "settings" / "trl.yaml").is_file()
    assert (folder / "study" / "report" / "report.html").is_file()


def test_called_again_it_trains_nothing_and_says_the_same(tuned, capsys, monkeypatch):
    folder, arguments = tuned
    before = (folder / "tuned.json").read_text()
    monkeypatch.setenv("XDG_STATE_HOME", str(folder.parent / "state"))
    with pytest.raises(SystemExit):
        main([*arguments, "--folder", str(folder)])
    assert (folder / "tuned.json").read_text() == before
    shown = capsys.readouterr().out
    for words in ("learning rate", "full trials' worth", "on fresh seeds", "elsewhere", "adapter"):
        assert words in shown


def test_where_all_reruns_diverge_the_choice_s_own_trial_is_handed_over_and_it_is_said(tuned):
    results = Study(tuned[0] / "study").results()
    own = next(one for one in results if one.role is Role.SELECT and one.adapter)
    found = dataclasses.replace(diverged(tuned[0]), config=own.config)
    said = _tuned.tuned_text(found)
    assert "All reruns of the choice on fresh seeds diverged: do not rely on it" in said and "NaN" not in said
    trial_id, whose = verb._trial_of_choice(found, results)
    assert (trial_id, whose.split(",")[0]) == (own.trial_id, "the choice's own")


def test_without_any_adapter_of_the_choice_the_settings_are_handed_over_with_the_reason(tuned, tmp_path, monkeypatch):
    found = diverged(tuned[0])
    without = tuple(
        dataclasses.replace(one, adapter=None, status=Status.DIVERGED, validation_nll=None, reason="loss is not finite")
        for one in Study(tuned[0] / "study").results()
    )
    monkeypatch.setattr(Study, "results", lambda self: without)
    monkeypatch.setattr(Study, "report", lambda self: tmp_path / "report.html")
    (tmp_path / "study").symlink_to(tuned[0] / "study")
    handed = verb._hand_over(tmp_path, found)
    assert (
        handed["adapter"].startswith("none (trial ") and "got status diverged (loss is not finite)" in handed["adapter"]
    )
    assert (tmp_path / "settings" / "trl.yaml").is_file()
    assert "without an adapter" in handed["trial"]


def diverged(folder):
    """What tuning found there, had the reruns diverged."""
    facts = json.loads((folder / "request.json").read_text())
    asked = Request(**(facts | {"budget": Budget(**facts["budget"]), "ranks": tuple(facts["ranks"]), "data_train": ()}))
    found = tune.run(asked, tune.prepare(asked, folder, Options()), Options())
    changes = {"adapter": None, "status": Status.DIVERGED, "validation_nll": None}
    return dataclasses.replace(found, reruns=tuple(dataclasses.replace(one, **changes) for one in found.reruns))


def test_a_proxy_decides_the_batch_size_and_where_the_target_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    asked = request(base="abacus-middle", proxy="abacus-small", num_train=128, ranks=(4,), budget=Budget(runs=4.0))
    notes = []
    first = tune.prepare(asked, tmp_path / "out", Options())
    assert (first.name, first.spec.model.base, first.spec.train.rank) == ("proxy", "abacus-small", 4)
    tuned = tune.run(asked, first, Options(), notes.append)
    target = tune.Spec.load(tmp_path / "out" / "study.toml")
    moved = tuned.moved
    assert moved is not None and target.model.base == tuned.config.base == "abacus-middle"
    assert axes_of(target)["batch_size"] == (moved.setting.batch_size,)
    rates = axes_of(target)["learning_rate"]
    assert rates[0] <= moved.low / 1.9 and rates[-1] >= moved.high * 1.9  # an octave beyond either end
    assert tuned.num_runs <= 4.0 + 1e-6
    again = tune.run(asked, tune.prepare(asked, tmp_path / "out", Options()), Options(), notes.append)
    assert again.belief == tuned.belief


def test_a_proxy_that_costs_as_much_as_the_target_is_refused(tmp_path):
    asked = request(base="abacus-small", proxy="abacus-large", budget=Budget(runs=4.0))
    with pytest.raises(
        InputError, match=r"--proxy: got 'abacus-large', expected a base whose full trials cost a small part"
    ):
        tune.prepare(asked, tmp_path / "out", Options())
