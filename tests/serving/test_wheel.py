"""The package's own wheel: what a build would hold, and the same bytes each time."""

import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import recsys
from recsys.serving.wheel import write_wheel


def test_it_holds_every_source_and_is_equal_each_time(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    wheel = write_wheel(tmp_path)
    assert wheel.read_bytes() == write_wheel(tmp_path / "again").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "out")
    root = Path(recsys.__file__).parent
    folders = (root, *(root / name for name in ("features", "serving", "training")))
    sources = {path for folder in folders for path in folder.resolve().rglob("*.py")}
    assert sum(name.endswith(".py") for name in names) == len(sources)
    kinds = {Path(name).suffix for name in names if name.startswith("recsys/")}
    assert kinds == {".py", ".pyi", ".typed", ".cc", ".html"}
    (about,) = (tmp_path / "out").glob("*.dist-info")
    installed = PathDistribution(about)
    assert installed.metadata["Name"] == "recsys-engine"
    recorded = installed.files or []
    assert {str(one) for one in recorded} == set(names)
    for one in recorded:
        if one.hash is not None:
            assert one.size == (tmp_path / "out" / one).stat().st_size
