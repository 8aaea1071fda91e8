"""Runs whose folder is in a store: what is sent when, who may send, what comes back."""

import logging
import uuid
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from filelock import FileLock
from fsspec.implementations.memory import MemoryFileSystem

from recsys.core.errors import ConfigError, NotFoundError, StoreError
from recsys.core.remote.path import RemotePath, path_at
from recsys.training.engine.run_home import (
    LOCK,
    begin_at,
    brought,
    home_address,
    leave_work,
    local_folder,
    send_checkpoint,
    send_home,
)


class Leaving(MemoryFileSystem):
    """A store that keeps files as memory:// does, and is away at times."""

    protocol = "leaving"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    away = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("leaving://"))

    def _open(self, path: str, mode: str = "rb", **how: Any) -> Any:
        if self.away:
            raise OSError("Could not connect to server")
        return super()._open(path, mode, **how)


fsspec.register_implementation("leaving", Leaving, clobber=True)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemotePath:
    """The address of a run; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Leaving, "away", False)
    path = path_at(f"leaving://bucket-{uuid.uuid4().hex}/runs/one")
    assert isinstance(path, RemotePath)
    return path


def names(folder: RemotePath) -> list[str]:
    return [str(one.path.relative_to(folder)) for one in folder.entries(below=True) if one.is_file]


def write(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_run_begins_with_its_configuration(address: RemotePath) -> None:
    folder = begin_at(address, "kind: x")
    assert folder == local_folder(address)
    assert folder.parts[:2] == (".recsys_cache", "runs")
    assert names(address) == ["config.yaml", "owner.json"]
    assert (address / "config.yaml").read_text() == "kind: x"
    assert home_address(folder) == address
    assert home_address(Path("runs/two")) == Path("runs/two")


def test_what_changed_is_sent_and_what_is_gone_removed(address: RemotePath) -> None:
    folder = begin_at(address, "")
    write(folder, "checkpoints/step-1/table/0", "checkpoints/step-1/files.json", ".lock", ".x/y")
    assert send_home(folder / "checkpoints") == address
    kept = ["config.yaml", "owner.json"]
    one = ["checkpoints/step-1/files.json", "checkpoints/step-1/table/0"]
    assert names(address) == sorted([*one, *kept])
    for path in folder.rglob("*"):
        if path.name in ("0", "files.json"):
            path.unlink()
    write(folder, "bundle/m/manifest.json", "report.html")
    send_home(folder)
    assert names(address) == sorted(["bundle/m/manifest.json", "report.html", *kept])
    assert not (address / "checkpoints").exists()
    (address / "report.html").unlink()  # what did not change is not sent again
    send_home(folder)
    assert "report.html" not in names(address)
    assert send_home(Path("elsewhere")) is None


def test_lists_and_manifests_are_sent_last(
    address: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, order = begin_at(address, ""), []
    write(folder, "bundle/m/a", "bundle/m/manifest.json", "bundle/m/z", "step/files.json", "zz")
    opened = Leaving._open

    def noted(self: Leaving, path: str, mode: str = "rb", **how: Any) -> Any:
        if "w" in mode:
            order.append(path.rsplit("/", 1)[-1])
        return opened(self, path, mode, **how)

    monkeypatch.setattr(Leaving, "_open", noted)
    send_home(folder)
    assert sorted(order[:3]) == ["a", "z", "zz"]
    assert sorted(order[3:]) == ["files.json", "manifest.json"]


def test_a_run_is_brought_back_as_it_is_there(address: RemotePath) -> None:
    folder = begin_at(address, "kind: x")
    write(folder, "checkpoints/step-1/files.json")
    send_home(folder)
    write(folder, "not sent")
    assert brought(address) == folder
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        *("config.yaml", "checkpoints/step-1/files.json", ".lock", ".sent.json")
    }
    leave_work(folder)
    assert (brought(address) / "config.yaml").read_text() == "kind: x"
    assert brought(Path("runs/two")) == Path("runs/two")
    with pytest.raises(NotFoundError, match=r"runs/two: no run to resume \(config.yaml is missing"):
        brought(address.parent / "two")


def test_of_two_that_continue_a_run_the_earlier_stops(
    address: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin_at(address, "").absolute()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")  # as another machine
    later = brought(address)
    write(folder, "early")
    write(later, "late")
    with pytest.raises(ConfigError, match=r"runs/one: another process on .* continues this run"):
        send_checkpoint(folder)
    send_home(later)
    assert names(address) == ["config.yaml", "late", "owner.json"]


def test_of_two_on_one_machine_the_later_is_refused(address: RemotePath) -> None:
    folder = begin_at(address, "")
    with (
        FileLock(folder / LOCK),
        pytest.raises(ConfigError, match="runs/one: another process is training this run"),
    ):
        brought(address)


def test_a_store_that_is_away_at_a_checkpoint(
    address: RemotePath, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = begin_at(address, "")
    write(folder, "checkpoints/step-1/files.json")
    monkeypatch.setattr(Leaving, "away", True)
    with caplog.at_level(logging.WARNING):
        send_checkpoint(folder)
    assert "the checkpoint stays here and is sent with the next one" in caplog.text
    with pytest.raises(StoreError, match=r"the store did not answer .Could not connect to server"):
        send_home(folder)
    monkeypatch.setattr(Leaving, "away", False)
    send_checkpoint(folder)
    assert "checkpoints/step-1/files.json" in names(address)
