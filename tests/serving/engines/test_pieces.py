"""A log in pieces that hold whole users: the requests of the whole log, whatever the cuts are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys.features.tables.sources import Sources
from recsys.serving.engines.logged import logged_users
from recsys.serving.engines.pieces import (
    KEY,
    pieces,
    requests_of,
    requests_of_pieces,
    tables_of,
)
from recsys.serving.recommend.scorer import Scorer


@pytest.fixture(scope="module")
def scorer(messy: Path) -> Scorer:
    return Scorer.open(messy)


@pytest.fixture(scope="module")
def whole(messy: Path, scorer: Scorer) -> pa.Table:
    """The requests of the log as the batch job on one machine makes them."""
    data = messy.parents[3]
    sources = Sources(interactions=str(data / "log"), users=str(data / "users.parquet"))
    found = logged_users(scorer, sources)
    return found.requests(np.arange(found.tables.users.num_rows))


def stream(messy: Path, size: int) -> list[pa.RecordBatch]:
    """The rows of both tables, sorted by user, then place in the files, in batches of `size`."""
    data = messy.parents[3]
    parts = [pd.read_parquet(path) for path in sorted((data / "log").iterdir())]
    log, users = pd.concat(parts, ignore_index=True), pd.read_parquet(data / "users.parquet")
    tables = {"interactions": pa.Table.from_pandas(log), "users": pa.Table.from_pandas(users)}
    found = []
    for name, table in tables.items():
        rows = pa.StructArray.from_arrays(
            [one.combine_chunks() for one in table.columns], table.column_names
        )
        key = pc.utf8_lower(table.column("user").combine_chunks())
        place = pa.array(np.arange(len(rows)))
        found.append(pa.table({KEY: key, "place": place, name: rows}))
    both = pa.concat_tables(found, promote_options="default")
    both = both.sort_by([(KEY, "ascending"), ("place", "ascending")]).drop_columns(["place"])
    return both.combine_chunks().to_batches(size)


@pytest.mark.parametrize(("size", "piece"), [(7, 1), (50, 100), (10_000, 200), (400, 10**9)])
def test_pieces_give_the_requests_of_the_whole_log(
    messy: Path, scorer: Scorer, whole: pa.Table, size: int, piece: int
) -> None:
    found = requests_of_pieces(scorer, stream(messy, size), whole.schema, piece)
    table = pa.Table.from_batches(list(found))
    assert table.sort_by("user").to_pylist() == whole.sort_by("user").to_pylist()


def test_the_log_is_as_messy_as_it_says(messy_log: pd.DataFrame, whole: pa.Table) -> None:
    """Each rule leaves its trace: without one of them the comparison above would prove nothing."""
    frame = whole.to_pandas()
    assert len(frame) == 70
    assert (frame.history.str.len() == 0).sum() >= 10
    assert (frame.seen.str.len() > 0).sum() > 40
    assert messy_log.user.isna().any()
    assert messy_log.user.str.startswith("U").any()
    assert messy_log.duplicated(["user", "item", "at"]).any()
    assert messy_log.duplicated(["user", "at"]).sum() > 100
    rows = messy_log[messy_log.what.isin(["view", "buy"]) & (messy_log.price >= 1)]
    assert frame.seen.str.len().sum() < (rows.what == "buy").sum()


def test_a_piece_ends_where_a_user_does() -> None:
    keys = [None, None, "a", "a", "a", "a", "b", "c", "c"]
    batches = [pa.record_batch({KEY: pa.array([key], pa.string())}) for key in keys]
    cut = [piece.column(KEY).to_pylist() for piece in pieces(batches, 3)]
    assert cut == [[None, None], ["a"] * 4, ["b"], ["c", "c"]]
    assert list(pieces([], 3)) == []


def test_users_without_a_row_have_empty_histories(messy: Path, scorer: Scorer) -> None:
    (first,) = [b for b in stream(messy, 10**6)]
    piece = pa.Table.from_batches([first])
    alone = piece.filter(pc.equal(piece.column(KEY), "u65"))
    found = requests_of(scorer, tables_of(alone))
    assert found.column("user").to_pylist() == ["u65"]
    assert found.column("history").to_pylist() == [[]]
