"""Addresses as paths: what they are called, what a store is asked, what it answers."""

import importlib.util
import uuid
from pathlib import Path

import pytest

from recsys.core.errors import ConfigError, NotFoundError, StoreError
from recsys.core.remote.faults import fault, store_fault
from recsys.core.remote.path import RemotePath, below, here, is_remote, matches, path_at, readable


@pytest.fixture
def root() -> Path:
    return path_at(f"memory://bucket-{uuid.uuid4().hex}")


@pytest.mark.parametrize("given", ["s3://b/a c/x.csv", Path("s3://b/a c/x.csv"), "s3:/b/a c/x.csv"])
def test_an_address_keeps_its_name(given: str | Path) -> None:
    path = path_at(given)
    assert isinstance(path, RemotePath)
    assert str(path) == "s3://b/a c/x.csv" == f"{path}"
    assert str(path.parent) == "s3://b/a c"
    assert str(path.parent / "y" / "z") == "s3://b/a c/y/z"
    assert (path.name, path.suffix, path.scheme, path.within) == (
        "x.csv",
        ".csv",
        "s3",
        ("b", "a c", "x.csv"),
    )
    assert path_at(path) is path
    assert path.resolve() == path.absolute() == path.expanduser() == path
    assert path.relative_to(path.parent) == Path("x.csv")


@pytest.mark.parametrize("given", ["x/y.csv", "/x", "models:/shop@prod", "runs:/12", "C:/x", ""])
def test_what_is_no_address(given: str) -> None:
    assert path_at(given) == Path(given)
    assert not is_remote(given)


def test_file_is_this_machine() -> None:
    assert path_at("file:///data/a%20b.csv") == Path("/data/a b.csv")
    assert path_at("hdfs:///data/x").parts == ("hdfs:", "default", "data", "x")


@pytest.mark.parametrize(
    ("folder", "given", "found"),
    [
        ("s3://b/c", "x.csv", "s3://b/c/x.csv"),
        ("s3://b/c", "../raw/x.csv", "s3://b/raw/x.csv"),
        ("s3://b/c", "s3://d/x", "s3://d/x"),
        ("s3://b/c", "/data/x", "/data/x"),
        ("conf", "s3://d/x", "s3://d/x"),
        ("conf", "x", "conf/x"),
        ("conf", "/data/x", "/data/x"),
    ],
)
def test_paths_beside_a_configuration(folder: str, given: str, found: str) -> None:
    assert str(below(path_at(folder), given)) == found


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("a/b.csv", "*/*.csv", True),
        ("b.csv", "*/*.csv", False),
        ("b.csv", "**/*.csv", True),
        ("a/c/b.csv", "**/*.csv", True),
        ("a/c/b.csv", "a/**", True),
        ("a/c/b.csv", "a/*", False),
        ("a/c/b.csv", "a/**/b.csv", True),
        ("a/B.csv", "a/b.csv", False),
        ("a/x1.csv", "a/x[0-9].csv", True),
    ],
)
def test_patterns(path: str, pattern: str, fits: bool) -> None:
    assert matches(tuple(path.split("/")), tuple(pattern.split("/"))) is fits


def test_files_are_written_and_read(root: Path) -> None:
    one, two = root / "a" / "one.txt", root / "two.txt"
    assert not one.exists()
    assert one.write_text("h\u00e9llo\n") == 7
    two.write_bytes(b"x" * 10)
    assert (one.is_file(), one.is_dir(), one.is_symlink()) == (True, False, False)
    assert (one.parent.is_file(), one.parent.is_dir()) == (False, True)
    assert one.read_text() == "h\u00e9llo\n"
    assert two.stat().st_size == 10
    with two.open("rb") as stream:
        assert (stream.read(4), stream.read()) == (b"xxxx", b"x" * 6)
    with one.open() as text:
        assert text.readline() == "h\u00e9llo\n"
    assert [*root.iterdir()] == [root / "a", two]
    assert [*root.rglob("*.txt")] == [one, two]
    assert [*root.glob("*/one.*")] == [one]
    assert readable(two).read() == b"x" * 10
    assert readable(Path("x")) == Path("x")
    two.unlink()
    two.unlink(missing_ok=True)
    assert [*root.iterdir()] == [root / "a"]
    with pytest.raises(NotFoundError, match=r"two\.txt: not there; correct the address"):
        two.read_bytes()
    with pytest.raises(OSError, match="an object is written at once"):
        one.open("w")


def test_a_file_that_was_written_again_is_another(root: Path) -> None:
    path = root / "x"
    assert isinstance(path, RemotePath)
    path.write_bytes(b"1")
    before = path.version()
    assert path.version() == before
    path.write_bytes(b"2")
    assert path.version() != before


def test_what_has_to_be_here() -> None:
    assert here("x", "cache", "it is mapped into memory") == Path("x")
    with pytest.raises(ConfigError, match=r"cache: s3://b/c: it is mapped into memory; name a"):
        here("s3://b/c", "cache", "it is mapped into memory")


def test_stores_that_are_not_known() -> None:
    with pytest.raises(ConfigError, match="nostore://x: no kind of store that is known; s3://, "):
        path_at("nostore://x/y").exists()


def test_a_package_that_is_missing_is_named() -> None:
    if importlib.util.find_spec("paramiko") is not None:
        pytest.skip("paramiko is installed")
    with pytest.raises(ConfigError, match=r"sftp://host: a package is not installed: .*paramiko"):
        path_at("sftp://host/y").exists()


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            "When listing objects under key '' in bucket 'b': AWS Error NO_SUCH_BUCKET during "
            "ListObjectsV2 operation: The specified bucket does not exist",
            NotFoundError,
            "s3://b/x: there is no bucket 'b' here; correct the address, or set AWS_ENDPOINT_URL",
        ),
        (
            "When getting information for key 'x' in bucket 'b': AWS Error ACCESS_DENIED during "
            "HeadObject operation: No response body.",
            ConfigError,
            r"s3://b/x: the store does not allow it \(ACCESS_DENIED at HeadObject\); check who "
            r"asks \(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY\) and what they may do with b",
        ),
        (
            "AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Could not "
            "connect to server",
            StoreError,
            r"s3://b/x: the store did not answer \(NETWORK_CONNECTION at HeadObject\)",
        ),
    ],
)
def test_refusals_in_words(
    said: str, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    found = fault("s3://b/x", OSError(said))
    assert type(found) is kind
    with pytest.raises(kind, match=words):
        raise found
    assert type(store_fault("s3://b/x", OSError(said))) is kind
    assert store_fault("x.parquet", OSError(said)) is None
    assert store_fault("s3://b/x", OSError("Corrupt snappy compressed data.")) is None
