"""Scoring: equal to the model's own ranking, exactly once, refusing what does not fit."""

import json
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys.bundle.directory import Bundle, write_bundle
from recsys.core.errors import ConfigError, DataError, IntegrityError, NotFoundError
from recsys.core.events import Event, PartDone
from recsys.features.dataset.dataset import Dataset
from recsys.features.requests.table import request_table
from recsys.features.tables.sources import Sources
from recsys.retrieval.recommend import recommend
from recsys.serving.engines.batch import score_to_parquet, shards_of_log, shards_of_requests
from recsys.serving.engines.parts import SUCCESS
from recsys.serving.export.retrieval import export_index
from recsys.serving.recommend.scorer import Scorer
from recsys.training.config.experiment import ExperimentConfig


@pytest.fixture(scope="module")
def scorer(trained: Path) -> Scorer:
    return Scorer.open(trained, k=7)


@pytest.fixture(scope="module")
def requests(dataset: Dataset) -> pa.Table:
    """Every user of the small world with the whole log as history."""
    users = np.arange(dataset.num_users)
    return request_table(dataset.schema, dataset.tables, dataset.histories((0, 1, 2)), users)


def by_hand(scorer: Scorer, request: dict[str, object], k: int) -> list[str]:
    """Rank one request with plain sorting over the whole catalogue."""
    one = pa.Table.from_pylist([request])
    encoded = scorer.encode(one)
    with torch.no_grad():
        query = scorer.model.encode_queries(encoded.block, scorer.vectors, encoded.history)[0]
    scores = (scorer.vectors @ query).tolist()
    ids = scorer.item_ids.to_pylist()
    seen = set(request["history"])  # type: ignore[call-overload]
    ranked = sorted(range(len(ids)), key=lambda row: (-scores[row], row))
    return [ids[row] for row in ranked if ids[row] not in seen][:k]


def test_lists_equal_plain_sorting_without_seen_items(scorer: Scorer, requests: pa.Table) -> None:
    answer = scorer.score(requests)
    assert answer.column("user_id").to_pylist() == requests.column("user_id").to_pylist()
    for row in (0, 17, 101, 199):
        assert answer.column("items")[row].as_py() == by_hand(
            scorer, requests.slice(row, 1).to_pylist()[0], 7
        )
    scores = answer.column("scores")[17].as_py()
    assert scores == sorted(scores, reverse=True)


def test_a_list_is_short_with_a_reason_and_never_padded(scorer: Scorer, requests: pa.Table) -> None:
    everything = scorer.item_ids.to_pylist()
    request = requests.slice(3, 1).to_pylist()[0]
    table = pa.Table.from_pylist(
        [{**request, "history": everything[:-2]}, {**request, "history": everything}, request]
    )
    answer = scorer.score(table)
    assert sorted(answer.column("items")[0].as_py()) == sorted(everything[-2:])
    assert answer.column("items")[1].as_py() == []
    assert answer.column("reason").to_pylist() == ["exhausted", "exhausted", None]
    kept = scorer.score(table, filter_seen=False)
    assert [len(items) for items in kept.column("items").to_pylist()] == [7, 7, 7]
    assert [len(items) for items in scorer.score(table, k=3).column("items").to_pylist()] == [
        2,
        0,
        3,
    ]
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        scorer.score(table, k=0)
    more = scorer.score(table, k=1_000_000)
    assert len(more.column("items")[2].as_py()) <= len(everything)


def test_new_users_unknown_items_and_absent_columns(scorer: Scorer) -> None:
    table = pa.table(
        {"user_id": ["nobody", "anybody"], "history": [[], ["i00001", "no-such-item"]]}
    )
    assert scorer.encode(table).unknown_items == 1
    assert [len(items) for items in scorer.score(table).column("items").to_pylist()] == [7, 7]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"user": ["a"], "history": [[]]},
            r"column 'user_id': .* no such column \(did you mean 'user'\?\)",
        ),
        ({"user_id": ["a"]}, "column 'history': .* no such column"),
        (
            {"user_id": [None, "a"], "history": [["i00001"], []]},
            "row 1, .*: the id is null; correct",
        ),
        ({"user_id": ["a"], "history": ["i00001"]}, "string, where a list of item ids is expected"),
        ({"user_id": ["a"], "history": [[1, 2]]}, "holds int64 ids, the catalogue"),
        ({"user_id": [1], "history": [["i00001"]]}, "trained on string values"),
    ],
)
def test_requests_that_do_not_fit_are_refused(
    scorer: Scorer, table: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        scorer.score(pa.table(table))


def test_the_tower_sees_the_last_events_and_the_filter_sees_all(
    scorer: Scorer, requests: pa.Table
) -> None:
    length = scorer.model.config.history_length
    longest = max(requests.to_pylist(), key=lambda request: len(request["history"]))
    assert len(longest["history"]) > length
    encoded = scorer.encode(pa.Table.from_pylist([longest]))
    ids = scorer.item_ids.to_pylist()
    assert [ids[row] for row in encoded.history.values.tolist()] == longest["history"][-length:]
    assert [ids[row] for row in encoded.seen.values.tolist()] == longest["history"]
    hidden = by_hand(scorer, longest, 3)
    named = scorer.score(pa.Table.from_pylist([{**longest, "seen": hidden}]), k=20)
    items = named.column("items")[0].as_py()
    assert not set(items) & set(hidden)
    assert set(items) & set(longest["history"])  # `seen` is taken at its word


def test_many_requests_are_answered_like_each_alone(
    scorer: Scorer, requests: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks each query keeps its own history and its own exclusions."""
    whole = scorer.score(requests).column("items").to_pylist()
    monkeypatch.setattr("recsys.retrieval.recommend.CHUNK_ROWS", 64)
    encoded = scorer.encode(requests)
    rows = recommend(
        scorer.model,
        scorer.index,
        scorer.vectors,
        encoded.block,
        encoded.history,
        k=7,
        exclude=encoded.seen,
    )[1]
    ids = scorer.item_ids.to_pylist()
    assert [[ids[row] for row in line if row >= 0] for line in rows.tolist()] == whole


def test_a_log_and_request_files_give_the_same_lists(
    scorer: Scorer, config: ExperimentConfig, requests: pa.Table, tmp_path: Path
) -> None:
    sources = Sources(interactions=config.data.interactions, users=config.data.users)
    log = shards_of_log(scorer, sources, rows_per_part=64)
    summary = score_to_parquet(scorer, log, tmp_path / "log")
    assert (summary.users, summary.parts, summary.unknown_history_items) == (200, 4, 0)
    pq.write_table(requests, tmp_path / "requests.parquet", row_group_size=90)
    files = shards_of_requests(scorer, str(tmp_path / "requests.parquet"))
    score_to_parquet(scorer, files, tmp_path / "requests")
    one, two = (pq.read_table(tmp_path / name).sort_by("user_id") for name in ("log", "requests"))
    assert one.column("items").to_pylist() == two.column("items").to_pylist()
    some = shards_of_log(
        scorer, sources, rows_per_part=64, users=one.column(0)[:5].combine_chunks()
    )
    assert sum(part.read().num_rows for part in some.parts) == 5
    with pytest.raises(DataError, match=r"user 'stranger' .* is in neither"):
        shards_of_log(scorer, sources, rows_per_part=64, users=pa.array(["stranger"]))
    for wrong in (0, -5):
        with pytest.raises(ConfigError, match=f"rows-per-part must be at least 1, got {wrong}"):
            shards_of_log(scorer, sources, rows_per_part=wrong)
    with pytest.raises(ConfigError, match="--users PATH"):
        shards_of_log(scorer, Sources(interactions=config.data.interactions), rows_per_part=64)


def test_request_files_name_their_faults(
    scorer: Scorer, requests: pa.Table, tmp_path: Path
) -> None:
    twice = tmp_path / "twice.parquet"
    pq.write_table(pa.concat_tables([requests.slice(0, 3), requests.slice(2, 2)]), twice)
    with pytest.raises(
        DataError, match=r"twice\.parquet row 4, .* 2 rows \(1 users do\), first in row 3"
    ):
        shards_of_requests(scorer, str(twice))
    bare = tmp_path / "bare.parquet"
    pq.write_table(requests.select(["user_id"]), bare)
    with pytest.raises(DataError, match=r"bare\.parquet, column 'history': .* has no such column"):
        shards_of_requests(scorer, str(bare))
    broken = tmp_path / "broken.parquet"
    broken.write_text("x")
    with pytest.raises(DataError, match=r"broken\.parquet: not a readable Parquet file"):
        shards_of_requests(scorer, str(broken))
    text = tmp_path / "requests.csv"
    text.write_text("user_id,history\nu000001,i00001\n")
    with pytest.raises(DataError, match=r"requests\.csv: requests hold lists, which CSV cannot"):
        shards_of_requests(scorer, str(text))
    with pytest.raises(NotFoundError, match=r"none\.parquet"):
        shards_of_requests(scorer, str(tmp_path / "none.parquet"))


def test_a_job_that_stopped_goes_on_and_another_may_not_join(
    scorer: Scorer, requests: pa.Table, tmp_path: Path
) -> None:
    path = tmp_path / "requests.parquet"
    pq.write_table(requests, path, row_group_size=50)
    shards = shards_of_requests(scorer, str(path))

    class StopError(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, PartDone) and event.done == 2:
            raise StopError

    out = tmp_path / "out"
    with pytest.raises(StopError):
        score_to_parquet(scorer, shards, out, listener=stop)
    assert not (out / SUCCESS).exists()
    first = (out / shards.parts[0].name).stat().st_mtime_ns
    summary = score_to_parquet(scorer, shards, out)
    assert (summary.parts, summary.parts_already_there, summary.users) == (4, 2, 200)
    assert (out / shards.parts[0].name).stat().st_mtime_ns == first
    assert json.loads((out / SUCCESS).read_text())["users"] == 200
    again = score_to_parquet(scorer, shards, out)
    assert again.parts_already_there == 4
    longer = Scorer.open(scorer.bundle.path, k=8)
    with pytest.raises(ConfigError, match="scores of another job"):
        score_to_parquet(longer, shards, out)
    killed = tmp_path / "killed"  # while it wrote its very first file
    killed.mkdir()
    (killed / "._job.json.4711").write_text("{")
    assert score_to_parquet(scorer, shards, killed).users == 200
    retrained = replace(scorer, bundle=replace(scorer.bundle, model_id="0" * 16))
    with pytest.raises(ConfigError, match="scores of another job"):
        score_to_parquet(retrained, shards, out)
    keeps_seen = Scorer.open(scorer.bundle.path, k=7, filter_seen=False)
    with pytest.raises(ConfigError, match="scores of another job"):
        score_to_parquet(keeps_seen, shards, out)
    pq.write_table(requests.slice(0, 199), path, row_group_size=50)  # as many parts, other rows
    with pytest.raises(ConfigError, match="scores of another job"):
        score_to_parquet(scorer, shards_of_requests(scorer, str(path)), out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="not empty and not a scoring job"):
        score_to_parquet(scorer, shards, tmp_path / "mine")


def test_a_part_that_could_not_be_written_whole_has_no_name(
    scorer: Scorer, requests: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "requests.parquet", tmp_path / "out"
    pq.write_table(requests, path, row_group_size=100)
    shards = shards_of_requests(scorer, str(path))

    def half(table: pa.Table, where: Path, **_: object) -> None:
        where.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", half)
        with pytest.raises(OSError, match="No space left"):
            score_to_parquet(scorer, shards, out)
    assert [file.name for file in out.iterdir()] == ["_job.json"]
    assert score_to_parquet(scorer, shards, out).users == 200


def test_kills_at_random_moments_lose_and_repeat_nobody(
    scorer: Scorer, requests: pa.Table, tmp_path: Path
) -> None:
    path, out = tmp_path / "requests.parquet", tmp_path / "out"
    pq.write_table(requests, path, row_group_size=5)
    program = f"""
        import os, signal, threading, time
        from pathlib import Path
        from recsys.serving.engines.batch import score_to_parquet, shards_of_requests
        from recsys.serving.recommend.scorer import Scorer
        assert threading.active_count() == 1
        for pause in (0.02, 0.06, 0.15, None):
            ready, writes = os.pipe()
            scoring = os.fork()  # the imports are the same ones
            if scoring == 0:
                scorer = Scorer.open(Path({str(scorer.bundle.path)!r}), k=7)
                shards = shards_of_requests(scorer, {str(path)!r})
                os.write(writes, b"ready")
                score_to_parquet(scorer, shards, Path({str(out)!r}))
                os._exit(0)
            os.read(ready, 5)
            if pause is not None:
                time.sleep(pause)
                os.kill(scoring, signal.SIGKILL)
            print(os.waitpid(scoring, 0)[1])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    *_, last = done.stdout.split()
    assert (done.returncode, len(done.stdout.split()), last) == (0, 4, "0"), done.stderr
    assert (out / SUCCESS).exists()
    users = Counter(pq.read_table(out).column("user_id").to_pylist())
    assert users == Counter(requests.column("user_id").to_pylist())
    whole = scorer.score(requests).sort_by("user_id").column("items").to_pylist()
    assert pq.read_table(out).sort_by("user_id").column("items").to_pylist() == whole


@pytest.mark.parametrize("wanted", ["expected_items", "expected_scores"])
def test_a_probe_that_is_not_reproduced_refuses_the_bundle(
    trained: Path, tmp_path: Path, wanted: str
) -> None:
    """Another model under the same manifest rules: right hashes, wrong answers."""
    bundle = Bundle.open(trained)

    def write(folder: Path) -> None:
        for name in bundle.names():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(bundle.read(name))
        probe = pq.read_table(folder / "probe.parquet")
        column = probe.column_names.index(wanted)
        lists = probe.column(wanted).to_pylist()
        lists[5] = lists[5][::-1]
        forged = pa.array(lists, probe.schema.field(wanted).type)
        pq.write_table(probe.set_column(column, wanted, forged), folder / "probe.parquet")

    forged = write_bundle(tmp_path, write, facts=bundle.manifest["facts"])
    with pytest.raises(IntegrityError, match="the probe for user"):
        Scorer.open(forged)


def test_exported_vectors_stand_beside_their_ids(scorer: Scorer, tmp_path: Path) -> None:
    path = scorer.bundle.path
    export_index(path, "parquet", tmp_path / "vectors", min_recall=0.95)
    table = pq.read_table(tmp_path / "vectors" / "vectors.parquet")
    vectors = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    for row, item in enumerate(scorer.item_ids.to_pylist()):
        assert vectors[item] == scorer.vectors[row].tolist()
    export_index(path, "exact", tmp_path / "index", min_recall=0.95)
    ids = pq.read_table(tmp_path / "index" / "ids.parquet")
    assert ids.column("row").to_pylist() == list(range(len(vectors)))
    assert ids.column("item_id").to_pylist() == scorer.item_ids.to_pylist()
    with pytest.raises(ConfigError, match=r"min_recall is a share from 0 to 1, got 1\.01"):
        export_index(path, "faiss", tmp_path / "graph", min_recall=1.01)
    assert not (tmp_path / "graph").exists()


@pytest.mark.parametrize(
    ("part", "value"),
    [("single", None), ("reads", [["a", "b"]])],
)
def test_an_encoder_of_another_layout_is_refused(
    trained: Path, tmp_path: Path, part: str, value: Any
) -> None:
    """Columns in another order, or read otherwise: equal widths, so that the weights would fit."""
    bundle = Bundle.open(trained)

    def write(folder: Path) -> None:
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        facts = bundle.json("model.json")
        layout = facts["layouts"][0]
        layout[part] = layout[part][::-1] if value is None else value
        (folder / "model.json").write_text(json.dumps(facts))

    forged = write_bundle(tmp_path, write, facts=bundle.manifest["facts"])
    with pytest.raises(IntegrityError, match="the encoder lays out"):
        Scorer.open(forged)


def test_an_index_of_another_model_is_refused(trained: Path, tmp_path: Path) -> None:
    """Equal sizes, other space: the loader must see that they do not belong together."""
    bundle = Bundle.open(trained)

    def write(folder: Path) -> None:
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        facts = bundle.json("index/index.json")
        (folder / "index" / "index.json").write_text(json.dumps({**facts, "space_id": "other"}))

    forged = write_bundle(tmp_path, write, facts=bundle.manifest["facts"])
    with pytest.raises(IntegrityError, match="space other, the model answers in space"):
        Scorer.open(forged)


def test_an_index_over_other_items_is_refused(trained: Path, tmp_path: Path) -> None:
    """Equal space, equal size, other ids: every list would name the wrong items."""
    bundle = Bundle.open(trained)

    def write(folder: Path) -> None:
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        items = pq.read_table(folder / "items.parquet")
        order = np.arange(items.num_rows)[::-1]
        pq.write_table(items.take(pa.array(order)), folder / "items.parquet")

    forged = write_bundle(tmp_path, write, facts=bundle.manifest["facts"])
    with pytest.raises(IntegrityError, match=r"built over other items than items\.parquet"):
        Scorer.open(forged)


def test_unknown_items_are_counted_once_however_often_the_job_is_started(
    scorer: Scorer, tmp_path: Path
) -> None:
    path = tmp_path / "requests.parquet"
    table = pa.table({"user_id": ["a", "b"], "history": [["i00001", "gone"], ["lost", "gone"]]})
    pq.write_table(table, path, row_group_size=1)
    shards = shards_of_requests(scorer, str(path))
    counts = [
        score_to_parquet(scorer, shards, tmp_path / "out").unknown_history_items for _ in range(2)
    ]
    assert counts == [3, 3]
