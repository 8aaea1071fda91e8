"""Requests of other programs: equal ones have equal answers, odd ones one error with its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, DataError, UserError
from recsys.features.requests.origin import RequestOrigin
from recsys.serving.answering.registry import answering_of
from recsys.serving.frames import INPUT, as_table, to_frame

Ask = Callable[..., pd.DataFrame]
USERS, ITEMS = 40, 24
SIDE = [
    {"name": "item_id", "table": "items", "kind": "categorical"},
    {"name": "genre", "table": "items", "kind": "categorical"},
    {"name": "age", "table": "users", "kind": "numeric"},
    {"name": "zip", "table": "users", "kind": "categorical"},
    {"name": "vip", "table": "users", "kind": "categorical"},
    {"name": "joined", "table": "users", "kind": "timestamp", "unit": "datetime"},
    {"name": "device", "table": "interactions", "kind": "categorical"},
]
LIGHT = {"epochs": 1, "batch_size": 64}
MODELS: dict[str, dict[str, Any]] = {
    "two_tower": {"model": {"kind": "two_tower"}, "training": LIGHT},
    "session": {"model": {"kind": "session", "dim": 8}, "training": LIGHT},
    "ranker": {"model": {"kind": "autoint"}, "training": LIGHT},
    "pipeline": {
        "model": {
            "kind": "pipeline",
            "sources": [
                {"model": {"kind": "item_knn"}, "take": 8},
                {"model": {"kind": "popularity"}, "take": 8},
            ],
        }
    },
}
LISTS = ("two_tower", "session", "pipeline")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with its users and items as files."""
    made, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    user = np.repeat(np.arange(USERS), 8)
    log = pd.DataFrame(
        {
            "user_id": user,
            "item_id": np.concatenate([rng.choice(ITEMS, 8, False) for _ in range(USERS)]),
            "at": 1_700_000_000 + np.arange(len(user)) * 60,
            "device": rng.choice(["phone", "desk"], len(user)),
            "clicked": rng.integers(0, 2, len(user)),
        }
    )
    numbers = np.arange(USERS)
    users = pd.DataFrame(
        {
            "user_id": numbers,
            "age": 20.0 + numbers % 30,
            "zip": 10_000 + numbers % 7,
            "vip": numbers % 2 == 0,
            "joined": pd.Timestamp("2020-01-01") + pd.to_timedelta(numbers, unit="D"),
        }
    )
    items = pd.DataFrame(
        {"item_id": range(ITEMS), "genre": [f"g{one % 4}" for one in range(ITEMS)]}
    )
    for name, table in (("log", log), ("users", users), ("items", items)):
        table.to_parquet(made / f"{name}.parquet", index=False)
    return made


@pytest.fixture(scope="module")
def ask(folder: Path) -> Ask:
    """Ask a model as MLflow does, but for what MLflow checks itself."""
    servers: dict[str, Any] = {}

    def server_of(kind: str) -> Any:
        if kind not in servers:
            roles: dict[str, Any] = {
                "user": "user_id",
                "item": "item_id",
                "time": {"column": "at", "unit": "s"},
            }
            if kind == "ranker":
                roles["label"] = {"column": "clicked"}
            paths = {"interactions": "log", "users": "users", "items": "items"}
            run = recsys.train(
                {
                    "data": {n: str(folder / f"{one}.parquet") for n, one in paths.items()},
                    "schema": {
                        "interactions": roles,
                        "users": {"key": "user_id"},
                        "items": {"key": "item_id"},
                        "features": SIDE,
                    },
                    "split": {"kind": "leave_one_out"},
                    "tracking": {"enabled": False},
                    "output": str(folder / "runs"),
                    **MODELS[kind],
                }
            )
            servers[kind] = answering_of(Bundle.open(run.bundle)).server(run.bundle)
        return servers[kind]

    def answers(kind: str, frame: pd.DataFrame, **params: Any) -> pd.DataFrame:
        server = server_of(kind)
        table = as_table(frame, server.columns)
        return to_frame(server.answer(table, params, RequestOrigin(INPUT)))

    return answers


def plain(kind: str) -> pd.DataFrame:
    """Three requests, or rows, in the types of the training."""
    frame = pd.DataFrame(
        {
            "user_id": [1, 2, 3],
            "age": [30.0, 41.0, 25.0],
            "zip": [10_001, 10_002, 10_006],
            "vip": [False, True, False],
            "joined": pd.to_datetime(["2020-01-02 00:00", "2020-01-03 12:00", "2020-02-01 00:00"]),
        }
    )
    if kind == "ranker":
        return frame.assign(device=["phone", "desk", "phone"], item_id=[4, 5, 6], genre="g1")
    histories = pd.Series([[1, 2, 3], [7], [4, 5]], dtype=object)
    frame = frame.assign(history=histories)
    if kind == "session":
        steps = [["phone", "desk", "phone"], ["desk"], ["desk", "phone"]]
        return frame.assign(history_device=pd.Series(steps, dtype=object))
    return frame.assign(device=["phone", "desk", "phone"])


def _lists(change: Callable[[list[int]], Any]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(frame: pd.DataFrame) -> pd.DataFrame:
        cells = frame.get("history", pd.Series([[1], [2], [3]]))
        made = pd.Series([change(list(cell)) for cell in cells], dtype=object)
        return frame.assign(history=made)

    return changed


def _ids(change: Callable[[Any], Any]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    names = ("user_id", "item_id", "zip")

    def changed(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{name: change(frame[name]) for name in names if name in frame})

    return changed


WIDTHS = ("int16", "int32", "uint16", "uint32", "uint64", "float64", "Int64", "UInt32", "Float64")
FORMS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    **{f"ids as {one}": _ids(lambda ids, one=one: ids.astype(one)) for one in WIDTHS},
    "ids as text": _ids(lambda ids: ids.astype(str)),
    "ids as categories": _ids(lambda ids: ids.astype("category")),
    "ids as text categories": _ids(lambda ids: ids.astype(str).astype("category")),
    "ids as objects": _ids(lambda ids: ids.astype(object)),
    "ids as NumPy scalars": _ids(lambda ids: pd.Series([np.int32(i) for i in ids], dtype=object)),
    "ages as whole numbers": lambda frame: frame.assign(age=frame["age"].astype("int8")),
    "ages as text": lambda frame: frame.assign(age=["30", "41.0", "2.5e1"]),
    "ages as float32": lambda frame: frame.assign(age=frame["age"].astype("float32")),
    "ages as Float64": lambda frame: frame.assign(age=frame["age"].astype("Float64")),
    "flags as objects": lambda frame: frame.assign(vip=frame["vip"].astype(object)),
    "flags as boolean": lambda frame: frame.assign(vip=frame["vip"].astype("boolean")),
    "times as text": lambda frame: frame.assign(
        joined=["2020-01-02", "2020-01-03T12:00:00Z", "2020-02-01T00:00:00"]
    ),
    "times in seconds": lambda frame: frame.assign(joined=frame["joined"].astype("M8[s]")),
    "times as objects": lambda frame: frame.assign(joined=frame["joined"].astype(object)),
    "times of a zone": lambda frame: frame.assign(joined=frame["joined"].dt.tz_localize("UTC")),
    "histories as tuples": _lists(tuple),
    "histories as arrays": _lists(np.array),
    "histories as small integers": _lists(lambda ids: np.array(ids, np.uint8)),
    "histories as floats": _lists(lambda ids: [float(one) for one in ids]),
    "histories as text": _lists(lambda ids: [str(one) for one in ids]),
    "histories as NumPy scalars": _lists(lambda ids: [np.int16(one) for one in ids]),
    "columns in another order": lambda frame: frame[frame.columns[::-1]],
    "an unknown column": lambda frame: frame.assign(colour="red", nested=[{"a": 1}] * len(frame)),
    "another index": lambda frame: frame.set_axis([5, 5, 9]),
    "whole columns in one row": lambda frame: pd.DataFrame(
        [{name: list(frame[name]) for name in frame}]
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_equal_requests_have_equal_answers_whatever_their_types(ask: Ask, kind: str) -> None:
    wanted = ask(kind, plain(kind))
    for form, change in FORMS.items():
        found = ask(kind, change(plain(kind)))
        if (
            "text" in form and "user_id" in found
        ):  # a user that is no feature is given back as it came
            found = found.assign(user_id=found["user_id"].astype(int))
        pd.testing.assert_frame_equal(found, wanted, check_exact=True, obj=f"{kind}, {form}")


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_missing_is_not_known_whatever_stands_for_it(ask: Ask, kind: str) -> None:
    frame = plain(kind).astype({"zip": object, "age": object, "vip": object, "joined": object})
    nothing = frame.assign(zip=None, age=None, vip=None, joined=None)
    wanted = ask(kind, nothing)
    for null in (np.nan, pd.NA, pd.NaT):
        found = ask(kind, nothing.assign(zip=null, age=null, vip=null, joined=null))
        pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    one = frame.assign(zip=[10_001, None, 10_006])
    for form in ("float64", "Int64"):
        found = ask(kind, one.assign(zip=one["zip"].astype(form)))
        pd.testing.assert_frame_equal(found, ask(kind, one), check_exact=True)


@pytest.mark.parametrize("kind", LISTS)
def test_no_history_is_an_empty_one(ask: Ask, kind: str) -> None:
    frame = plain(kind).drop(columns=["history_device"], errors="ignore")
    wanted = ask(kind, frame.assign(history=pd.Series([[], [], []], dtype=object)))
    for null in (None, np.nan, pd.NA):
        found = ask(kind, frame.assign(history=pd.Series([null] * 3, dtype=object)))
        pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    pd.testing.assert_frame_equal(ask(kind, frame.drop(columns="history")), wanted)
    empty = pd.Series([np.array([]), (), None], dtype=object)
    pd.testing.assert_frame_equal(ask(kind, frame.assign(history=empty)), wanted)


BAD: dict[str, tuple[dict[str, Any], str, int]] = {
    "text": ({"age": ["20", "old", None]}, "age", 2),
    "half a number": ({"zip": [10_001, 1.5, None]}, "zip", 2),
    "another zip": ({"zip": ["10001", "10002", "010002"]}, "zip", 3),
    "a flag as a number": ({"vip": [1, 0, 1]}, "vip", 1),
    "no time": ({"joined": ["2020-01-01", None, "soon"]}, "joined", 3),
    "bytes": ({"age": [None, b"\xff20", None]}, "age", 2),
    "bytes for an id": ({"user_id": [b"\xff1", b"2", b"3"]}, "user_id", 1),
    "no user": ({"user_id": [1, None, 3]}, "user_id", 2),
    "half a user": ({"user_id": [1, 2, 2.5]}, "user_id", 3),
    "a large float": ({"user_id": [1, 2.0**60, 3]}, "user_id", 2),
    "several types": ({"age": [20, 30, "40"]}, "age", 3),
    "a list for a number": ({"age": [[20], [30], [40]]}, "age", 1),
    "an object": ({"age": [20, {"years": 3}, None]}, "age", 2),
    "no type at all": ({"age": [20.0, object(), None]}, "age", 2),
    "infinity": ({"age": [20.0, 21.0, float("inf")]}, "age", 3),
}
BAD_LISTS: dict[str, tuple[dict[str, Any], str, int]] = {
    "a history that is no list": ({"history": [1, 2, 3]}, "history", 1),
    "a history of text": ({"history": [["1"], ["two"], []]}, "history", 2),
    "half an item": ({"history": [[1.0], [], [2.5]]}, "history", 3),
    "a nested history": ({"history": [[[1]], [[2]], []]}, "history", 1),
    "bytes in a history": ({"history": [[], [b"\xff1"], []]}, "history", 2),
    "a huge number": ({"history": [[1], [2**70], []]}, "history", 2),
}


@pytest.mark.parametrize("what", [*BAD, *BAD_LISTS])
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_wrong_is_named_with_row_and_column(ask: Ask, kind: str, what: str) -> None:
    if what in BAD_LISTS and kind not in LISTS:
        pytest.skip("a ranker has no histories")
    changes, column, row = {**BAD, **BAD_LISTS}[what]
    if column == "user_id" and kind not in LISTS:
        pytest.skip("the ranker reads no user")
    made = {n: pd.Series(values, dtype=object) for n, values in changes.items()}
    frame = plain(kind).drop(columns=["history_device"], errors="ignore").assign(**made)
    with pytest.raises(DataError) as caught:
        ask(kind, frame)
    assert caught.value.column == column, str(caught.value)
    assert [one.number for one in caught.value.rows[:1]] == [row], str(caught.value)
    assert caught.value.file == INPUT


CELLS = st.one_of(
    st.none(),
    st.just(np.nan),
    st.integers(-3, 30),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=4),
    st.sampled_from(["7", "007", "1e3", "NaN", "2020-01-01", "phone", "π", ""]),
    st.binary(max_size=2),
    st.dates(),
    st.lists(st.one_of(st.none(), st.integers(-3, 30), st.text(max_size=2)), max_size=4),
    st.lists(st.integers(0, 30), max_size=4).map(np.array),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)
NAMES = ("user_id", "age", "zip", "vip", "joined", "device", "history", "seen", "where", "exclude")
NAMES += ("allow", "history_device", "history_times", "item_id", "genre", "colour")


def _answered(asking: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
    """Return answers; None: there is one error, which names its place."""
    error: UserError | None = None
    try:
        return asking()
    except UserError as raised:
        error = raised
    assert "\n" not in str(error)
    assert isinstance(error, ConfigError) or (isinstance(error, DataError) and error.column)
    return None


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=50)
@given(data=st.data())
def test_odd_requests_end_in_answers_or_one_error(ask: Ask, kind: str, data: st.DataObject) -> None:
    frame = plain(kind)
    frame = frame.iloc[data.draw(st.lists(st.integers(0, 2), max_size=4))].reset_index(drop=True)
    frame = frame.drop(columns=data.draw(st.sets(st.sampled_from(list(frame.columns)), max_size=1)))
    for name in data.draw(st.sets(st.sampled_from(NAMES), max_size=2)):
        size = len(frame)
        cells = CELLS if data.draw(st.booleans()) else st.just(data.draw(CELLS))
        values = data.draw(st.lists(cells, min_size=size, max_size=size))
        frame = frame.assign(**{name: pd.Series(values, dtype=object, index=frame.index)})
    params = {}
    if kind != "ranker" and data.draw(st.booleans()):
        params["k"] = data.draw(st.sampled_from([1, 10**12, 0, np.nan, "3", 2.0, True, np.int8(2)]))
    found = _answered(lambda: ask(kind, frame, **params))
    if found is None:
        return
    assert len(found) == len(frame)
    if kind != "ranker" and len(frame):
        assert max(map(len, found["items"])) <= min(params.get("k", ITEMS), ITEMS)
