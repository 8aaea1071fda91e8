"""What extras install is imported by what needs it alone: all else works without."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "recsys": "recsys",
    "features": "recsys.features",
    "training": "recsys.training",
    "serving": "recsys.serving",
}
OF_A_LIBRARY = {
    "queries", "load_milvus", "load_qdrant",  # leave with an export, run where their library is
    "accumulating",  # a class of Spark, imported where Spark runs
}  # fmt: skip
_CODE = """
import importlib, importlib.abc, json, sys

modules, optional = json.loads(sys.argv[1])

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in optional:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
failed = []
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        failed.append([name, error.name])
print(json.dumps(failed))
"""


def _name(requirement: str) -> str:
    (found,) = re.findall(r"^[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", found).lower()


def test_every_module_is_imported_without_any_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {_name(one) for one in project["dependencies"]}
    extras = project["optional-dependencies"].values()
    extra = {_name(one) for of in extras for one in of} - needed
    optional = [
        module
        for module, owners in packages_distributions().items()
        if extra & {_name(owner) for owner in owners}
    ]
    assert {"onnxruntime", "lightgbm", "torchrec"} <= set(optional)
    modules = [
        ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts))
        for folder, package in PACKAGES.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.stem not in OF_A_LIBRARY
    ]
    modules = [name.removesuffix(".__init__") for name in modules]
    given = json.dumps([modules, optional])
    command = [sys.executable, "-c", _CODE, given]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
