"""Bundles by the path of their folder or of their run's, here and in a store."""

import uuid
from pathlib import Path

import pytest

from recsys.bundle.directory import RUN_BUNDLES, Bundle, write_bundle
from recsys.bundle.found import bundle_at, found_bundle
from recsys.core.errors import IntegrityError, NotFoundError
from recsys.core.remote.path import path_at
from recsys.core.tracking_store import JOURNAL, run_of


@pytest.fixture(params=["here", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of this machine, or of a store."""
    return tmp_path / "here" if request.param == "here" else path_at(f"memory://{uuid.uuid4().hex}")


def written(parent: Path, content: str = "content") -> Path:
    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(content)

    return write_bundle(parent, write, facts={})


def test_a_bundle_is_found_by_its_folder_or_its_run(root: Path, tmp_path: Path) -> None:
    path, cache = written(root / "run" / RUN_BUNDLES), tmp_path / "cache"
    line = '{"experiment": "shop", "key": "k1"}\n'
    (root / "run" / JOURNAL).write_text(line)
    for given in (path, path.parent, root / "run"):
        assert bundle_at(given) == path
        found = found_bundle(given, cache)
        assert Bundle.open(found).text("sub/a.txt") == "content"
        assert found.name == path.name
        assert run_of(found) == ("shop", "k1")
    other = written(root / "run" / RUN_BUNDLES, "other")
    assert other != path
    with pytest.raises(
        NotFoundError, match=r"run: neither a bundle .* nor a run's folder with one"
    ):
        found_bundle(root / "run", cache)
    with pytest.raises(NotFoundError, match="nowhere: neither a bundle"):
        found_bundle(root / "nowhere", cache)


def test_the_same_content_is_one_bundle(root: Path) -> None:
    assert written(root) == written(root)
    assert len([*root.iterdir()]) == 1


def test_a_manifest_that_was_changed_is_named_in_the_store(tmp_path: Path) -> None:
    root = path_at(f"memory://{uuid.uuid4().hex}")
    manifest = written(root) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("a.txt", "b.txt"))
    with pytest.raises(IntegrityError, match=r"^memory://.*/manifest.json: says model"):
        found_bundle(root, tmp_path)
    manifest.write_text("{")
    with pytest.raises(IntegrityError, match=r"^memory://.*/manifest.json: not a manifest"):
        found_bundle(root, tmp_path)
