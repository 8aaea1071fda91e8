"""The rules of the architecture, read from the imports."""

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from recsys.features.kinds.registry import KINDS

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("recsys", "features", "training", "serving")
FOLDERS = {ROOT / room for room in ROOMS[1:]}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
APP = ROOT / "recsys" / "app"
MAY_IMPORT = {
    "recsys": {"recsys"},
    "features": {"recsys", "features"},
    "training": {"recsys", "features", "training"},
    "serving": {"recsys", "features", "serving"},
}
# Which files or folders may import a heavy library.
IMPORTERS = {
    "mlflow": {
        "training/tracking/sending.py",
        "serving/registry.py",
        "serving/logged_model.py",
        "serving/version_facts.py",
        "serving/pyfunc.py",
        "serving/refusal.py",
        "serving/answering/signatures.py",
    },
    "torchrec": {"recsys/embeddings/sharded.py"},
    "fbgemm_gpu": {"recsys/embeddings/fbgemm_table.py", "recsys/embeddings/sharded.py"},
    "faiss": {
        f"recsys/retrieval/index/faiss_{kind}.py"
        for kind in ("flat", "hnsw", "ivf", "ivf_pq", "lists", "rabitq", "sq8", "threads")
    },
    "hnswlib": {"recsys/retrieval/index/hnswlib_hnsw.py"},
    "scann": {"recsys/retrieval/index/scann_tree.py"},
    "usearch": {"recsys/retrieval/index/usearch_hnsw.py"},
    "deltalake": {"features/tables/lakes.py"},
    "lancedb": {"serving/export/stores/lance.py"},
    "qdrant_client": {"serving/export/stores/load_qdrant.py"},
    "pymilvus": {"serving/export/stores/load_milvus.py"},
    "psycopg": set(),
    "lightgbm": {"training/families/ranker/trees.py", "features/pipeline/trees.py"},
    "implicit": {"recsys/plain/factorised.py"},
    "onnx": {"serving/export/onnx_graph.py"},
    "onnxscript": {"serving/export/onnx_graph.py"},
    "onnxruntime": {"serving/export/onnx_graph.py", "serving/export/queries.py"},
    "onnx_ir": {"serving/export/onnx_graph.py"},
    "optuna": {"training/search/store.py"},
    "pyspark": {"recsys/app/spark/"},
    "daft": set(),
    "ray": set(),
    "pyparsing": {"features/filters/syntax.py"},
    "pandas": {"recsys/app/", "features/", "training/", "serving/frames.py", "serving/pyfunc.py"},
    "pyarrow": {"recsys/app/", "recsys/core/remote/", "features/", "training/", "serving/"},
    "fsspec": {"recsys/core/remote/stores.py"},
    "sklearn": {"features/", "training/"},
    "matplotlib": {"training/", "serving/export/tuning_picture.py"},
    "pickle": set(),
    "joblib": set(),
    "duckdb": set(),
}


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a file parsed."""
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> set[str]:
    """Return every module that a file imports, at the top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def room_of(module: str) -> str | None:
    """Return which room a module of ours lies in; None for another distribution's."""
    parts = module.split(".")
    if parts[0] != "recsys":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "recsys"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_down(path: Path) -> None:
    if APP in path.parents:
        return
    allowed = MAY_IMPORT[path.relative_to(ROOT).parts[0]]
    ours = {room for module in imports(path) if (room := room_of(module))}
    assert ours <= allowed, f"{name(path)} reaches up or sideways: {ours - allowed}"
    assert not {module for module in imports(path) if module.startswith("recsys.app")}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_libraries_have_one_importer(path: Path) -> None:
    for module in imports(path):
        library = module.split(".")[0]
        importers = IMPORTERS.get(library)
        open_here = importers is None or any(
            name(path).startswith(importer) for importer in importers
        )
        assert open_here, f"{name(path)} imports {library}; only {importers} may"


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "losses"], ids=name)
def test_losses_know_each_other_and_tensors_alone(path: Path) -> None:
    known = {
        "recsys.data.batch",
        *(f"recsys.losses.{one.stem}" for one in path.parent.glob("*.py")),
    }
    assert not {m for m in imports(path) if m.startswith("recsys.")} - known


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_fit_in_the_head(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{name(path)}: {node.name} has {length} lines"


MANY_PARAMETERS = {
    "recsys/app/batch_function.py: batch_function",
    "recsys/app/experiments.py: train",
    "recsys/app/experiments.py: tune",
    "recsys/app/model.py: recommend",
    "recsys/app/models.py: export",
    "recsys/app/models.py: score",
    "recsys/app/models.py: score_new_items",
    "recsys/app/planning.py: plan",
    "recsys/app/spark/answering.py: recommend",
    "training/evaluation/evaluate.py: evaluate",
    "recsys/plain/markov.py: fit",
    "recsys/plain/session_knn.py: fit",
    "training/reports/retrieval.py: write_report",
}
"""Functions of more than 8 parameters, nearly all of them by name; no other may join them."""


def test_functions_take_8_parameters_at_most() -> None:
    found = set()
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([one for one in taken if one.arg not in ("self", "cls")]) > 8:
                    found.add(f"{name(path)}: {node.name}")
    assert found == MANY_PARAMETERS


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_unpickles(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            call = ast.unparse(node.func)
            assert call not in ("torch.load", "torch.save", "np.load", "numpy.load"), name(path)


def strings_of(nodes: Iterable[ast.AST | None]) -> set[str]:
    """Return every string constant within some nodes."""
    parts = [part for node in nodes if node is not None for part in ast.walk(node)]
    constants = [part.value for part in parts if isinstance(part, ast.Constant)]
    return {value for value in constants if isinstance(value, str)}


def told_apart(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """Yield line and strings of each comparison, case, and list of names as an `if` would ask."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            yield node.lineno, strings_of([node.left, *node.comparators])
        elif isinstance(node, ast.MatchValue):
            yield node.lineno, strings_of([node.value])
        elif isinstance(node, ast.Dict | ast.Tuple | ast.List | ast.Set):
            listed = node.keys if isinstance(node, ast.Dict) else node.elts
            names = strings_of(one for one in listed if isinstance(one, ast.Constant))
            yield from [(node.lineno, names)] if len(names & set(KINDS)) > 1 else []


def asked_classes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of every class that something is asked to be one of."""
    for node in ast.walk(tree):
        asks = isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass")
        if isinstance(node, ast.MatchClass) or asks:
            yield from ((x.lineno, x.id) for x in ast.walk(node) if isinstance(x, ast.Name))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_asks_of_which_kind_a_feature_is(path: Path) -> None:
    """What a kind does, its file in `features/kinds` says; `registry.py` there lists the kinds."""
    if path == ROOT / "features" / "kinds" / "registry.py":
        return
    tree = tree_of(path)
    names = [line for line, texts in told_apart(tree) if texts & set(KINDS)]
    classes = {kind.__name__ for kind in KINDS.values()}
    lines = [line for line, asked in asked_classes(tree) if asked in classes]
    assert not names, f"{name(path)} compares the name of a feature kind, lines {names}"
    assert not lines, f"{name(path)} asks for the class of a feature kind, lines {lines}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_distinct_values_are_found_by_sorting(path: Path) -> None:
    slow = {"unique", "isin", "in1d", "intersect1d", "union1d", "setdiff1d", "setxor1d"}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np", "numpy"):
            assert node.attr not in slow, f"{name(path)}: np.{node.attr}; see recsys/core/distinct"


FAMILIES = {path.parent for path in (ROOT / "training" / "families").glob("*/family.py")}
MODELS = ROOT / "recsys" / "models"
OF_FAMILIES = [path for path in FILES if path.parent in {MODELS, *FAMILIES}]


@cache
def kinds_of_models() -> set[str]:
    """Return what `model.kind` may be: the one text that the settings of a model allow."""
    found: set[str] = set()
    for path in MODELS.glob("*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "kind":
                found |= strings_of([node.annotation])
    return found


@cache
def classes_of_families() -> set[str]:
    """Return the classes that models and families define."""
    nodes = (node for path in OF_FAMILIES for node in ast.walk(tree_of(path)))
    return {node.name for node in nodes if isinstance(node, ast.ClassDef)}


def test_kinds_of_models_and_classes_of_families_are_found() -> None:
    assert {"two_tower", "session", "autoint", "logistic"} <= kinds_of_models()
    assert {"TwoTower", "DCNConfig", "RankerExperiment", "SessionData"} <= classes_of_families()
    assert {path.name for path in FAMILIES} >= {"two_tower", "session", "ranker"}


@pytest.mark.parametrize("path", [path for path in FILES if path not in OF_FAMILIES], ids=name)
def test_nothing_asks_of_which_kind_a_model_is(path: Path) -> None:
    """A family's folder says what it does; `training/families/registry.py` lists the families."""
    tree, registries = tree_of(path), {"RANKERS", "RETRIEVAL", "MODELS"}
    names = [line for line, texts in told_apart(tree) if texts & kinds_of_models()]
    lines = [line for line, asked in asked_classes(tree) if asked in classes_of_families()]
    inside = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(one, ast.Name) and one.id in registries for one in node.comparators)
    ]
    assert not names, f"{name(path)} compares the name of a kind of model, lines {names}"
    assert not lines, f"{name(path)} asks for a class of a family, lines {lines}"
    assert not inside, f"{name(path)} asks whether a registry has a model, lines {inside}"


def test_packages_hold_a_docstring_alone() -> None:
    for path in FILES:
        if path.name == "__init__.py" and path.parent != ROOT / "recsys":
            tree = tree_of(path)
            assert ast.get_docstring(tree), name(path)
            assert len(tree.body) == (2 if path.parent in FOLDERS else 1), name(path)


def test_no_drawer_for_everything() -> None:
    names = {path.name for path in FILES}
    assert not names & {"utils.py", "common.py", "base.py", "helpers.py", "misc.py"}


@pytest.mark.parametrize("room", ROOMS[1:])
def test_a_folder_has_one_name(room: str) -> None:
    module = importlib.import_module(f"recsys.{room}")
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().parent == ROOT / room
    link = ROOT / "recsys" / room
    assert os.readlink(link) == f"../{room}"
    command = [sys.executable, "-c", f"import {room}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f"ImportError: import recsys.{room}:" in found.stderr


def test_every_package_is_installed() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setup["package-dir"] == {f"recsys.{room}": room for room in ROOMS[1:]}
    here = set()
    for path in FILES:
        parts = path.parent.relative_to(ROOT).parts
        here.add(".".join(parts if parts[0] == "recsys" else ("recsys", *parts)))
    assert sorted(setup["packages"]) == sorted(here)


def test_tests_mirror_the_rooms_without_hiding_them() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert {p.name for p in (ROOT / "tests").iterdir() if p.is_dir()} >= set(ROOMS)


BUNDLE_FILES = ROOT / "features" / "bundle" / "files.py"
IN_OTHER_FOLDERS = {"config.yaml", "items.parquet", "encoder/", "index/"}
"""Names in a bundle that runs, caches and data sets have as well."""


def files_of_a_bundle() -> dict[str, str]:
    """Return the constants that name a file or a folder of a bundle -> the name."""
    found = {}
    for node in tree_of(BUNDLE_FILES).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found[ast.unparse(node.targets[0])] = str(node.value.value)
    return {constant: text for constant, text in found.items() if {".", "/"} & set(text)}


@pytest.mark.parametrize("constant", files_of_a_bundle())
def test_a_file_of_a_bundle_has_one_writer_and_one_reader(constant: str) -> None:
    def uses(tree: ast.AST) -> bool:
        return any(isinstance(n, ast.Name) and n.id == constant for n in ast.walk(tree))

    def reads(tree: ast.AST) -> bool:
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and uses(node)]
        return bool({ast.unparse(c.func) for c in calls} & {f"bundle.{how}" for how in READS})

    READS = ("read", "text", "json")
    functions = [node for node in tree_of(BUNDLE_FILES).body if isinstance(node, ast.FunctionDef)]
    writers = [one.name for one in functions if one.name.startswith("write_") and uses(one)]
    readers = [one.name for one in functions if one.name not in writers and reads(one)]
    assert (len(writers), len(readers)) == (1, 1), f"{constant}: {writers}, {readers}"


def test_no_other_module_names_a_file_of_a_bundle() -> None:
    names = set(files_of_a_bundle().values()) - IN_OTHER_FOLDERS
    for path in FILES:
        docstrings = {id(n.value) for n in ast.walk(tree_of(path)) if isinstance(n, ast.Expr)}
        used = strings_of(node for node in ast.walk(tree_of(path)) if _is_text(node, docstrings))
        assert path == BUNDLE_FILES or not used & names, f"{name(path)} names {used & names}"


def _is_text(node: ast.AST, docstrings: set[int]) -> bool:
    return isinstance(node, ast.Constant) and id(node) not in docstrings


def test_no_index_is_told_apart_by_its_name() -> None:
    registry = ROOT / "recsys" / "retrieval" / "index" / "registry.py"
    kinds = next(n.value for n in ast.walk(tree_of(registry)) if isinstance(n, ast.AnnAssign))
    assert isinstance(kinds, ast.Dict)
    known = strings_of(kinds.keys) | {"faiss"}
    for path in FILES:
        lines = [line for line, texts in told_apart(tree_of(path)) if texts & known]
        assert not lines, f"{name(path)} compares the name of an index, lines {lines}"
