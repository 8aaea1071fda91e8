"""A bundle made of another one and what differs: the same bits, or a refusal."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from recsys.bundle.delta import apply_delta, write_delta
from recsys.bundle.directory import MANIFEST, Bundle, write_bundle
from recsys.core.errors import IntegrityError

OLD = {
    "table.weight": torch.arange(60.0).view(20, 3),
    "step": torch.tensor([4.0]),
    "scale": torch.tensor(2.0),
    "same": torch.ones(5, 2),
    "narrow": torch.ones(4, 2),
    "half": torch.arange(12).view(6, 2).to(torch.bfloat16),
    "none": torch.zeros(0, 3),
    "gone": torch.ones(2),
    "most": torch.zeros(6, 2),
}


def changed() -> dict[str, Tensor]:
    """Rows that differ by their bits alone are among them: another sign of zero, another NaN."""
    table = OLD["table.weight"].clone()
    table[0, 0] = -0.0
    table[7, 1] = float("nan")
    table[19] += 1
    half = OLD["half"].clone()
    half[2, 1] = -7
    same = {name: OLD[name] for name in ("same", "none")}
    other = {"step": torch.tensor([9.0]), "scale": torch.tensor(3.0), "narrow": torch.ones(4, 3)}
    new = {"new": torch.arange(6).view(3, 2), "most": torch.ones(6, 2)}
    return {"table.weight": table, "half": half, **same, **other, **new}


def written(parent: Path, tensors: dict[str, Tensor], **files: bytes) -> Bundle:
    def write(folder: Path) -> None:
        (folder / "w.safetensors").write_bytes(save(tensors))
        (folder / "deep").mkdir()
        for name, data in files.items():
            (folder / "deep" / name).write_bytes(data)

    return Bundle.open(write_bundle(parent, write, facts={"n": 1}))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Bundle, Bundle]:
    """A base, and a model with other rows, a file more, a file less, and one that is the same."""
    old = written(tmp_path / "old", OLD, same=b"as it was", gone=b"not there later")
    return old, written(tmp_path / "new", changed(), same=b"as it was", more=b"new")


def applied(folder: Path, base: Bundle, out: Path) -> Path:
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return apply_delta(lambda name: (folder / name).read_bytes(), names, base, out)


def test_what_is_made_has_the_same_bits(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    old, new = pair
    facts = write_delta(tmp_path / "delta", old, new)
    made = applied(tmp_path / "delta", old, tmp_path / "made")
    assert made.name == new.model_id
    for name in [*new.names(), MANIFEST]:
        assert (made / name).read_bytes() == (new.path / name).read_bytes(), name
    assert (facts.base, facts.result) == (old.model_id, new.model_id)
    assert set(facts.base_sha256) == {"w.safetensors", "deep/same"}


def test_only_what_differs_is_written(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    facts = write_delta(tmp_path / "delta", *pair)
    delta = tmp_path / "delta"
    files = {path.relative_to(delta).as_posix() for path in delta.rglob("*.*")}
    assert files == {"result.json", "rows/w.safetensors"}
    assert (tmp_path / "delta" / "whole" / "deep" / "more").read_bytes() == b"new"
    assert not (tmp_path / "delta" / "whole" / "deep" / "same").exists()
    held = load((tmp_path / "delta" / "rows" / "w.safetensors").read_bytes())
    assert held["rows.table.weight"].tolist() == [0, 7, 19]
    assert held["values.table.weight"].shape == (3, 3)
    assert held["rows.half"].tolist() == [2]
    whole = {name for name in held if name.startswith("whole.")}
    # All rows of `most` differ: their numbers would only be in addition.
    assert whole == {f"whole.{one}" for one in ("step", "scale", "narrow", "new", "most")}
    assert facts.rows["w.safetensors: table.weight"] == (3, 20)
    assert facts.rows["w.safetensors: same"] == (0, 5)


def test_of_another_base_nothing_is_made(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    old, new = pair
    write_delta(tmp_path / "delta", old, new)
    other = {**OLD, "same": torch.zeros(5, 2)}
    strange = written(tmp_path / "strange", other, same=b"as it was")
    with pytest.raises(IntegrityError, match=r"w\.safetensors: .* the file was changed"):
        applied(tmp_path / "delta", strange, tmp_path / "made")
    short = written(tmp_path / "short", {"table.weight": torch.zeros(3, 3)}, same=b"as it was")
    with pytest.raises(IntegrityError, match=r"rows/w\.safetensors of the delta does not fit"):
        applied(tmp_path / "delta", short, tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("result.json", b"[]", r"result\.json of the delta is not a manifest"),
        ("rows/w.safetensors", b"short", "of the delta does not fit"),
        ("whole/deep/more", b"other", "the file was changed after it was written"),
    ],
)
def test_a_delta_that_was_changed_makes_nothing(
    pair: tuple[Bundle, Bundle], tmp_path: Path, name: str, data: bytes, match: str
) -> None:
    old, new = pair
    write_delta(tmp_path / "delta", old, new)
    (tmp_path / "delta" / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=match):
        applied(tmp_path / "delta", old, tmp_path / "made")
    assert not list(tmp_path.glob("made/*"))
