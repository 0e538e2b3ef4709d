"""The ratchets: import rows, sizes, forbidden constructs, a start without torch, and a README that tells the truth."""

import ast
import functools
import importlib
import os
import pathlib
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "welltuned"

ROWS = [
    "errors",
    "records rng plugins fingerprint transfer",
    "store executors sandbox analysis costs tasks spec adapter_folder model_facts",
    "search plan figures report",
    "audit",
    "data models objectives kernels protocol plan_cost",
    "methods",
    "packing",
    "evaluate survey",
    "train",
    "worker curvature",
    "study",
    "export",
    "cli",
    "__main__ __init__",
]
ROW = {name: row for row, line in enumerate(ROWS) for name in line.split()}
FIRST_ROW_WITH_TORCH = 5
HEAVY = ("torch", "transformers", "peft", "datasets", "accelerate", "safetensors.torch")
SLOW_TO_IMPORT = ("torch", "transformers", "matplotlib", "pandas", "scipy", "datasets", "pyarrow", "peft")
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 50
START_SECONDS = 1.0
# The one place where anything may go wrong and must become an event (style rule 16).
BROAD_EXCEPT_ALLOWED = {"worker.py"}

SOURCES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = ("tests", "scripts", "examples", "benchmarks")
OTHERS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def named(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def component(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def row_of(path: pathlib.Path) -> int:
    assert component(path) in ROW, f"{named(path)}: say in ROWS which row '{component(path)}' belongs to"
    return ROW[component(path)]


def modules_of(node: ast.AST) -> list[str]:
    """Give the dotted names that a statement imports: `from welltuned.rng import x` gives "welltuned.rng.x"."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import hides its row; write it in full"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def imports(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(path)):
        for name in modules_of(node):
            yield getattr(node, "lineno", 0), name


def is_named(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def report(wrong: list[str]) -> None:
    assert not wrong, "\n" + "\n".join(wrong)


def first_level(module: str) -> str | None:
    """Give the welltuned package that an import needs; a name of welltuned itself is its `__init__`."""
    if module.split(".")[0] != "welltuned":
        return None
    name = [*module.split("."), "__init__"][1]
    return name if name in ROW or (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "__init__"


def upward_imports(path: pathlib.Path, row: int, module_names: list[tuple[int, str]]) -> list[str]:
    wrong = []
    for line, module in module_names:
        there = first_level(module)
        if there and there != component(path) and ROW[there] >= row:
            wrong.append(f"{named(path)}:{line} (row {row}) imports {there} (row {ROW[there]})")
    return wrong


def test_imports_point_down_only():
    report([line for path in SOURCES for line in upward_imports(path, row_of(path), list(imports(path)))])


def test_the_row_test_sees_a_planted_violation():
    planted = [(1, "welltuned.train.loop"), (2, "welltuned.records.Config"), (3, "numpy")]
    found = upward_imports(PACKAGE / "report" / "build.py", ROW["report"], planted)
    assert found == [f"src/welltuned/report/build.py:1 (row 3) imports train (row {ROW['train']})"]


def test_no_torch_below_row_four():
    wrong = [
        f"{named(path)}:{line} imports {module}"
        for path in SOURCES
        if row_of(path) < FIRST_ROW_WITH_TORCH
        for line, module in imports(path)
        if is_named(module, HEAVY)
    ]
    report(wrong)


def test_method_files_keep_torch_inside_their_functions():
    """`plan` reads a method's version and parameter count, so loading the file must not load torch."""
    wrong = []
    for path in (PACKAGE / "methods").rglob("*.py"):
        for node in tree_of(path).body:
            wrong += [
                f"{named(path)}:{node.lineno} imports {name}" for name in modules_of(node) if is_named(name, HEAVY)
            ]
    report(wrong)


def test_no_file_is_long():
    long = [(path, len(path.read_text(encoding="utf-8").splitlines())) for path in SOURCES + OTHERS]
    report(
        [f"{named(path)}: {lines} lines, at most {MAX_FILE_LINES}" for path, lines in long if lines > MAX_FILE_LINES]
    )


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its docstring: explaining more is not to be punished."""
    start, end = node.body[0].lineno, node.end_lineno or 0
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        start = (first.end_lineno or first.lineno) + 1
    return end - start + 1 + (node.body[0].lineno - node.lineno)


def test_no_function_is_long():
    wrong = []
    for path in SOURCES + [path for path in OTHERS if path.parts[len(ROOT.parts)] != "tests"]:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > MAX_FUNCTION_LINES:
                wrong.append(f"{named(path)}:{node.lineno} {node.name}: {code_lines(node)} lines")
    report(wrong)


def test_files_open_by_saying_what_they_are():
    report([named(path) for path in SOURCES + OTHERS if not ast.get_docstring(tree_of(path))])


def test_no_file_is_named_like_the_standard_library():
    """`import random` inside such a package would find the wrong one."""
    report([named(path) for path in SOURCES if path.stem in sys.stdlib_module_names])


def test_no_hasattr():
    wrong = []
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
                wrong.append(
                    f"{named(path)}:{node.lineno} calls hasattr: ask for a type, or make it part of the interface"
                )
    report(wrong)


def passes_through(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    if function.args.kwarg is None:
        return False
    name = function.args.kwarg.arg
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    return any(
        keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == name
        for call in calls
        for keyword in call.keywords
    )


def test_no_pass_through_keywords():
    """`def f(**kwargs): g(**kwargs)` hides a misspelt name; `Config.replace(**changes)` is checked by the dataclass."""
    allowed = {("records.py", "replace")}
    wrong = []
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if function and passes_through(node) and (path.name, node.name) not in allowed:
                wrong.append(f"{named(path)}:{node.lineno} {node.name} passes **{node.args.kwarg.arg} on")
    report(wrong)


def broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return caught is None or any(
        isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in kinds
    )


def reraises(handler: ast.ExceptHandler) -> bool:
    """Say whether a handler only cleans up: its last statement is a bare `raise`."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_one_broad_except_in_the_program():
    found = {
        f"{path.relative_to(PACKAGE)}": node.lineno
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and broad(node) and not reraises(node)
    }
    report(
        [
            f"src/welltuned/{path}:{line} catches everything"
            for path, line in found.items()
            if path not in BROAD_EXCEPT_ALLOWED
        ]
    )


# Other trainers read their settings from YAML. Written it may be, by safe_dump, which writes 1.0e-05; read never.
WRITES_YAML = "src/welltuned/export/trainers.py"


def test_nothing_that_runs_code_from_a_file():
    """Unpickling runs whatever the file says; YAML reads 1e-4 as a string. Safetensors, JSON and TOML do neither."""
    calls = {ast.unparse(node) for node in ast.walk(tree_of(ROOT / WRITES_YAML)) if isinstance(node, ast.Attribute)}
    wrong = [
        f"{WRITES_YAML} uses {name}" for name in sorted(calls) if name.startswith("yaml.") and name != "yaml.safe_dump"
    ]
    for path in SOURCES:
        for line, module in imports(path):
            is_bad = is_named(module, ("pickle", "dill", "cloudpickle", "shelve", "marshal", "yaml", "joblib"))
            if is_bad and (module, named(path)) != ("yaml", WRITES_YAML):
                wrong.append(f"{named(path)}:{line} imports {module}")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "torch.load",
                "eval",
                "exec",
                "numpy.load",
                "np.load",
            ):
                wrong.append(f"{named(path)}:{node.lineno} calls {ast.unparse(node.func)}")
    report(wrong)


def test_generators_are_made_by_rng_only():
    """A generator made elsewhere is one that the study's seed does not reach."""
    makers = re.compile(r"^(random\.|(np|numpy)\.random\.(?!Generator$)|torch\.manual_seed$|torch\.seed$)")
    wrong = []
    for path in SOURCES:
        if component(path) == "rng":
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and makers.match(ast.unparse(node.func)):
                wrong.append(f"{named(path)}:{node.lineno} calls {ast.unparse(node.func)}")
    report(wrong)


PLUGINS = {"methods": "METHOD", "tasks": "TASK", "search": "SEARCH", "figures": "FIGURE"}


@pytest.mark.parametrize("folder", PLUGINS)
def test_every_plugin_file_exports_its_object(folder):
    wrong = []
    for path in (PACKAGE / folder).glob("[!_]*.py"):
        module = importlib.import_module(f"welltuned.{folder}.{path.stem}")
        if PLUGINS[folder] not in vars(module):
            wrong.append(f"{named(path)} exports no {PLUGINS[folder]}; a helper's name starts with an underscore")
    report(wrong)


def test_every_dependency_is_declared_and_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[<>=!~;]", line)[0].replace("-", "_") for line in project["dependencies"]}
    extras = {
        extra: {re.split(r"[\[<>=!~;]", line)[0].replace("-", "_") for line in lines}
        for extra, lines in project["optional-dependencies"].items()
    }
    declared |= {name for extra, names in extras.items() if extra != "dev" for name in names}
    optional = extras["dev"] - declared
    used = {module.split(".")[0] for path in SOURCES for _, module in imports(path)}
    used = {DISTRIBUTIONS.get(name, name) for name in used}
    used -= set(sys.stdlib_module_names) | {"welltuned"}
    report(
        [f"src imports {name}, which pyproject.toml does not declare" for name in sorted(used - declared - optional)]
        + [f"src imports {name}, which only the dev extra installs" for name in sorted(used & optional)]
        + [
            f"pyproject.toml declares {name}, which nothing imports"
            for name in sorted(declared - used - LOADED_BY_OTHERS)
        ]
    )


# transformers loads gguf to read a .gguf base; pandas loads pyarrow to read Parquet.
LOADED_BY_OTHERS = {"gguf", "pyarrow"}
DISTRIBUTIONS = {"yaml": "pyyaml"}  # where the package to install is not called as the module


def python(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def loaded_after(code: str) -> list[str]:
    done = python(f"import sys\n{code}\nprint(*[name for name in {SLOW_TO_IMPORT!r} if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[-2].split()


def test_importing_welltuned_costs_nothing():
    assert loaded_after("import welltuned") == []


def test_the_planning_side_loads_nothing_heavy():
    modules = ("spec", "plan", "search.grid", "store", "study", "report")
    assert loaded_after("\n".join(f"import welltuned.{name}" for name in modules)) == []


def test_help_loads_nothing_heavy_and_is_fast():
    code = "import welltuned.cli\ntry:\n    welltuned.cli.main(['--help'])\nexcept SystemExit:\n    pass"
    assert loaded_after(code) == []
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy with something else
        start = time.perf_counter()
        assert python("import welltuned.cli; welltuned.cli.main(['--help'])").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < START_SECONDS, f"welltuned --help takes {min(seconds):.2f} s"


# The README's file tree --------------------------------------------------------------------------------------------


def readme_tree() -> set[str]:
    """Read the paths of the README's tree: two spaces of indent a level, a folder ends with a slash."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- tree -->\n```\n(.*?)```", text, re.DOTALL)
    assert block, "README.md has no file tree between `<!-- tree -->` and the end of its code block"
    paths, folders = set(), []
    for line in block.group(1).splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], name]
        paths.add("".join(folders).rstrip("/"))
    return paths


def on_disk() -> set[str]:
    """List what the README must name: the top level, and the first level of the package."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [pathlib.PurePath(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()]
    top = {file.parts[0] for file in files}
    package = {"/".join(file.parts[:3]) for file in files if file.parts[:2] == ("src", "welltuned")}
    return top | {"src/welltuned"} | package


def test_readme_tree_equals_the_disk():
    tree, disk = readme_tree(), on_disk()
    unlisted = {path for path in disk - tree if not path.startswith(".git")}
    missing = {path for path in tree if not (ROOT / path).exists()}
    report(
        [f"README.md's tree lacks {path}" for path in sorted(unlisted)]
        + [f"README.md's tree names {path}, which is not there" for path in sorted(missing)]
    )
