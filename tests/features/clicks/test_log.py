"""A streamed click log: the same rows as encoding the whole table at once, or a clear refusal."""

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys.core.errors import ConfigError, DataError
from recsys.data.batch import FeatureBlock, RankingBatch
from recsys.features.clicks import log as click_log
from recsys.features.clicks import store
from recsys.features.clicks import survey as surveying
from recsys.features.clicks.log import ClickLog, encode_click_log, open_click_log
from recsys.features.clicks.sample import RowSample, SampledRows
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION, SplitConfig
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.hashing import splitmix64
from recsys.features.schema import Schema
from recsys.features.tables import csv_files, parquet_files
from recsys.features.tables.sources import Policies, Sources

START = 1_700_000_000
SHARES = SplitConfig(validation=0.2, test=0.2)
BY_COLUMN = SplitConfig(kind="column", column="part")
FEATURES: list[dict[str, Any]] = [
    {"name": "site", "kind": "categorical"},
    {"name": "code", "kind": "categorical"},
    {"name": "tags", "kind": "multi_categorical", "separator": "|"},
    {"name": "title", "kind": "text", "pooling": "sum"},
    {"name": "price", "kind": "numeric"},
    {"name": "views", "kind": "numeric", "transform": "log1p"},
    {"name": "clock", "kind": "timestamp", "column": "at", "unit": "s"},
]


def log_columns(rows: int) -> dict[str, list[Any]]:
    rng = np.random.default_rng(5)
    tags = ["a", "b", "c", "a|b", "c|a|b", None]
    return {
        "click": rng.integers(0, 2, rows).tolist(),
        "importance": rng.choice([0.5, 1.0, 2.0], rows).tolist(),
        "at": [START + 60 * row for row in range(rows)],
        "site": rng.choice(["x", "y", "zz", None], rows).tolist(),  # type: ignore[arg-type]
        "code": rng.integers(-5, 2**58, rows).tolist(),
        "tags": rng.choice(tags, rows).tolist(),  # type: ignore[arg-type]
        "title": rng.choice(["Red shoe", "blue  Hat", None], rows).tolist(),  # type: ignore[arg-type]
        "price": [None if x > 1.5 else x for x in rng.normal(size=rows).tolist()],
        "views": rng.integers(0, 1000, rows).tolist(),
        "part": rng.choice(["train", "valid", "test"], rows).tolist(),
    }


def schema_of(
    roles: dict[str, Any] | None = None, features: Sequence[dict[str, Any]] = FEATURES
) -> Schema:
    interactions = {"label": {"column": "click"}, "weight": "importance", **(roles or {})}
    tables = [{"table": "interactions", **feature} for feature in features]
    raw = {"interactions": interactions, "features": tables}
    return Schema.model_validate_json(json.dumps(raw))


def write(folder: Path, columns: dict[str, list[Any]], cuts: Sequence[int]) -> Sources:
    """Write the rows as Parquet files cut at `cuts`, row groups of 7 rows."""
    folder.mkdir(parents=True)
    table = pa.table(columns)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(table)], strict=True)):
        part = table.slice(start, stop - start)
        pq.write_table(part, folder / f"part-{number}.parquet", row_group_size=7)
    return Sources(interactions=str(folder / "*.parquet"))


def write_csv(path: Path, columns: dict[str, list[Any]]) -> Sources:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return Sources(interactions=str(path))


Encode = Callable[..., ClickLog]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read a few rows at a time, as large ones are a few at a time."""
    monkeypatch.setattr(parquet_files, "_BATCH_ROWS", 16)
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 512)


@pytest.fixture
def encode(tmp_path: Path) -> Encode:
    """Encode 100 rows in three files, some columns replaced (None: left out)."""

    def _encode(
        columns: dict[str, Any] | None = None,
        roles: dict[str, Any] | None = None,
        split: SplitConfig = SHARES,
        features: Sequence[dict[str, Any]] = FEATURES,
        policies: Policies | None = None,
    ) -> ClickLog:
        merged = {**log_columns(100), **(columns or {})}
        given = {name: values for name, values in merged.items() if values is not None}
        sources = write(tmp_path / "data", given, (30, 71))
        chosen = policies or Policies()
        return encode_click_log(
            schema_of(roles, features), sources, chosen, split, tmp_path / "log"
        )

    return _encode


def whole(columns: dict[str, list[Any]], train: Sequence[int], schema: Schema) -> FeatureBlock:
    """The oracle: the whole table in memory, fitted on its training rows, encoded at once."""
    table = pa.table(columns)
    fitted = {"interactions": table.take(pa.array(train))}
    encoder = FeatureEncoder.fit(schema, fitted, reference_time=0)  # type: ignore[arg-type]
    return encoder.encode("interactions", table)


def same_block(one: FeatureBlock, two: FeatureBlock) -> bool:
    parts = [(one.single, two.single), (one.dense, two.dense)]
    assert len(one.multi) == len(two.multi)
    for a, b in zip(one.multi, two.multi, strict=True):
        parts += [(a.values, b.values), (a.offsets, b.offsets)]
    return all(torch.equal(a, b) for a, b in parts)


def everything(log: ClickLog, part: int) -> RankingBatch:
    return log.read(part, slice(None))


def without_clock() -> list[dict[str, Any]]:
    return [feature for feature in FEATURES if feature["kind"] != "timestamp"]


def test_parts_hold_what_encoding_the_whole_table_gives(encode: Encode) -> None:
    log = encode()
    expected = whole(log_columns(100), range(60), schema_of())
    for part, rows in ((TRAIN, range(60)), (VALIDATION, range(60, 80)), (TEST, range(80, 100))):
        batch, at = everything(log, part), torch.tensor(list(rows))
        assert log.num_rows(part) == len(batch) == len(rows)
        assert batch.examples.tolist() == list(rows)
        assert same_block(batch.features, expected.take(at))
        labels = torch.tensor(log_columns(100)["click"], dtype=torch.float32)
        assert torch.equal(batch.label, labels[at])
        weights = torch.tensor(log_columns(100)["importance"], dtype=torch.float32)
        assert torch.equal(batch.weight, weights[at])
        assert log.positives[part] == int(labels[at].sum())
    assert log.layout == log.encoder.layout("interactions")
    assert log.layout.poolings == ("mean", "sum")
    assert log.layout.dense[-2:] == ("clock.age", "clock.null")


def test_any_range_of_rows_can_be_read(encode: Encode) -> None:
    log = encode()
    all_of_it = everything(log, TRAIN)
    for start, stop in ((0, 1), (13, 40), (59, 60), (20, 20), (50, 999)):
        some = log.read(TRAIN, slice(start, stop))
        at = torch.arange(60)[start:stop]
        assert same_block(some.features, all_of_it.features.take(at))
        assert torch.equal(some.examples, all_of_it.examples[at])
    both = log.files(TRAIN).read([(40, 47), (3, 9)])
    at = torch.tensor([*range(40, 47), *range(3, 9)])
    assert same_block(both.features, all_of_it.features.take(at))
    with pytest.raises(ValueError, match="consecutive rows is needed, not one with step 2"):
        log.read(TRAIN, slice(0, 10, 2))


def test_a_column_says_the_part(encode: Encode) -> None:
    log = encode(split=BY_COLUMN)
    words = np.array(log_columns(100)["part"])
    train = np.flatnonzero(words == "train")
    expected = whole(log_columns(100), train.tolist(), schema_of())
    for part, word in ((TRAIN, "train"), (VALIDATION, "valid"), (TEST, "test")):
        rows = np.flatnonzero(words == word)
        batch = everything(log, part)
        assert batch.examples.tolist() == rows.tolist()
        assert same_block(batch.features, expected.take(torch.from_numpy(rows)))


def test_shares_are_of_the_rows_that_the_conditions_leave(encode: Encode) -> None:
    log = encode(roles={"where": [{"column": "views", "at_least": 500}]})
    kept = np.flatnonzero(np.array(log_columns(100)["views"]) >= 500)
    cuts = [round(share * len(kept)) for share in (0.6, 0.8)]
    for part, rows in enumerate(np.split(kept, cuts)):
        assert everything(log, part).examples.tolist() == rows.tolist()
    (drop,) = log.drops
    assert (drop.rows, drop.policy) == (100 - len(kept), "where")
    assert drop.reason == "not at least 500"


def test_csv_decides_types_over_the_whole_log(tmp_path: Path) -> None:
    columns = log_columns(100)
    columns["late"] = ["7"] * 70 + ["007"] + ["7"] * 29  # one row tells that these are words
    columns["whole"] = ["7", "8.0", "9"] * 33 + ["10"]
    features = [*FEATURES, {"name": "late", "kind": "categorical"}]
    features += [{"name": "whole", "kind": "categorical"}]
    sources = write_csv(tmp_path / "log.csv", columns)
    log = encode_click_log(schema_of(None, features), sources, Policies(), SHARES, tmp_path / "log")
    typed = {**columns, "whole": [7, 8, 9] * 33 + [10]}
    expected = whole(typed, range(60), schema_of(None, features))
    assert log.encoder.families["late"] == "string"
    assert log.encoder.families["whole"] == log.encoder.families["code"] == "integer"
    for part, rows in ((TRAIN, range(60)), (TEST, range(80, 100))):
        at = torch.tensor(list(rows))
        assert same_block(everything(log, part).features, expected.take(at))


def test_auto_multiplicities_are_settled_on_training_rows(encode: Encode) -> None:
    features = [
        {"name": name, "kind": kind, "multiplicity": "auto", **more}
        for name, kind, more in (
            ("site", "categorical", {}),
            ("code", "categorical", {}),
            ("tags", "multi_categorical", {"separator": "|"}),
        )
    ]
    log = encode(features=features)
    settled = dict(log.layout.features)
    assert sum(settled.values()) <= 6
    assert settled["code"] > settled["site"]
    assert log.schema == log.encoder.schema


def test_a_large_log_is_fitted_on_rows_from_everywhere(
    encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "SAMPLE_ROWS", 40)
    ramp = [float(row) for row in range(100)]
    scaler = encode({"price": ramp}, features=without_clock()).encoder.scalers["price"]
    order = np.argsort(splitmix64(np.arange(100).view(np.uint64)))
    # The rows of lowest priority, 40 to 50 of the log, and of them those for training.
    samples = [order[:size][order[:size] < 60].astype(float) for size in range(40, 51)]
    assert any(
        (scaler.low, scaler.high) == (rows.min(), rows.max())
        and scaler.mean == pytest.approx(rows.mean())
        for rows in samples
    )
    assert len({int(row) // 30 for row in samples[0]}) == 2  # both files that hold some


def test_the_sample_is_uniform_and_bounded() -> None:
    sample = RowSample(200)
    for start in range(0, 10_000, 500):
        rows = np.arange(start, start + 500)
        priority = splitmix64(rows.view(np.uint64))
        sample.add(SampledRows(priority, rows, None, {"x": pa.array(rows)}))
        assert len(sample) <= 250
    sample.keep_before(10_000)
    positions = np.concatenate([piece.position for piece in sample.pieces])
    assert len(positions) == 200
    every = splitmix64(np.arange(10_000).view(np.uint64))
    assert positions.tolist() == sorted(np.argsort(every)[:200].tolist())
    columns = pa.chunked_array([piece.columns["x"] for piece in sample.pieces])
    assert columns.to_pylist() == positions.tolist()


def spoilt(name: str, row: int, value: Any) -> dict[str, list[Any]]:
    values = list(log_columns(100)[name])
    values[row] = value
    return {name: values}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (spoilt("click", 40, 3), r"part-1.parquet row 11, column 'click': .*0 nor 1.*at_least"),
        (spoilt("click", 99, None), r"part-2.parquet row 29, column 'click': the label is null;"),
        (spoilt("importance", 5, -1.0), r"part-0.parquet row 6, column 'importance': .*negative"),
        (spoilt("importance", 5, None), r"part-0.parquet row 6, column 'importance': .*null"),
        (spoilt("views", 71, float("inf")), r"part-2.parquet row 1, column 'views': .*infinite"),
        ({"code": [0.5] + [1.0] * 99}, r"part-0.parquet row 1, column 'code': a fraction"),
        ({"site": None}, r"column 'site': .* no such column"),
    ],
)
def test_a_bad_row_is_named(
    encode: Encode, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        encode(columns)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_all_bad_labels_are_counted(encode: Encode) -> None:
    with pytest.raises(DataError, match=r"rows 3, 5, 7, 9, 11 \(49 rows in all\), column 'click'"):
        encode({"click": [0, 0] + [5, 1] * 49})


def test_labels_come_in_other_forms(encode: Encode) -> None:
    clicks = log_columns(100)["click"]
    log = encode({"click": [bool(click) for click in clicks]})
    assert everything(log, TEST).label.tolist() == clicks[80:]


def test_a_number_becomes_a_label_by_a_threshold(encode: Encode) -> None:
    log = encode(roles={"label": {"column": "views", "at_least": 300}})
    views = np.array(log_columns(100)["views"])
    assert everything(log, TRAIN).label.tolist() == (views[:60] >= 300).tolist()


def test_files_that_disagree_on_a_type_are_refused(tmp_path: Path) -> None:
    columns = log_columns(100)
    sources = write(tmp_path / "data", columns, (50,))
    second = pa.table({**{n: v[50:] for n, v in columns.items()}, "code": ["word"] * 50})
    pq.write_table(second, tmp_path / "data" / "part-1.parquet")
    with pytest.raises(
        DataError,
        match=r"part-1.parquet row 1, column 'code': values are int64 in .* and string",
    ):
        encode_click_log(schema_of(), sources, Policies(), SHARES, tmp_path / "log")


TIMED = {"time": {"column": "at", "unit": "s"}}


def test_time_must_not_go_back_across_parts(encode: Encode) -> None:
    swapped = log_columns(100)["at"]
    swapped[10], swapped[90] = swapped[90], swapped[10]
    message = r"part-0.parquet row 11, column 'at': this training row is later than the .* row"
    with pytest.raises(DataError, match=message):
        encode({"at": swapped}, TIMED)


def test_time_may_go_back_within_a_part_and_ages_count_from_training(encode: Encode) -> None:
    swapped = log_columns(100)["at"]
    swapped[10], swapped[50] = swapped[50], swapped[10]
    swapped[60] = swapped[59]  # at the same instant is not later
    log = encode({"at": swapped}, TIMED)
    assert log.encoder.reference_time == swapped[59] * 1_000_000
    assert log.counts == (60, 20, 20)


def test_time_must_not_go_back_across_given_parts(encode: Encode) -> None:
    with pytest.raises(DataError, match="row is later than the"):
        encode(roles=TIMED, split=BY_COLUMN)


def test_bad_times_are_dropped_by_policy(encode: Encode) -> None:
    log = encode(spoilt("at", 20, None), TIMED, policies=Policies(bad_times="drop"))
    assert sum(log.counts) == 99
    assert 20 not in everything(log, TRAIN).examples.tolist()
    assert [(drop.column, drop.rows) for drop in log.drops] == [("at", 1)]


def test_empty_parts_are_refused(encode: Encode) -> None:
    with pytest.raises(DataError, match="100 training, 0 validation and 0 test rows"):
        encode({"part": ["train"] * 100}, split=BY_COLUMN)


def test_nothing_left_is_refused(encode: Encode) -> None:
    with pytest.raises(DataError, match=r"none of 100 interactions is left \(100: 'views' "):
        encode(roles={"where": [{"column": "views", "at_least": 5000}]})


@pytest.mark.parametrize(
    ("roles", "features", "split", "sources", "policies", "message"),
    [
        ({"label": None, "user": "u", "item": "site"}, [], SHARES, {}, {}, "give .*label"),
        (
            {"user": "u", "item": "i"},
            [{"name": "i", "table": "items", "kind": "categorical"}],
            SHARES,
            {},
            {},
            "feature 'i' is of table 'items'.*columns of the interactions",
        ),
        ({}, [], SplitConfig(kind="leave_one_out"), {}, {}, "leave_one_out needs every user"),
        (
            {},
            [],
            SplitConfig(validation_from="2024-01-01", test_from="2024-02-01"),
            {},
            {},
            "validation_from: a streamed log is cut by shares",
        ),
        ({}, [], SHARES, {"users": "users.csv"}, {}, "data.users: a streamed log has no other"),
        ({}, [], SHARES, {}, {"duplicate_events": "drop"}, "keeps repeated rows"),
        ({}, [], SHARES, {}, {"duplicate_keys": "first"}, "duplicate_keys: first is about tables"),
        ({}, [], SHARES, {}, {"unknown_items": "drop"}, "unknown_items: drop is about tables"),
        ({}, [], SHARES, {}, {"unknown_users": "drop"}, "unknown_users: drop is about tables"),
    ],
)
def test_what_a_stream_cannot_do_is_a_configuration_error(
    tmp_path: Path,
    roles: dict[str, Any],
    features: list[dict[str, Any]],
    split: SplitConfig,
    sources: dict[str, str],
    policies: dict[str, Any],
    message: str,
) -> None:
    own = [{"table": "interactions", **FEATURES[0]}, *features]
    if roles.get("user") and not features:
        own.append({"name": "site2", "column": "site", "table": "items", "kind": "categorical"})
    raw = {"interactions": {"label": {"column": "click"}, **roles}, "features": own}
    with pytest.raises(ConfigError, match=message):
        encode_click_log(
            Schema.model_validate_json(json.dumps(raw)),
            Sources(interactions="nowhere.parquet", **sources),
            Policies(**policies),
            split,
            tmp_path / "log",
        )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were encoded."""
    made: list[Path] = []
    encode = click_log._encode

    def _counted(*args: Any) -> ClickLog:
        made.append(args[3])
        return encode(*args)

    monkeypatch.setattr(click_log, "_encode", _counted)
    return made


def test_a_log_is_encoded_once_and_again_for_another_byte_or_setting(
    tmp_path: Path, calls: list[Path]
) -> None:
    sources = write(tmp_path / "data", log_columns(100), (30,))
    cache = tmp_path / "cache"
    first = open_click_log(schema_of(), sources, Policies(), SHARES, cache)
    again = open_click_log(schema_of(), sources, Policies(), SHARES, cache)
    assert len(calls) == 1
    assert same_block(everything(first, TEST).features, everything(again, TEST).features)
    assert (again.counts, again.drops, again.schema) == (first.counts, first.drops, first.schema)
    assert again.fingerprint == first.fingerprint
    open_click_log(schema_of(), sources, Policies(), SplitConfig(), cache)
    open_click_log(schema_of(), sources, Policies(infinite_numbers="null"), SHARES, cache)
    open_click_log(schema_of(None, FEATURES[:3]), sources, Policies(), SHARES, cache)
    assert len(set(calls)) == len(calls) == 4
    columns = {name: values[:30] for name, values in log_columns(100).items()}
    pq.write_table(pa.table({**columns, "code": [1] * 30}), tmp_path / "data" / "part-0.parquet")
    other = open_click_log(schema_of(), sources, Policies(), SHARES, cache)
    assert len(set(calls)) == 5
    assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "name", ["train/single.bin", "test/multi-0.offsets.bin", "encoder/encoder.json", "facts.json"]
)
@pytest.mark.parametrize("fault", ["cut", "gone", "long", "flip"])
def test_a_damaged_entry_is_encoded_again(
    tmp_path: Path, calls: list[Path], name: str, fault: str
) -> None:
    sources = write(tmp_path / "data", log_columns(100), (30,))
    log = open_click_log(schema_of(), sources, Policies(), SHARES, tmp_path / "cache")
    before = everything(log, TRAIN)
    path = log.folder / name
    if fault == "gone":
        path.unlink()
    else:
        content = path.read_bytes()
        flipped = content[:-9] + bytes([content[-9] ^ 4]) + content[-8:]
        spoilt = {"cut": content[:-9], "long": content + b"\0", "flip": flipped}
        path.write_bytes(spoilt[fault])
    again = open_click_log(schema_of(), sources, Policies(), SHARES, tmp_path / "cache")
    assert len(calls) == 2
    assert same_block(everything(again, TRAIN).features, before.features)


def test_a_stop_half_way_leaves_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[Path]
) -> None:
    sources = write(tmp_path / "data", log_columns(100), (30,))
    appended = []
    append = store.PartWriter.append

    def _stop(writer: Any, batch: RankingBatch) -> None:
        append(writer, batch)
        appended.append(len(batch))
        assert not calls[0].exists()
        if len(appended) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.PartWriter, "append", _stop)
        with pytest.raises(KeyboardInterrupt):
            open_click_log(schema_of(), sources, Policies(), SHARES, tmp_path / "cache")
    assert len(appended) == 3
    assert list((tmp_path / "cache").iterdir()) == []
    log = open_click_log(schema_of(), sources, Policies(), SHARES, tmp_path / "cache")
    assert log.counts == (60, 20, 20)
    assert os.listdir(tmp_path / "cache") == [log.folder.name]
