"""What a path means: names before patterns, links followed, nothing left out unsaid."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import ConfigError, DataError, NotFoundError
from recsys.features.tables.paths import find_files, partitions_of
from recsys.features.tables.reading import open_table


def write(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"a": [number]}), path)
    return path


def found(given: str | Path) -> list[Path]:
    return find_files(str(given), "log")[1]


@pytest.mark.parametrize("name", ["data [v2]", "what?", "a*b", "50%", "#1", "[", " a "])
def test_a_name_that_exists_is_no_pattern(tmp_path: Path, name: str) -> None:
    one, two = (write(tmp_path / name / f"part {name}.{k}.parquet") for k in (1, 2))
    write(tmp_path / "datav" / "3.parquet")
    assert found(one) == [one]
    assert found(one.parent) == [one, two]
    assert found(one.parent / "*.parquet") == [one, two]


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "home" / "log.parquet")
    assert found("~/log.parquet") == found("~/*.parquet") == [path]
    write(tmp_path / "~" / "log.parquet")
    assert found("~/log.parquet") == [Path("~/log.parquet")]
    with pytest.raises(NotFoundError, match="does not exist"):
        found("~nobody-of-this-name/log.parquet")


def test_links_to_folders_are_followed_once_round(tmp_path: Path) -> None:
    one = write(tmp_path / "log" / "month=1" / "a.parquet")
    write(tmp_path / "other" / "b.parquet")
    link = tmp_path / "log" / "month=2"
    link.symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "log")
    root, files = find_files(str(tmp_path / "log"), "log")
    assert files == [one, link / "b.parquet"]
    assert [partitions_of(path, root) for path in files] == [{"month": "1"}, {"month": "2"}]
    assert found(tmp_path / "log" / "month=*") == files


def test_a_file_met_twice_is_refused_with_both_names(tmp_path: Path) -> None:
    write(tmp_path / "2024" / "a.parquet")
    (tmp_path / "latest").symlink_to("2024")
    with pytest.raises(DataError, match=r"latest/a\.parquet: the same file as .*2024/a\.parquet"):
        found(tmp_path)
    assert found(tmp_path / "20*" / "*.parquet") == [tmp_path / "2024" / "a.parquet"]


@pytest.mark.parametrize("given", ["", "*", "b.parquet"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, given: str) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").symlink_to("gone.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: a link to gone\.parquet, which is not there"):
        found(tmp_path / given if given else tmp_path)


def test_folders_that_a_pattern_matches_are_read_whole(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{k}.parquet" / "part-0.parquet") for k in range(2)]
    write(tmp_path / "1.parquet" / "_temporary" / "x.parquet")
    assert found(tmp_path / "*.parquet") == found(tmp_path / "**") == files


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a" / "a.parquet")
    closed = tmp_path / "b"
    closed.mkdir()
    listed = Path.iterdir

    def iterdir(path: Path) -> object:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(DataError, match=r"b: the folder cannot be listed \(Permission denied\)"):
        found(tmp_path)


def test_names_and_values_of_partitions_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a%20b=1%2F2" / "c=__HIVE_DEFAULT_PARTITION__" / "x.parquet"
    assert partitions_of(path, tmp_path) == {"a b": "1/2", "c": None}


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet")
    os.mkfifo(tmp_path / "2.parquet")
    for given in (tmp_path, tmp_path / "*.parquet", tmp_path / "2.parquet"):
        with pytest.raises(DataError, match=r"2\.parquet: neither a file nor a folder; write"):
            found(given)


def test_names_that_no_library_opens(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet").rename(tmp_path / os.fsdecode(b"l\xffg.parquet"))
    for given in (tmp_path, tmp_path / os.fsdecode(b"l\xffg.parquet")):
        with pytest.raises(DataError, match=r"l\\udcffg\.parquet: the name is not UTF-8; rename"):
            found(given)
    with pytest.raises(DataError, match="the system does not look there"):
        open_table(str(tmp_path / ("x" * 300)), "log")


@pytest.mark.parametrize("given", ["odd://bucket/log.parquet", "odd://host/*"])
def test_an_address_of_no_store(given: str) -> None:
    with pytest.raises(ConfigError, match=r"odd://.*: no kind of store that is known"):
        open_table(given, "log")


def test_two_folders_that_give_one_column(tmp_path: Path) -> None:
    path = write(tmp_path / "day=1" / "day=2" / "log.parquet")
    with pytest.raises(DataError, match="column 'day': two folders above the file give this"):
        partitions_of(path, tmp_path)
