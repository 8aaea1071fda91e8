"""How ids are written: several spellings are one id, everywhere, and writing twice is once."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.core.errors import DataError
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.id_forms import IdForm, written_ids, written_like
from recsys.features.tables.sources import Policies, Sources


def written(form: IdForm, *words: str) -> list[str]:
    return list(form.written(pa.array(words, pa.large_string())).to_pylist())


@pytest.mark.parametrize(
    ("form", "spellings", "expected"),
    [
        (IdForm(pad=7), ["12345", "0012345", "12345.0", "0000012345"], "0012345"),
        (IdForm(leading_zeros="drop"), ["7", "007", "0000007"], "7"),
        (IdForm(leading_zeros="drop"), ["0", "000"], "0"),
        (IdForm(trailing_zero="drop"), ["7", "7.0", "7."], "7"),
        (IdForm(case="lower"), ["AbC", "abc", "ABC"], "abc"),
        (IdForm(case="upper"), ["AbC", "abc", "ABC"], "ABC"),
        (IdForm(form="NFC"), ["caf\u00e9", "cafe\u0301"], "caf\u00e9"),
        (IdForm(form="NFKC"), ["\uff11\uff12", "12"], "12"),
        (IdForm(strip=True), [" a1", "a1\u00a0", "\ufeffa1", "a\u200b1", "a\u00ad1\t"], "a1"),
        (IdForm(prefix="item_"), ["item_5", "5"], "5"),
        (IdForm(prefix="Item_", case="lower"), ["ITEM_5", "item_5", "5"], "5"),
        (IdForm(prefix="i", pad=3, strip=True), ["i 5.0", "i05 ", "5"], "005"),
    ],
)
def test_spellings_are_one_id(form: IdForm, spellings: list[str], expected: str) -> None:
    assert set(written(form, *spellings)) == {expected}


def test_what_is_no_number_is_not_padded() -> None:
    ids = ["A12", "-5", "12345678", "1.5", ""]
    assert written(IdForm(pad=7), *ids) == ids


def test_joiners_inside_words_stay() -> None:
    assert written(IdForm(strip=True), "\u200d\u0645\u200c\u0646\u200c") == ["\u0645\u200c\u0646"]


FORMS = st.builds(
    lambda zeros, **rest: IdForm(**rest, **zeros, as_text=True),
    zeros=st.sampled_from([{}, {"pad": 4}, {"leading_zeros": "drop"}]),
    strip=st.booleans(),
    form=st.sampled_from([None, "NFC", "NFKC"]),
    case=st.sampled_from([None, "lower", "upper"]),
    prefix=st.sampled_from(["", "0", "a", "I ", "\u00a8", "\u0130x"]),
    trailing_zero=st.sampled_from([None, "drop"]),
)
IDS = st.one_of(
    st.text(st.sampled_from("0012.aAI \u00a0\u200b\u200d\u00a8\u0130\u0301\u1e9e-"), max_size=8),
    st.text(max_size=12),
)


@settings(deadline=None, max_examples=300)
@given(form=FORMS, words=st.lists(IDS, max_size=6))
def test_writing_twice_is_once(form: IdForm, words: list[str]) -> None:
    once = written(form, *words)
    assert written(form, *once) == once


@settings(deadline=None, max_examples=50)
@given(form=FORMS, number=st.integers(0, 10**6))
def test_every_way_in_writes_alike(form: IdForm, number: int) -> None:
    expected = written(form, str(number))
    values = [
        pa.array([number]),
        pa.array([str(number)]),
        pa.array([str(number)]).view(pa.string()),
    ]
    for one in values:
        assert written_like(one, form, pa.large_string()).to_pylist() == expected
    assert written_ids([number], form) == written_ids(np.array([number]), form) == expected


def test_a_form_says_something() -> None:
    with pytest.raises(ValidationError, match="set at least one of strip, form, case"):
        IdForm()
    with pytest.raises(ValidationError, match="'pad' adds zeros and"):
        IdForm(pad=7, leading_zeros="drop")


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(DataError, match=r"users: an id is a whole number or text, 1\.5"):
        written_ids([1.5], IdForm(pad=3), "users")
    with pytest.raises(DataError, match="whole number or text, True"):
        written_ids([True], IdForm(as_text=True))


SPELLINGS: dict[str, Any] = {
    "integers": [12, 7, 12],
    "floats": [12.0, 7.0, 12.0],
    "text": ["0012", "7", "12.0"],
    "decimals": pa.array([12, 7, 12], pa.decimal128(10, 0)),
    "a dictionary": pa.array(["12", "07", "0012"]).dictionary_encode(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_tables_join_whatever_their_types(tmp_path: Path, name: str) -> None:
    tables = _read(tmp_path, pa.table({"user": [1, 2, 3], "item": SPELLINGS[name]}))
    assert tables.items.column("item").to_pylist() == ["0007", "0012"]
    assert tables.items.column("price").to_pylist() == [70.0, 120.0]
    assert tables.events.item_row.tolist() == [1, 0, 1]
    assert tables.drops == ()


def test_csv_tables_join(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n1,12\n2,7.0\n3,00012\n")
    tables = _read(tmp_path, None)
    assert tables.events.item_row.tolist() == [1, 0, 1]


def test_floats_need_the_policy_where_no_key_says_it(tmp_path: Path) -> None:
    log = pa.table({"user": [1, 2, 3], "item": [12.0, 7.0, 12.0]})
    with pytest.raises(DataError, match=r"ids came as floats, 12\.0.*policies\.float_ids"):
        _read(tmp_path, log, {"leading_zeros": "drop"})
    tables = _read(tmp_path, log, {"leading_zeros": "drop"}, Policies(float_ids="integer"))
    assert tables.items.column("item").to_pylist() == ["12", "7"]


def _read(
    folder: Path,
    log: pa.Table | None,
    form: dict[str, Any] | None = None,
    policies: Policies | None = None,
) -> Tables:
    pq.write_table(
        pa.table({"item": ["0007", "0012"], "price": [70.0, 120.0]}), folder / "i.parquet"
    )
    if log is not None:
        pq.write_table(log, folder / "log.parquet")
    schema = Schema.model_validate(
        {
            "interactions": {"user": "user", "item": "item"},
            "items": {"key": "item"},
            "ids": {"items": form or {"pad": 4}},
            "features": (
                {"name": "item", "table": "items", "kind": "categorical"},
                {"name": "price", "table": "items", "kind": "numeric"},
            ),
        }
    )
    path = folder / ("log.csv" if log is None else "log.parquet")
    sources = Sources(interactions=str(path), items=str(folder / "i.parquet"))
    return read_tables(schema, sources, policies or Policies())


FAULTS = {
    "a\x00b": "holds a control character",
    "a\u200bb": "holds an invisible character.*strip: true",
    "1.23E+15": "in scientific notation: a spreadsheet has cut off its digits",
    "x" * 4097: r"longer than 4,096 bytes",
    "Null": "is the word for a null",
    "\u00a0a": "padded with white space.*strip: true",
}


@pytest.mark.parametrize("word", FAULTS, ids=[repr(word[:9]) for word in FAULTS])
def test_useless_text_is_refused_with_its_row(tmp_path: Path, word: str) -> None:
    log = pa.table({"user": ["u", "v", "w"], "item": ["0007", "0012", word]})
    form = {"leading_zeros": "drop"}
    with pytest.raises(DataError, match=rf"row 3, column 'item': the id .*{FAULTS[word]}") as error:
        _read(tmp_path, log, form)
    assert len(str(error.value)) < 400
    dropped = _read(tmp_path, log, form, Policies(bad_ids="drop"))
    assert len(dropped.events) == 2
    assert [drop.rows for drop in dropped.drops] == [1]


def test_an_id_of_4096_bytes_is_one(tmp_path: Path) -> None:
    log = pa.table({"user": ["u", "v"], "item": ["x" * 4096, "7"]})
    tables = _read(tmp_path, log, {"leading_zeros": "drop"}, Policies(unknown_items="keep"))
    assert tables.items.num_rows == 3
    assert math.isnan(tables.items.column("price").to_pandas().iloc[-1])
