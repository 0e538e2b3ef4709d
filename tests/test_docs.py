"""The documents tell the truth: links lead somewhere, commands and study files are read, tests exist."""

import ast
import doctest
import importlib
import pathlib
import re
import shlex
import tomllib

import pytest
import typer

from welltuned import cli
from welltuned.spec import Spec

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
# Modules with examples in their docstrings; those that need torch have tests instead.
WITH_EXAMPLES = sorted(path for path in (ROOT / "src").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not broken


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings(path):
    name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert not failed


def test_the_study_file_of_the_readme_is_one():
    (text,) = blocks("README.md", "toml")
    spec = Spec.parse(text)
    assert spec.method_names() == ("lora", "pissa", "milora")


def test_the_commands_of_the_readme_exist():
    lines = [line.split("#")[0] for block in blocks("README.md", "") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("welltuned ")]
    assert {command[1] for command in commands} >= set(cli.VERBS) - {"demo"}
    for _, verb, *arguments in commands:
        known = typer.main.get_command(cli._app(verb)).commands[verb].params
        flags = {name for parameter in known for name in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= flags, verb


def test_the_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", text_of("Makefile"), re.MULTILINE))
    used = set(re.findall(r"`make (\w+)`|^make (\w+)", text_of("README.md") + text_of("CONTRIBUTING.md"), re.MULTILINE))
    assert {first or second for first, second in used} <= targets


def test_every_promise_names_tests_that_exist():
    promises = re.split(r"^## ", text_of("docs/fairness.md"), flags=re.MULTILINE)[1:]
    held = "".join(part for part in promises if not part.startswith("Not promised yet"))
    for promise in re.split(r"^- ", held, flags=re.MULTILINE)[1:]:
        assert re.search(r"`test_\w+\.py::test_\w+`", promise), f"no test is named: {promise}"
    for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", held):
        functions = {
            node.name for node in ast.parse(text_of(f"tests/{file}")).body if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, f"{file} has no {name}"


def test_the_glossary_is_in_order():
    terms = re.findall(r"^\*\*([^*\\]+)", text_of("docs/glossary.md"), re.MULTILINE)
    assert len(terms) > 30 and terms == sorted(terms, key=str.casefold)


def test_every_file_that_the_tour_visits_exists():
    for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|/))`", text_of("docs/tour.md")):
        assert (ROOT / "src/welltuned" / name).exists() or (ROOT / name).exists(), name


def test_every_decision_is_listed_and_says_context_decision_consequences():
    files = sorted(path.name for path in (ROOT / "docs/decisions").glob("0*.md"))
    assert files == re.findall(r"\]\((0[^)]+)\)", text_of("docs/decisions/README.md"))
    for name in files:
        headings = re.findall(r"^## (.+)", text_of(f"docs/decisions/{name}"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], name


def test_the_changelog_begins_with_this_version():
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    assert re.search(r"^## (\S+)", text_of("CHANGELOG.md"), re.MULTILINE).group(1) == version
    assert f'__version__ = "{version}"' in text_of("src/welltuned/__init__.py")
