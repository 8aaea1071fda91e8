"""Bundles: nothing half-written, nothing foreign, nothing changed goes unnoticed."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from recsys.bundle.directory import MANIFEST, Bundle, bundles_in, write_bundle
from recsys.core.errors import IntegrityError, NotFoundError

FILES = {"a.json": b'{"x": 1}', "deep/er/b.bin": bytes(range(256)), "empty.txt": b""}


def fill(folder: Path) -> None:
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles", fill, facts={"n": 3})


def test_what_was_written_is_read(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.model_id == bundle.name
    assert {name: opened.read(name) for name in opened.names()} == FILES
    assert opened.json("a.json") == {"x": 1}
    assert opened.manifest["facts"] == {"n": 3}
    assert not opened.has("c")
    with pytest.raises(NotFoundError, match="holds no 'c'"):
        opened.read("c")


def test_content_names_the_bundle(tmp_path: Path, bundle: Path) -> None:
    assert write_bundle(bundle.parent, fill, facts={"n": 3}) == bundle
    assert write_bundle(bundle.parent, fill, facts={"n": 4}) != bundle
    assert sorted(p.name for p in bundle.parent.iterdir() if p.name.startswith(".")) == []


DAMAGES = [
    (name, damage)
    for name in [*FILES, MANIFEST]
    for damage in ("flip", "truncate", "append", "delete", "link")
    if FILES.get(name) != b"" or damage not in ("flip", "truncate")
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_every_damage_to_every_file_is_refused(bundle: Path, name: str, damage: str) -> None:
    path = bundle / name
    data = path.read_bytes()
    if damage == "flip":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "append":
        path.write_bytes(data + b"x")
    elif damage == "delete":
        path.unlink()
    else:
        outside = bundle.parent / "outside"
        path.rename(outside)
        path.symlink_to(outside)
    with pytest.raises((IntegrityError, NotFoundError), match=path.name):
        Bundle.open(bundle)


def test_a_file_more_is_refused(bundle: Path) -> None:
    (bundle / "deep" / "extra").write_text("x")
    with pytest.raises(IntegrityError, match="deep/extra: not a file of this bundle"):
        Bundle.open(bundle)


def test_a_change_between_opening_and_reading_is_refused(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    (bundle / "a.json").write_bytes(b'{"x": 2}')
    with pytest.raises(IntegrityError, match=r"a\.json: 8 bytes with sha256"):
        opened.read("a.json")


@pytest.mark.parametrize("name", ["../a.json", "/etc/hostname", "a//b", ".hidden", "a b"])
def test_names_that_lead_elsewhere_are_refused(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][0]["path"] = name
    forged = {k: v for k, v in manifest.items() if k not in ("model_id", "created")}
    text = json.dumps(forged, sort_keys=True, separators=(",", ":"))
    manifest["model_id"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match="bad name"):
        Bundle.open(bundle)


@pytest.mark.parametrize("text", ["[]", "{", '{"schema_version": 99, "files": []}'])
def test_a_foreign_manifest_is_refused(bundle: Path, text: str) -> None:
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(
        IntegrityError, match=r"manifest\.json: (not a manifest|manifest of version)"
    ):
        Bundle.open(bundle)


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_bundle(tmp_path / "bundles", fail, facts={})
    assert os.listdir(tmp_path / "bundles") == []


def test_a_kill_while_writing_leaves_no_bundle(tmp_path: Path) -> None:
    program = f"""
        import time
        from pathlib import Path
        from recsys.bundle.directory import write_bundle
        def write(folder):
            (folder / "half").write_text("x")
            print("writing", flush=True)
            time.sleep(60)
        write_bundle(Path({str(tmp_path)!r}), write, facts={{}})
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    (half,) = tmp_path.iterdir()
    assert half.name.startswith(".")
    (half / MANIFEST).write_text("{}")  # it is the last to be written before the rename
    assert bundles_in(tmp_path) == []
    finished = write_bundle(tmp_path, fill, facts={})
    assert Bundle.open(finished).names() == sorted(FILES)
