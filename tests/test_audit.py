"""What an audit finds: planted faults are found, sound tables pass, and the arithmetic equals plain references."""

import csv
import html
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from welltuned import cli
from welltuned.analysis import claims
from welltuned.analysis.grid import means
from welltuned.analysis.runs import Run, Table
from welltuned.audit import Request, audit, content, files, markdown, noise, selection, webpage
from welltuned.audit.assemble import of_book
from welltuned.audit.conclusions import Standing, conclusions
from welltuned.audit.records import Book, Entry, Side
from welltuned.audit.tuned import tuned
from welltuned.errors import InputError

RATES, BATCHES, RANKS = (1e-4, 1e-3, 1e-2), (4, 16, 64), (8, 32)


def book_of(runs: list[Run], metric="loss", higher=False, share=False) -> Book:
    """Make a book of runs as a table would give them."""
    side = Side(tuple(Entry(run, f"line {n}") for n, run in enumerate(runs, 2)), metric, higher, share)
    return Book("planted", side, side, frozenset(("learning_rate", "batch_size", "rank", "seed", "num_seeds")), ())


def of_runs(runs: list[Run]):
    return of_book(book_of(runs), Request())


def sweep(method: str, best: float, rates=RATES, batches=BATCHES, ranks=RANKS, seeds=3, sd=0.001, peak=1e-3, **fields):
    """A full grid with its best value at `peak`, batch 16: 10 % worse for each step away; seeds scatter by `sd`."""
    rng = np.random.default_rng(list(method.encode()))
    return [
        Run(
            method,
            best * (1 + 0.1 * abs(math.log10(rate / peak)) + 0.1 * abs(math.log2(batch / 16)) / 2 + 0.01 * (rank == 8))
            + sd * rng.standard_normal(),
            rate,
            batch,
            rank,
            str(seed),
            **fields,
        )
        for rate, batch, rank, seed in itertools.product(rates, batches, ranks, range(seeds))
    ]


def drawn(book: Book):
    return conclusions(book, tuned(book), "lora")


def kinds(found) -> set[str]:
    return {finding.kind for finding in found.findings}


def texts(found) -> str:
    return "\n".join(finding.text for finding in found.findings)


SOUND = sweep("lora", 1.0) + sweep("pissa", 0.9)


# The baseline ---------------------------------------------------------------------------------------------------------


def test_a_tuned_baseline_passes():
    found = of_runs(SOUND)
    assert "it passes" in found.verdict[0] and "baseline" not in kinds(found)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"rates": (1e-3,)}, "was given 1 learning rate, fewer than 3"),
        ({"batches": (16, 64)}, "was given 2 batch sizes, fewer than 3"),
        ({"ranks": (8,)}, "was given 1 rank, fewer than 2"),
    ],
)
def test_an_untuned_baseline_fails_and_the_knob_is_named(given, text):
    found = of_runs(sweep("lora", 1.0, **given) + sweep("pissa", 0.9))
    assert text in texts(found) and "it passes" not in found.verdict[0]
    says_little = "comparisons in this table say little about the methods" in found.verdict[0]
    assert says_little == ("rates" in given)


def test_what_the_table_does_not_say_neither_passes_nor_fails():
    runs = [Run("lora", 1.0, sd=0.01, num_seeds=3), Run("pissa", 0.9, sd=0.01, num_seeds=3)]
    found = of_runs(runs)
    assert "whether it passes is not said" in found.verdict[0]
    assert "Which learning rates the baseline lora was given is not said" in texts(found)
    assert found.conclusions[0].standing is Standing.CANNOT_TELL


def test_the_baseline_is_lora_in_any_case_and_must_exist():
    runs = [Run("LoRA", 1.0, 1e-3), Run("PiSSA", 0.9, 1e-3)]
    assert of_runs(runs).baseline == "LoRA"
    with pytest.raises(
        InputError, match="got \"no method called 'lora'\", expected one of a, b; write --baseline NAME"
    ):
        of_runs([Run("a", 1.0), Run("b", 0.9)])


# Unequal tuning, edges ------------------------------------------------------------------------------------------------


def test_more_configurations_than_the_baseline_are_told():
    found = of_runs(sweep("lora", 1.0, batches=(4, 16, 64)) + sweep("pissa", 0.9, batches=(2, 4, 16, 64)))
    assert "More configurations were tried than for the baseline lora (18): pissa (24)." in texts(found)
    assert "unequal tuning" not in kinds(of_runs(SOUND))


@pytest.mark.parametrize(("peak", "word"), [(1e-4, "lowest"), (1e-2, "highest")])
def test_a_best_rate_on_the_edge_is_found(peak, word):
    found = of_runs(sweep("lora", 1.0, peak=peak) + sweep("pissa", 0.9))
    assert f"The best learning rate is the {word} tried for lora: a better one may lie beyond." in texts(found)


def test_an_inner_best_rate_is_no_edge():
    assert "best learning rate is" not in texts(of_runs(SOUND))


def test_an_edge_is_looked_for_at_the_best_batch_size():
    """Rates that only another batch size was given do not enclose the best one."""
    runs = [Run("lora", 1.0, 1e-3, 4), Run("lora", 0.9, 2e-3, 4), Run("lora", 1.2, 1e-1, 64), Run("lora", 1.3, 1, 64)]
    (row,) = of_runs(runs).tuned
    assert row.knob("learning_rate").edge == "high"


# Conclusions ----------------------------------------------------------------------------------------------------------


def standing(found, winner: str):
    (one,) = [one for one in found.conclusions if one.winner == winner]
    return one


def test_a_large_difference_to_a_tuned_baseline_survives():
    one = standing(of_runs(SOUND), "pissa")
    assert one.standing is Standing.SURVIVES
    assert one.scope == (
        "each at its best of batch sizes 4 to 64 and ranks 8 to 32",
        "pissa (learning rate 1e-3, batch size 16, rank 32) against lora (learning rate 1e-3, batch size 16, rank 32)",
    )
    assert one.difference == pytest.approx(0.1, abs=0.01)


def test_the_same_difference_to_an_untuned_baseline_cannot_be_told():
    one = standing(of_runs(sweep("lora", 1.0, rates=(1e-3,)) + sweep("pissa", 0.9)), "pissa")
    assert one.standing is Standing.CANNOT_TELL
    assert "lora was tuned over 1 learning rate, not at least 3" in one.reasons


def test_an_untuned_winner_needs_no_tuning():
    """It could only have won by more."""
    one = standing(of_runs(sweep("lora", 1.0) + sweep("pissa", 0.9, rates=(1e-3,))), "pissa")
    assert one.standing is Standing.SURVIVES


def test_a_loser_on_the_edge_or_with_fewer_ranks_cannot_be_judged():
    edge = standing(of_runs(sweep("lora", 1.0, peak=1e-2) + sweep("pissa", 0.9)), "pissa")
    assert "lora's best learning rate is the highest tried, a better one may lie beyond" in edge.reasons
    fewer = standing(of_runs(sweep("lora", 1.0, ranks=(32,)) + sweep("pissa", 0.9)), "pissa")
    assert fewer.standing is Standing.CANNOT_TELL and "lora was given 1 rank, pissa 2" in fewer.reasons


def test_a_difference_within_the_noise_does_not_survive():
    found = of_runs(sweep("lora", 1.0, sd=0.05) + sweep("pissa", 0.999, sd=0.05))
    (one,) = found.conclusions
    assert one.standing is Standing.DOES_NOT and one.reasons[0] == "within the noise"


def test_equal_methods_survive_in_few_tables():
    """80 tables of two equal, fully tuned methods: a conclusion survives in at most 5 % of them."""
    rng = np.random.default_rng(3)
    survived = 0
    for _ in range(80):
        runs = [
            Run(
                method,
                1 + 0.1 * abs(math.log10(rate / 1e-3)) + 0.01 * rng.standard_normal(),
                rate,
                batch,
                rank,
                str(seed),
            )
            for method in ("lora", "pissa")
            for rate, batch, rank, seed in itertools.product(RATES, (8, 16, 32), RANKS, range(2))
        ]
        survived += any(one.standing is Standing.SURVIVES for one in drawn(book_of(runs)))
    assert survived <= 4


def test_no_noise_and_no_seeds_is_told_and_nothing_survives():
    runs = [
        Run(method, value, rate, batch, rank)
        for method, value in (("lora", 1.0), ("pissa", 0.5))
        for rate, batch, rank in itertools.product(RATES, BATCHES, RANKS)
    ]
    runs = [
        run if run.learning_rate == 1e-3 else Run(run.method, 2.0, run.learning_rate, run.batch_size, run.rank)
        for run in runs
    ]
    found = of_runs(runs)
    assert "No noise can be computed for 1 comparison" in texts(found)
    assert "how much seeds matter is not said" in found.conclusions[0].reasons[0]
    assert "No noise can be computed" not in texts(of_runs(SOUND))


def test_a_spread_without_its_seeds_is_no_noise():
    found = of_runs([Run("lora", 1.0, sd=0.01), Run("pissa", 0.9, sd=0.01)])
    assert "a spread without its number of seeds" in " ".join(found.conclusions[0].reasons)


def test_repeats_of_one_seed_are_only_a_lower_bound():
    runs = [Run(run.method, run.value, run.learning_rate, run.batch_size, run.rank, "0") for run in SOUND]
    found = of_runs(runs)
    assert "carry one and the same seed" in texts(found)
    assert found.conclusions[0].standing is Standing.CANNOT_TELL
    assert found.conclusions[0].noise.high is None
    assert "carry one and the same seed" not in texts(of_runs(SOUND))


def test_the_best_is_also_compared_with_the_runner_up():
    found = of_runs([*SOUND, *sweep("milora", 0.95)])
    assert {(one.winner, one.loser) for one in found.conclusions} == {
        ("pissa", "lora"),
        ("milora", "lora"),
        ("pissa", "milora"),
    }


def test_problems_are_never_mixed():
    here, there = (("model", "a"),), (("model", "b"),)
    runs = [Run("lora", 1.0, problem=here), Run("pissa", 0.9, problem=here), Run("lora", 3.0, problem=there)]
    found = of_runs(runs)
    assert [one.problem for one in found.conclusions] == [here]
    assert len(found.tuned) == 3


# Noise, against plain references --------------------------------------------------------------------------------------


def two_means(ours, theirs, seeds=("0", "1", "2"), other_seeds=("7", "8", "9"), **fields):
    runs = [Run("a", value, seed=seed, **fields) for value, seed in zip(ours, seeds, strict=True)]
    runs += [Run("b", value, seed=seed, **fields) for value, seed in zip(theirs, other_seeds, strict=True)]
    return means(Table(tuple(runs), "accuracy", True))


SHARE = Side((), "accuracy", True, True)


def test_seed_noise_is_welchs_where_seeds_differ():
    ours, theirs = [0.5, 0.52, 0.49], [0.4, 0.46, 0.43]
    one, other = two_means(ours, theirs)
    found = noise.of_difference(one, other, [one, other], SHARE)
    reference = scipy.stats.ttest_ind(ours, theirs, equal_var=False)
    assert (one.value - other.value) / found.seeds == pytest.approx(reference.statistic, rel=1e-12)
    assert found.high_degrees == pytest.approx(reference.df, rel=1e-12)


def test_seed_noise_is_paired_where_seeds_are_the_same():
    ours, theirs = [0.5, 0.52, 0.49], [0.4, 0.46, 0.43]
    one, other = two_means(ours, theirs, other_seeds=("0", "1", "2"))
    found = noise.of_difference(one, other, [one, other], SHARE)
    reference = scipy.stats.ttest_rel(ours, theirs)
    assert (one.value - other.value) / found.seeds == pytest.approx(reference.statistic, rel=1e-12)


def test_item_noise_is_binomial_and_the_paired_end_is_lower():
    one, other = two_means([0.5], [0.4], seeds=("0",), other_seeds=("1",), num_items=1319)
    found = noise.of_difference(one, other, [one, other], SHARE)
    plain = math.sqrt(0.5 * 0.5 / 1319 + 0.4 * 0.6 / 1319)
    assert found.items == pytest.approx(plain, rel=1e-12)
    assert found.low == pytest.approx(plain * math.sqrt(noise.PAIRED_SHARE), rel=1e-12)
    assert found.high is None and found.seeds is None  # what seeds do is not known


def test_the_noise_of_planted_scatter_is_found():
    rng = np.random.default_rng(0)
    runs = [
        Run("a", 0.5 + 0.02 * rng.standard_normal(), 10.0**-rate, seed=str(s)) for rate in range(40) for s in range(6)
    ]
    assert noise.pooled(means(Table(tuple(runs), "loss", False)), "a").sd == pytest.approx(0.02, rel=0.1)


def test_the_lowest_paired_share_is_that_of_the_recorded_study():
    """PAIRED_SHARE is measured: recompute it."""
    from welltuned.store import recorded

    _, results = recorded.read(Path(__file__).parent / "recorded" / "batch_by_method.jsonl.gz")
    answers = [(one.config, np.array(one.test_correct, float)) for one in results if one.test_correct is not None]
    shares = []
    for (a, ours), (b, theirs) in itertools.combinations(answers, 2):
        p, q = ours.mean(), theirs.mean()
        if a.batch_size == b.batch_size and a.method != b.method and min(p, q) > 0.05:
            shares.append((ours - theirs).var() / (p * (1 - p) + q * (1 - q)))
    assert len(shares) == 81 and min(shares) == pytest.approx(noise.PAIRED_SHARE, abs=0.001)


# Selection ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tried", [2, 5, 36])
def test_the_bound_is_above_the_expected_best_of_k(tried):
    best = np.random.default_rng(1).standard_normal((20_000, tried)).max(1).mean()
    assert best < selection.bound(1.0, tried) < best + 0.75


def test_leaving_seeds_out_finds_the_inflation_of_pure_noise():
    """Ten equal configurations, two seeds: the best of ten one-seed numbers is 1.54 sigma too good."""
    rng = np.random.default_rng(2)
    side = Side((), "loss", False, False)
    found = []
    for _ in range(200):
        runs = [Run("a", 1 + rng.standard_normal(), 10.0**-n, seed=str(seed)) for n in range(10) for seed in range(2)]
        (row,) = selection.left_out(means(Table(tuple(runs), "loss", False)), side)
        found.append(row.inflation)
    assert np.mean(found) == pytest.approx(1.54, abs=0.15)


def test_choosing_by_what_is_shown_is_told_and_choosing_elsewhere_is_not():
    assert "chosen by the numbers that are shown" in texts(of_runs(SOUND))
    assert "Measured on" in texts(of_runs(SOUND))
    single = of_runs([Run("lora", 1.0), Run("pissa", 0.9)])
    assert "selection" not in kinds(single)
    on_test = of_runs([Run(one.method, one.value, one.learning_rate, split="test") for one in SOUND])
    assert "chosen by the test split itself" in texts(on_test)


# Flips ----------------------------------------------------------------------------------------------------------------


def test_a_planted_flip_is_found():
    lora = {1e-4: 1.0, 1e-3: 0.8, 1e-2: 0.9}
    pissa = {1e-4: 0.9, 1e-3: 0.82, 1e-2: 1.1}
    runs = [Run(name, value, rate) for name, row in (("lora", lora), ("pissa", pissa)) for rate, value in row.items()]
    assert "finds either order: pissa ahead in 1, lora in 2 of 3." in texts(of_runs(runs))
    assert "flips" not in kinds(of_runs(SOUND))


# Diverged, missing ----------------------------------------------------------------------------------------------------


def test_diverged_runs_are_counted_by_method():
    runs = [Run("lora", 1.0, 1e-3), Run("lora", 2.0, 1e-2, diverged=True), Run("pissa", 0.9, 1e-3)]
    assert "1 run diverged and counted: lora 1." in texts(of_runs(runs))
    assert "diverged" not in kinds(of_runs(SOUND))


def test_missing_cells_are_a_finding(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("method,loss\nlora,1.0\npissa,0.9\npissa,\n")
    assert "1 row without a number, in no average: line 4 (pissa: no number)." in texts(audit(path))


# Output ---------------------------------------------------------------------------------------------------------------

MEANS = "method,accuracy,n_seeds\nLoRA,73.1 ± 0.4,3\nPi|SSA <b>,74.6 ± 0.5,3\n"


def call(*arguments: str) -> int:
    try:
        cli.main(arguments)
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def test_a_table_of_means_is_audited_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "means.csv"
    path.write_text(MEANS)
    assert call("audit", str(path), "--to", str(tmp_path / "out")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "whether it passes is not said" in shown
    assert "Pi|SSA <b> > LoRA (1.5 points, noise 0.4 points): cannot be told: which learning rates LoRA was" in shown
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("audit.html", "audit.md", "audit.json", "tuned.csv", "conclusions.csv", "claims.csv", "runs.csv")
    }


def test_values_of_every_row_change_the_verdict(tmp_path, capsys):
    path = tmp_path / "means.csv"
    path.write_text(MEANS)
    values = ("--value", "lr=1e-4", "--value", "batch_size=16", "--value", "rank=8")
    assert call("audit", str(path), *values, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "was tuned over 1 learning rate, 1 batch size and 1 rank: comparisons in this table" in found["verdict"][0]
    assert found["tuned"][0]["passes"] is False


def test_the_page_escapes_what_is_not_ours(tmp_path):
    path = tmp_path / "means.csv"
    path.write_text(MEANS)
    page = markdown.page(audit(path))
    assert r"Pi\|SSA &lt;b&gt;" in page and "<b>" not in page
    (head,) = [number for number, line in enumerate(page.splitlines()) if line.startswith("| method | learning")]
    rows = page.splitlines()[head : head + 4]  # header, rule, two methods
    assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1


def test_the_web_page_says_what_the_markdown_page_says_and_runs_and_asks_for_nothing(tmp_path):
    path = tmp_path / "means.csv"
    path.write_text(MEANS)
    found = audit(path)
    web, plain = webpage.page(found), markdown.page(found)
    assert "Pi|SSA &lt;b&gt;" in web and "<b>" not in re.sub(r"<b>(serious: )?(baseline|seeds|noise)</b>", "", web)
    assert not re.search(r"<script|<[^>]+\sstyle=|(src|href)=.?https?:", web) and "default-src 'none'" in web
    shown = " ".join(html.unescape(re.sub("<[^>]+>", "", web)).replace("\xa0", " ").split())
    for text in (*found.verdict, *(one.text for one in found.findings), *(term.text for term in content.HOW)):
        assert text in shown and markdown.escaped(text) in plain
    assert re.findall(r"<h2 [^>]*>([^<]+)", web)[1:] == re.findall(r"^## (.+)", plain, re.MULTILINE)
    assert [row.method for row in found.tuned] and all(row.method in shown for row in found.tuned)


def test_the_web_page_of_a_hostile_table_is_short_and_inert(tmp_path):
    path = tmp_path / "hostile.csv"
    name = "</style><script>alert(1)</script>\x1b[2J\u202e" + "x" * 100_000
    path.write_text(f"method,lr,accuracy\nlora,1e-4,0.5\n{name},1e-4,0.6\n", encoding="utf-8")
    web = webpage.page(audit(path))
    assert "<script" not in web and "\x1b" not in web and "\u202e" not in web and web.count("</style>") == 1
    assert len(web) < 200_000


def test_no_line_of_the_screen_is_broken_anew_at_80_columns(tmp_path, monkeypatch, capsys):
    """Long sentences are set in after their first line, headings break between words, numbers nowhere."""
    monkeypatch.setenv("COLUMNS", "80")
    assert call("audit", str(Path(__file__).parent / "recorded" / "batch_by_method.jsonl.gz")) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    openings = ("The baseline", "Of ", "metric:", "finding:", "note:", "claims of", "every conclusion", "lora > ")
    assert all(line.startswith((*openings, " ")) for line in lines)
    (row,) = [line.split() for line in lines if line.startswith(" pissa and")]
    assert row == ["pissa", "and", "lora", "16", "10", "6", "−0.31", "to", "+0.54", "62", "%"]


def test_the_files_hold_no_nan_and_read_back(tmp_path):
    files.write(of_runs(SOUND), tmp_path)
    found = json.loads((tmp_path / "audit.json").read_text(), parse_constant=pytest.fail)
    assert [one["standing"] for one in found["conclusions"]] == ["survives"]
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + len(SOUND)


def test_the_example_of_the_documentation_is_what_the_command_says(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[1] / "docs" / "audit.md").read_text()
    (name, table), (command, output) = re.findall(r"<!-- \w+:(.+?) -->\n```\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(table)
    assert call(*command.split()[1:]) == 0
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert shown == [line for line in output.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--column", "lr"), "error: --column: got 'lr', expected ROLE=NAME; write --column learning_rate=eta"),
        (("--baseline", "dora"), "error: baseline: got \"no method called 'dora'\", expected one of LoRA, Pi|SSA <b>"),
        (("--to", "means.csv"), "error: --to: got 'means.csv', expected a folder; name another one"),
    ],
)
def test_wrong_flags_are_lines_on_stderr(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("means.csv").write_text(MEANS)
    assert call("audit", "means.csv", *arguments) == 2
    assert message in capsys.readouterr().err


def test_one_method_is_no_comparison_and_said_so():
    found = of_runs(sweep("lora", 1.0))
    assert found.verdict[1] == "lora is the only method, so that the table compares no methods."
    assert found.conclusions == ()


def test_our_recorded_study_is_audited():
    found = audit(Path(__file__).parent / "recorded" / "batch_by_method.jsonl.gz")
    assert found.book.fresh and found.baseline == "lora"
    assert {row.method: row.num_configurations for row in found.tuned} == {"lora": 24, "pissa": 24, "milora": 24}
    assert "The baseline lora was given 1 rank, fewer than 2." in texts(found)
    assert "3 runs diverged and counted: lora 1, milora 2." in texts(found)


def test_claims_of_the_literature_are_counted_listed_and_written(tmp_path, capsys):
    study = Path(__file__).parent / "recorded" / "batch_by_method.jsonl.gz"
    assert call("audit", str(study), "--to", str(tmp_path)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    rows = list(csv.DictReader((tmp_path / "claims.csv").read_text(encoding="utf-8").splitlines()))
    by_verdict = {verdict: [row["claim"] for row in rows if row["verdict"] == verdict] for verdict in claims.Verdict}
    assert [row["claim"] for row in rows] == [claim.id for claim in claims.claims()]
    for verdict in (claims.Verdict.SUPPORTED, claims.Verdict.CONTRADICTED):
        assert by_verdict[verdict] and f"{verdict}: {', '.join(by_verdict[verdict])}" in shown
    out_of_reach = by_verdict[claims.Verdict.NOT_APPLICABLE]
    assert f"{len(by_verdict['undecided'])} undecided, {len(out_of_reach)} out of this table's reach" in shown
    page = (tmp_path / "audit.md").read_text(encoding="utf-8")
    listed, _, unreached = page.partition("Out of reach, for want of:")
    assert all(f"| {row['claim']} " in listed for row in rows if row["claim"] not in out_of_reach)
    assert all(f"{claim}: " in unreached for claim in out_of_reach)


def test_a_table_of_one_learning_rate_can_reach_no_claim(tmp_path):
    path = tmp_path / "means.csv"
    path.write_text(MEANS)
    page = markdown.page(audit(path))
    assert "The table can reach none of them." in page and "Out of reach, for want of:" in page
