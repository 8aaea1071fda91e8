"""Manifests of exports: whatever is changed in a folder is refused, by name."""

import hashlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.core.errors import IntegrityError, NotFoundError
from recsys.retrieval.index.registry import BACKENDS
from recsys.serving.export.manifest import EXPORT_FILE, open_export, write_manifest
from recsys.serving.export.retrieval import export_index
from recsys.serving.export.stores.registry import targets
from recsys.serving.export.stores.vectors import IndexFiles

INSTALLED = [
    name
    for name, one in targets().items()
    if not isinstance(one, IndexFiles)
    or find_spec(str(BACKENDS[one.kind].distribution or "torch").replace("-cpu", "")) is not None
]
"""Targets whose library is there; hnswlib and ScaNN are tested where they are."""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    (folder / "table").mkdir(parents=True)
    (folder / "a.txt").write_text("some text")
    (folder / "table" / "b.bin").write_bytes(bytes(range(256)))
    write_manifest(folder, "faiss", {"model_id": "m", "name": "caf\u00e9"})
    return folder


@pytest.fixture(scope="module")
def exports(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each kind of export of one model."""
    root = tmp_path_factory.mktemp("exports")
    for target in INSTALLED:
        export_index(trained, target, root / target, min_recall=0.5)
    return root


def test_what_was_written_is_read_again(small: Path) -> None:
    export = open_export(small)
    assert export.names() == ["a.txt", "table/b.bin"]
    assert export.read("a.txt") == b"some text"
    assert (export.facts["target"], export.facts["name"]) == ("faiss", "caf\u00e9")
    plain = json.loads((small / EXPORT_FILE).read_text())
    assert plain["files"][0]["sha256"] == hashlib.sha256(b"some text").hexdigest()
    rest = (small / EXPORT_FILE).read_bytes().split(b"\n", 2)[2]  # tail -n +3
    assert plain["sha256"] == hashlib.sha256(rest).hexdigest()
    with pytest.raises(NotFoundError, match=r"the export holds no 'c\.txt'"):
        export.read("c.txt")


def test_every_bit_of_the_manifest_counts(small: Path) -> None:
    path = small / EXPORT_FILE
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        )
        with pytest.raises(IntegrityError, match=r"export\.json: "):
            open_export(small)
    for length in (0, 5, 80, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match=r"export\.json: "):
            open_export(small)
    path.write_bytes(whole + b"\n")
    with pytest.raises(IntegrityError, match=r"export\.json: its content has sha256"):
        open_export(small)


def test_files_that_are_missing_or_more_are_named(small: Path, tmp_path: Path) -> None:
    export = open_export(small)
    (small / "c.txt").write_text("more")
    with pytest.raises(IntegrityError, match=r"c\.txt: not a file of this export"):
        open_export(small)
    (small / "c.txt").unlink()
    (small / "d").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="d: a link inside the export"):
        open_export(small)
    (small / "d").unlink()
    (small / "a.txt").write_text("same size")
    with pytest.raises(IntegrityError, match=r"a\.txt: 9 bytes .*get the export again"):
        export.read("a.txt")  # changed after it was opened
    (small / "a.txt").unlink()
    with pytest.raises(IntegrityError, match=r"a\.txt: missing from the export"):
        open_export(small)
    with pytest.raises(NotFoundError, match=r"no export here \(no export.json\)"):
        open_export(tmp_path)


def test_manifests_of_other_versions_are_told(small: Path) -> None:
    (small / EXPORT_FILE).unlink()
    write_manifest(small, "faiss", {"schema_version": 99})
    with pytest.raises(IntegrityError, match="manifest of version 99; this engine reads 1"):
        open_export(small)
    (small / EXPORT_FILE).write_text('{"model_id": "of an older engine"}')
    with pytest.raises(IntegrityError, match=r"no sha256 of itself.* export the model again"):
        open_export(small)


@pytest.mark.parametrize("target", INSTALLED)
def test_a_changed_byte_is_refused_in_every_file(
    exports: Path, tmp_path: Path, target: str
) -> None:
    folder = tmp_path / target
    shutil.copytree(exports / target, folder)
    export = open_export(folder)
    assert {"README.md", "queries.parquet"} < set(export.names())
    for name in [*export.names(), EXPORT_FILE]:
        whole = (folder / name).read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]
        for wrong in (flipped, whole[:-1], b""):
            (folder / name).write_bytes(wrong)
            with pytest.raises(IntegrityError, match=f"{name}: "):
                open_export(folder)
        (folder / name).write_bytes(whole)
    open_export(folder)


@pytest.mark.parametrize("target", INSTALLED)
def test_the_manifest_says_what_to_ask_and_of_whom(
    exports: Path, trained: Path, target: str
) -> None:
    facts = open_export(exports / target).facts
    assert facts["model_id"] == trained.name
    assert facts["target"] == target
    assert facts["key"] == "item_id"
    assert facts["columns"]["price"] == "double"
    wanted = {"space_id", "item_ids_sha256", "metric", "geometry", "normalised", "n", "dim"}
    assert wanted < set(facts)
    assert facts["queries"] == "A query is one vector."


def test_the_command_line_verifies_exports_and_bundles(
    exports: Path, trained: Path, tmp_path: Path
) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        found = CliRunner().invoke(main, ["verify", *map(str, arguments)])
        return found.exit_code, found.output

    assert run(exports / "parquet") == (0, f"ok: 6 files of model {trained.name}\n")
    code, output = run(exports / "qdrant", "--json")
    assert (code, json.loads(output)["target"]) == (0, "qdrant")
    assert recsys.verify(trained)["model_id"] == trained.name
    shutil.copytree(exports / "parquet", tmp_path / "copy")
    with (tmp_path / "copy" / "vectors.parquet").open("ab") as file:
        file.write(b"x")
    code, output = run(tmp_path / "copy")
    assert code == 5
    assert "vectors.parquet" in output
    code, output = run(tmp_path)
    assert code == 4
    assert "neither an export" in output


def test_the_command_line_chooses_columns(trained: Path, tmp_path: Path) -> None:
    def run(columns: str, out: str) -> tuple[int, str]:
        options = ["--to", "lancedb", "--columns", columns, "--out", str(tmp_path / out)]
        found = CliRunner().invoke(main, ["export", str(trained), *options])
        return found.exit_code, found.output

    assert run("price,department", "two")[0] == 0
    columns = open_export(tmp_path / "two").facts["columns"]
    assert columns == {"item_id": "string", "price": "double", "department": "string"}
    assert run("", "none")[0] == 0
    assert list(open_export(tmp_path / "none").facts["columns"]) == ["item_id"]
    assert "## Filter" not in (tmp_path / "none" / "README.md").read_text()
    code, output = run("prise", "wrong")
    assert (code, "no column 'prise'" in output, "'price'" in output) == (2, True, True)
    assert not (tmp_path / "wrong").exists()
    facts = recsys.export(trained, tmp_path / "api", to="qdrant", columns=["brand"])
    assert facts["point_id"] == "row"
    assert list(open_export(tmp_path / "api").facts["columns"]) == ["item_id", "brand"]
