"""CSV as programs and people write it: dialects, encodings, compression, signs in numbers."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from recsys.core.errors import ConfigError, DataError
from recsys.core.strict import StrictModel, parse
from recsys.features.propose.number_signs import signs_of
from recsys.features.propose.tables import infer
from recsys.features.schema import Schema
from recsys.features.tables.checked import read_tables
from recsys.features.tables.number_text import PLAIN, NumberText
from recsys.features.tables.reading import fingerprint, open_table
from recsys.features.tables.sources import Policies, Source, Sources, TableSource

TITLES = ["plain", "a, b", "a; b", 'say "hi"', "two\nlines", "tab\there", "K\u00e4se", "a|b", "1,5"]
EXPECTED = [(str(number), title, "1") for number, title in enumerate(TITLES)]


def rows_of(source: Source) -> list[tuple[str | None, ...]]:
    files = open_table(source, "items")
    columns = [name for name in files.columns if name]
    tables = [batch.table for batch in files.batches(columns)]
    return list(zip(*(pa.concat_tables(tables).to_pydict().values()), strict=True))


def written(delimiter: str, *, escape: bool = False, end: str = "\r\n") -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(
        out,
        delimiter=delimiter,
        doublequote=not escape,
        escapechar="\\" if escape else None,
        lineterminator=end,
    )
    writer.writerows([["id", "title", "price, EUR"], *([n, t, 1] for n, t in enumerate(TITLES))])
    return out.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("escape", [False, True])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_dialect_is_the_one_that_all_rows_agree_on(
    tmp_path: Path, delimiter: str, escape: bool, end: str
) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(written(delimiter, escape=escape, end=end).encode())
    assert open_table(str(path), "items").columns == ("id", "title", "price, EUR")
    assert rows_of(str(path)) == EXPECTED


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([",", ";", "\t", "|"]),
    st.lists(
        st.tuples(*[st.text(st.sampled_from("ab,;|\t\"' \n1.\u00e9"), min_size=1)] * 3),
        min_size=4,
        max_size=9,
    ),
)
def test_what_python_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, delimiter: str, rows: list[tuple[str, ...]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(
            [("one", "two", "three"), *rows]
        )
    assert rows_of(str(path)) == rows


ODD = {
    "row names of R": ('"id","t"\n"1",5,"a"\n"2",6,"b"\n', [("5", "a"), ("6", "b")]),
    "an index without a name": (",id,t\n0,5,a\n1,6,b\n", [("5", "a"), ("6", "b")]),
    "a delimiter at the end of rows": ("id,t\n5,a,\n6,b,\n", [("5", "a"), ("6", "b")]),
    "single quotes": ("'id','t'\n5,'a, b'\n6,'c'\n", [("5", "a, b"), ("6", "c")]),
    "quotes that are inches": ('id\tt\n5\t5"\n6\t"x\n', [("5", '5"'), ("6", '"x')]),
    "one column": ("price, EUR\n5\n6\n", [("5",), ("6",)]),
    "lines of old machines": ("id,t\r5,a\r6,b\r", [("5", "a"), ("6", "b")]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read(tmp_path: Path, name: str) -> None:
    text, rows = ODD[name]
    path = tmp_path / "items.csv"
    path.write_text(text, newline="")
    assert rows_of(str(path)) == rows


@pytest.mark.parametrize(
    ("encoding", "found", "is_said"),
    [
        ("utf-8", "utf-8", False),
        ("utf-8-sig", "utf-8", False),
        ("utf-16", "utf-16", False),
        ("utf-16-le", "utf-16-le", True),
        ("utf-16-be", "utf-16-be", True),
        ("utf-32", "utf-32", False),
        ("cp1252", "cp1252", True),
        ("latin-1", "cp1252", True),
    ],
)
def test_an_encoding_is_recognised_and_said_where_it_is_assumed(
    tmp_path: Path, encoding: str, found: str, is_said: bool
) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(written(";").encode(encoding))
    files = open_table(str(path), "items")
    assert rows_of(str(path)) == EXPECTED
    assert files.said == ((f"items.csv: no UTF-8; read as {found}",) if is_said else ())


def test_a_declared_encoding_and_delimiter_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes("id/name\n1/\u0141\u00f3d\u017a\n".encode("cp1250"))
    with pytest.raises(DataError, match="line 2 is neither UTF-8 nor Windows-1252; declare"):
        rows_of(str(path))
    source = TableSource(path=str(path), encoding="cp1250", delimiter="/")
    assert rows_of(source) == [("1", "\u0141\u00f3d\u017a")]
    assert open_table(source, "items").said == ()
    with pytest.raises(DataError, match=r"line 2 is not UTF-8.*encoding: cp1252"):
        rows_of(source.model_copy(update={"encoding": "utf-8"}))
    path.write_text("id/name\n1/\u0141\n")
    with pytest.raises(DataError, match="cp1250 is declared, but line 2 is UTF-8; correct"):
        rows_of(source)
    declared = TableSource(path=str(path), delimiter="/")
    marks = {fingerprint([open_table(one, "items")]) for one in (str(path), declared)}
    assert len(marks) == 2
    with pytest.raises(ConfigError, match="'latin9000' is no encoding"):
        parse(TableSource, {"path": "a", "encoding": "latin9000"}, source="x.yaml")
    parquet = tmp_path / "items.parquet"
    pa.parquet.write_table(pa.table({"id": [1]}), parquet)
    with pytest.raises(DataError, match="encoding and delimiter are of CSV files"):
        open_table(TableSource(path=str(parquet), encoding="cp1252"), "items")


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("ending", PACKED)
def test_compressed_files_are_known_by_their_bytes(tmp_path: Path, ending: str) -> None:
    data = PACKED[ending](written(";").encode("utf-16"))
    for name in (f"items.csv.{ending}", f"items.TSV.{ending.upper()}", "items.csv"):
        path = tmp_path / name
        path.write_bytes(data)
        assert rows_of(str(path)) == EXPECTED
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(DataError, match="damaged or cut off"):
            rows_of(str(path))


STYLES = [
    (["39.47", "5", ""], PLAIN),
    (["39,47", "5,0", ""], NumberText(",")),
    (["1.234,5", "12", "7"], NumberText(",", ".")),
    (["1 234,50", "1,5"], NumberText(",", " ")),
    (["1\u00a0234,50", "1,5"], NumberText(",", " ")),
    (["1'234.50", "1.5"], NumberText(".", "'")),
    (["1,234,567", "1,000"], NumberText(".", ",")),
    (["1,234.5", "2"], NumberText(".", ",")),
    (["a,b", "39,47"], PLAIN),
    (["1.2.3", "4.5.6"], PLAIN),
    (["1,2,3", "4,5,6"], PLAIN),
    (["1,2", "3", "5", "2,4"], PLAIN),
]


@pytest.mark.parametrize(("texts", "expected"), STYLES)
def test_signs_of_one_column(texts: list[str], expected: NumberText) -> None:
    assert signs_of({"a": pa.array(texts)}).written == expected


def test_signs_are_those_of_all_columns_together() -> None:
    doubtful, clear = pa.array(["1,234", "5,678"]), pa.array(["0,5", "1,5"])
    alone = signs_of({"a": doubtful})
    assert alone.written == PLAIN
    assert "'1,234', which may be thousands or decimals" in alone.said[0]
    assert signs_of({"a": doubtful, "b": clear}).written == NumberText(",")
    mixed = signs_of({"a": clear, "b": pa.array(["0.5", "1.5"])})
    assert mixed.written == PLAIN
    assert "those of 'b' not: write them alike" in mixed.said[0]


@settings(max_examples=100)
@given(
    st.floats(-1e9, 1e9, allow_nan=False).map(lambda number: round(number, 3)),
    st.sampled_from([PLAIN, NumberText(","), NumberText(",", "."), NumberText(",", " ")]),
)
def test_what_is_written_by_a_rule_is_read_by_it(number: float, rule: NumberText) -> None:
    text = f"{number:,.3f}".replace(",", "_").replace(".", rule.decimal)
    text = text.replace("_", rule.thousands)
    texts = pa.array([text])
    assert pa.compute.match_substring_regex(texts, rule.pattern)[0].as_py()
    assert float(rule.as_plain(texts)[0].as_py()) == number


@pytest.mark.parametrize("bad", ["1.5", "12.34,5", "1.2345,6", "1,2,3", "--1", "1,5 \u20ac"])
def test_a_number_of_another_rule_is_none(bad: str) -> None:
    rule = NumberText(",", ".")
    assert not pa.compute.match_substring_regex(pa.array([bad]), rule.pattern)[0].as_py()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    log = "\n".join(f"{n % 7};{n % 5};{1_700_000_000 + n};{n % 5},5" for n in range(60))
    (tmp_path / "log.csv").write_text(f"user_id;item_id;timestamp;stars\n{log}\n")
    items = "\n".join(f'{n};K\u00e4se {n};1.00{n},5{n};"0,{n}"' for n in range(5))
    text = f"item_id;title;price;share\n{items}\n"
    (tmp_path / "items.csv").write_bytes(text.encode("cp1252"))
    return tmp_path


def test_init_declares_what_the_files_have(shop: Path) -> None:
    found = infer([shop / "log.csv", shop / "items.csv"], relative_to=shop)
    raw = yaml.safe_load(found.yaml)
    assert raw["data"]["items"] == {"path": str(shop / "items.csv"), "encoding": "cp1252"}
    assert raw["data"]["interactions"] == str(shop / "log.csv")
    assert raw["schema"]["items"]["decimal"] == ","
    assert raw["schema"]["items"]["thousands"] == "."
    assert raw["schema"]["interactions"]["decimal"] == ","
    kinds = {one["name"]: one["kind"] for one in raw["schema"]["features"]}
    assert (kinds["price"], kinds["share"]) == ("numeric", "numeric")
    assert any("read as cp1252" in line for line in found.unsure)
    assert any("a decimal comma and '.' between thousands" in line for line in found.unsure)


def _schema(**more: Any) -> Schema:
    features: list[dict[str, str]] = [
        {"name": "item_id", "table": "items", "kind": "categorical"},
        {"name": "price", "table": "items", "kind": "numeric"},
    ]
    raw: dict[str, Any] = {
        "interactions": {"user": "user_id", "item": "item_id", **more.get("interactions", {})},
        "items": {"key": "item_id", **more.get("items", {})},
        "features": features,
    }
    return Schema.model_validate_json(json.dumps(raw))


def test_numbers_of_every_role_are_read_by_the_rule_of_their_table(shop: Path) -> None:
    log = {"decimal": ",", "weight": "stars", "where": [{"column": "stars", "at_least": 1.5}]}
    schema = _schema(interactions=log, items={"decimal": ",", "thousands": "."})
    sources = Sources(interactions=str(shop / "log.csv"), items=str(shop / "items.csv"))
    tables = read_tables(schema, sources, Policies())
    assert tables.items.column("price").to_pylist() == [1000.50, 1001.51, 1002.52, 1003.53, 1004.54]
    assert sorted(set(tables.events.weight.tolist())) == [1.5, 2.5, 3.5, 4.5]
    assert len(tables.events) == 48
    assert tables.said == ("items.csv: no UTF-8; read as cp1252",)
    with pytest.raises(DataError, match=r"'1\.000,50'; if the comma .* schema\.items\.decimal"):
        read_tables(_schema(), sources, Policies())
    without = _schema(interactions=log, items={"decimal": ","})
    with pytest.raises(DataError, match="numbers of this table have a decimal comma"):
        read_tables(without, sources, Policies())


def test_signs_that_are_the_same_are_refused() -> None:
    with pytest.raises(ValueError, match="decimal and thousands are both ','"):
        _schema(items={"decimal": ",", "thousands": ","})


MISPLACED = {
    ("data", "items", "decimal"): "is a key of schema.items: write schema.items.decimal",
    ("schema", "items", "encoding"): "is a key of data.items: write data.items.encoding",
    ("schema", "interactions", "delimiter"): "write data.interactions.delimiter",
    ("data", "items", "sep"): "'sep' is called 'delimiter' here",
    ("data", "items", "charset"): "'charset' is called 'encoding' here",
}


class _Both(StrictModel):
    data: Sources
    schema_: Schema = Field(alias="schema")


@pytest.mark.parametrize("place", MISPLACED, ids=".".join)
def test_a_key_in_the_wrong_place_gets_the_right_one(place: tuple[str, str, str]) -> None:
    section, table, key = place
    raw: dict[str, Any] = {
        "data": {"interactions": "log.csv", "items": {"path": "items.csv"}},
        "schema": _schema().model_dump(mode="json"),
    }
    raw[section][table][key] = ","
    with pytest.raises(ConfigError, match=MISPLACED[place]):
        parse(_Both, raw, source="recsys.yaml")
