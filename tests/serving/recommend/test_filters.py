"""Filtered lists beside scoring everything, leaving out and sorting; jobs, calls and servers."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.core.errors import ConfigError, DataError, NotFoundError
from recsys.features.dataset.dataset import Dataset
from recsys.features.filters.syntax import FilterError
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import request_table
from recsys.serving.answering.lists import Lists
from recsys.serving.engines.batch import score_to_parquet, shards_of_requests
from recsys.serving.engines.parts import JOB, SUCCESS
from recsys.serving.recommend.filters import FilterOptions, Filters
from recsys.serving.recommend.scorer import Scorer
from recsys.training.config.experiment import ExperimentConfig

K = 7
Lists_ = list[list[str]]


@pytest.fixture(scope="module")
def scorer(trained: Path) -> Scorer:
    return Scorer.open(trained, k=K)


@pytest.fixture(scope="module")
def requests(dataset: Dataset) -> pa.Table:
    """60 users of the small world with the whole log as history."""
    users = np.arange(60)
    return request_table(dataset.schema, dataset.tables, dataset.histories((0, 1, 2)), users)


@pytest.fixture(scope="module")
def catalogue(config: ExperimentConfig) -> pd.DataFrame:
    """The items of the world, by id."""
    assert config.data.items is not None
    return pd.read_parquet(config.data.items).set_index("item_id")


@pytest.fixture
def today(catalogue: pd.DataFrame, tmp_path: Path) -> Path:
    """Today's items: without the first ten, one of them new, two in three in stock."""
    frame = catalogue.reset_index().iloc[10:].assign(in_stock=lambda one: one.index % 3 > 0)
    frame = pd.concat([frame, frame.iloc[:1].assign(item_id="fresh")])
    path = tmp_path / "today.parquet"
    frame[["item_id", "price", "in_stock"]].to_parquet(path)
    return path


def by_hand(
    scorer: Scorer, requests: pa.Table, passes: list[set[str]], k: int = K, *, seen: bool = False
) -> Lists_:
    """Rank every request with plain sorting over what passes for it."""
    encoded = scorer.encode(requests)
    with torch.no_grad():
        queries = scorer.model.encode_queries(encoded.block, scorer.vectors, encoded.history)
    ids, lists = scorer.item_ids.to_pylist(), []
    histories = requests.column("history").to_pylist()
    for query, allowed, history in zip(queries, passes, histories, strict=True):
        scores = (scorer.vectors @ query).tolist()
        ranked = sorted(range(len(ids)), key=lambda row: (-scores[row], row))
        hidden = set() if seen else set(history)
        lists.append([ids[row] for row in ranked if ids[row] in allowed - hidden][:k])
    return lists


def lists_of(table: pa.Table) -> Lists_:
    lists: Lists_ = table.column("items").to_pylist()
    return lists


def below(catalogue: pd.DataFrame, price: float) -> set[str]:
    return set(catalogue.index[catalogue.price < price])


def test_a_condition_leaves_the_lists_full_and_in_order(
    scorer: Scorer, requests: pa.Table, catalogue: pd.DataFrame
) -> None:
    filters = Filters.of(scorer, FilterOptions(where="price < 30 and not category = 'Camping'"))
    answers = scorer.score(requests, filters=filters)
    passes = below(catalogue, 30) - set(catalogue.index[catalogue.category == "Camping"])
    assert lists_of(answers) == by_hand(scorer, requests, [passes] * 60)
    assert {len(one) for one in lists_of(answers)} == {K}
    assert answers.column("reason").null_count == 60
    kept = scorer.score(requests, filter_seen=False, filters=filters)
    assert lists_of(kept) == by_hand(scorer, requests, [passes] * 60, seen=True)


def test_requests_have_filters_of_their_own(
    scorer: Scorer, requests: pa.Table, catalogue: pd.DataFrame
) -> None:
    every, rng = set(catalogue.index), np.random.default_rng(0)
    wheres = [[None, "price < 30", "price >= 30 and brand is not null"][n % 3] for n in range(60)]
    drawn = [sorted(rng.choice(sorted(every), 30, replace=False)) for _ in range(120)]
    excludes = [None if n % 4 == 0 else drawn[n] for n in range(60)]
    allows = [None if n % 5 else drawn[60 + n] for n in range(60)]
    table = requests
    for name, values in (("where", wheres), ("exclude", excludes), ("allow", allows)):
        table = table.append_column(name, pa.array(values))
    passes = []
    for where, exclude, allow in zip(wheres, excludes, allows, strict=True):
        low = below(catalogue, 30)
        one = every if where is None else (low if where.startswith("price <") else every - low)
        passes.append((one & (every if allow is None else set(allow))) - set(exclude or []))
    answers = scorer.score(table)
    assert lists_of(answers) == by_hand(scorer, requests, passes)
    job = Filters.of(scorer, FilterOptions(where="price < 90", exclude=drawn[0][:20]))
    both = [one & below(catalogue, 90) - set(drawn[0][:20]) for one in passes]
    assert lists_of(scorer.score(table, filters=job)) == by_hand(scorer, requests, both)


def test_a_short_list_says_why(scorer: Scorer, requests: pa.Table, catalogue: pd.DataFrame) -> None:
    request = requests.slice(0, 1).to_pylist()[0]
    every = list(catalogue.index)
    some = {"history": every[:5], "where": None, "exclude": [], "allow": None}
    rows = [
        {"allow": []},
        {"allow": every[10:13]},
        {"allow": every[:9]},  # five of nine are seen
        {"where": "price < 0"},
        {"exclude": every[:-3], "history": []},
        {"history": every[:-2]},
        {},
    ]
    names = ("where", "exclude", "allow")
    kinds = [pa.string(), pa.list_(pa.string()), pa.list_(pa.string())]
    table = pa.Table.from_pylist([{**request, **some, **row} for row in rows])
    for name, kind in zip(names, kinds, strict=True):
        column = table.column(name).cast(kind)
        table = table.set_column(table.column_names.index(name), name, column)
    answers = scorer.score(table)
    assert [len(one) for one in lists_of(answers)] == [0, 3, 4, 0, 3, 2, 7]
    assert answers.column("reason").to_pylist() == [
        "filtered",
        "filtered",
        "exhausted",
        "filtered",
        "filtered",
        "exhausted",
        None,
    ]
    # A list that could be longer than the catalogue is short of items, not by a filter.
    all_pass = Filters.of(scorer, FilterOptions(where="true"))
    found = scorer.score(requests.slice(0, 1), k=10_000, filters=all_pass)
    assert found.column("reason").to_pylist() == ["exhausted"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["price <"]), "asked row 5, column 'where': expected a value, and the text ends, "
         "at character 8 of 'price <'; correct the predicate"),
        (pa.array([""]), "column 'where': empty; write a condition"),
        (pa.array([3]), "column 'where': int64, where a predicate over the items is expected"),
    ],
)  # fmt: skip
def test_a_wrong_predicate_of_a_request_names_its_row(
    scorer: Scorer, requests: pa.Table, column: pa.Array, message: str
) -> None:
    table = requests.slice(0, 1).append_column("where", column)
    with pytest.raises(DataError, match=message):
        scorer.score(table, origin=RequestOrigin("asked", 4))


def test_lists_of_requests_are_checked_as_histories_are(scorer: Scorer, requests: pa.Table) -> None:
    table = requests.slice(0, 1)
    with pytest.raises(DataError, match="column 'exclude': holds int64 ids, the catalogue"):
        scorer.score(table.append_column("exclude", pa.array([[1]])))
    with pytest.raises(DataError, match="column 'allow': string, where a list of item ids is exp"):
        scorer.score(table.append_column("allow", pa.array(["i00001"])))


def test_items_of_today_are_what_can_be_had(
    scorer: Scorer, requests: pa.Table, catalogue: pd.DataFrame, today: Path
) -> None:
    asked = FilterOptions(where="in_stock and price < 60", items=str(today))
    filters = Filters.of(scorer, asked)
    frame = pd.read_parquet(today).set_index("item_id")
    passes = set(frame.index[frame.in_stock & (frame.price < 60)])
    assert lists_of(scorer.score(requests, filters=filters)) == by_hand(
        scorer, requests, [passes] * 60
    )
    counts = filters.counts()
    assert counts["passing_items"] == len(passes - {"fresh"})
    assert (counts["items_missing_today"], counts["new_items_left_out"]) == (10, 1)
    # Without a condition everything that is there today may be recommended.
    there = Filters.of(scorer, FilterOptions(items=str(today)))
    assert there.counts()["passing_items"] == len(catalogue) - 10
    with pytest.raises(FilterError, match=r"today\.parquet have no column 'brand'"):
        Filters.of(scorer, FilterOptions(where="brand = 'x'", items=str(today)))
    with pytest.raises(FilterError, match=r"catalogue have no column 'in_stock'.*given as items"):
        Filters.of(scorer, FilterOptions(where="in_stock"))


def test_a_job_is_the_same_only_with_the_same_filters(
    scorer: Scorer, requests: pa.Table, today: Path, tmp_path: Path
) -> None:
    path, block = tmp_path / "asked.parquet", tmp_path / "block.parquet"
    pq.write_table(requests, path, row_group_size=20)
    pd.DataFrame({"user_id": ["u000001"], "item_id": ["i00050"]}).to_parquet(block)
    shards = shards_of_requests(scorer, str(path))
    given: dict[str, Any] = {
        "where": "price < 60",
        "exclude": ["i00020", "gone"],
        "allow": [*scorer.item_ids.to_pylist()[:90], "away"],
        "items": str(today),
        "block": str(block),
    }

    def run(**other: Any) -> Any:
        filters = Filters.of(scorer, FilterOptions(**{**given, **other}))
        return score_to_parquet(scorer, shards, tmp_path / "out", filters=filters)

    summary = run()
    again = run(exclude=["gone", "i00020"])
    assert (summary.parts_already_there, again.parts_already_there) == (0, 3)
    assert set(json.loads((tmp_path / "out" / JOB).read_text())["filters"]) == set(given)
    facts = summary.facts()
    assert (facts["unknown_listed_items"], facts["first_unknown_listed_item"]) == (2, "gone")
    assert json.loads((tmp_path / "out" / SUCCESS).read_text())["where"] == "price < 60"
    pd.read_parquet(today).assign(price=1.0).to_parquet(tmp_path / "other.parquet")
    changed = pd.DataFrame({"user_id": ["u000001"], "item_id": ["i00051"]})
    changed.to_parquet(tmp_path / "block2.parquet")
    for other in (
        {"where": "price < 61"},
        {"where": None},
        {"exclude": ["i00020"]},
        {"allow": None},
        {"items": str(tmp_path / "other.parquet")},
        {"block": str(tmp_path / "block2.parquet")},
    ):
        with pytest.raises(ConfigError, match=r"the scores of another job .* filters"):
            run(**other)
    with pytest.raises(ConfigError, match="the scores of another job"):
        score_to_parquet(scorer, shards, tmp_path / "out")


def test_a_job_without_filters_is_what_it_was(
    scorer: Scorer, requests: pa.Table, tmp_path: Path
) -> None:
    pq.write_table(requests, tmp_path / "asked.parquet")
    shards = shards_of_requests(scorer, str(tmp_path / "asked.parquet"))
    summary = score_to_parquet(scorer, shards, tmp_path / "out")
    assert "filters" not in json.loads((tmp_path / "out" / JOB).read_text())
    names = ("where", "passing_items", "lists_short_by_filters", "filters")
    assert not set(summary.facts()) & set(names)


def test_users_are_not_shown_what_is_blocked_for_them(
    scorer: Scorer, requests: pa.Table, tmp_path: Path
) -> None:
    plain = scorer.score(requests)
    users = plain.column("user_id").to_pylist()
    first = {user: items[0] for user, items in zip(users, lists_of(plain), strict=True)}
    blocked = pd.DataFrame({"user_id": users[::2], "item_id": [first[one] for one in users[::2]]})
    blocked.to_parquet(tmp_path / "block.parquet")
    filters = Filters.of(scorer, FilterOptions(block=str(tmp_path / "block.parquet")))
    for number, items in enumerate(lists_of(scorer.score(requests, filters=filters))):
        whole = lists_of(plain)[number]
        assert items[:6] == (whole[1:] if number % 2 == 0 else whole[:6])


def test_ids_that_the_catalogue_lacks_are_counted_and_named(
    scorer: Scorer, requests: pa.Table, tmp_path: Path
) -> None:
    lists = [["nope", "i00001"], ["gone"], *([None] * 58)]
    pq.write_table(requests.append_column("exclude", pa.array(lists)), tmp_path / "a.parquet")
    shards = shards_of_requests(scorer, str(tmp_path / "a.parquet"))
    for _ in range(2):
        facts = score_to_parquet(scorer, shards, tmp_path / "out").facts()
        assert facts["unknown_listed_items"] == 2
        assert facts["first_unknown_listed_item"] == "nope"


def test_command_line_and_python_give_the_same_lists(
    trained: Path,
    config: ExperimentConfig,
    today: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exclude, block = tmp_path / "exclude.txt", tmp_path / "block.csv"
    exclude.write_text("i00020\nnope\n")
    block.write_text("user_id,item_id\nu000001,i00040\nu000002,i00041\n")
    command = ["score", str(trained), "--interactions", config.data.interactions, "--k", "5"]
    command += ["--users", str(config.data.users), "--where", "in_stock and price < 80"]
    command += ["--items", str(today), "--exclude", str(exclude), "--block", str(block)]
    done = CliRunner().invoke(main, [*command, "--output", str(tmp_path / "cli")])
    assert done.exit_code == 0, done.output
    for line in (
        "where: in_stock and price < 80",
        "items missing today: 10",
        "new items left out: 1, the first 'fresh'",
        "unknown listed items: 1, the first 'nope'",
        "lists short by filters: 0",
    ):
        assert line in done.output
    how: dict[str, Any] = {
        "where": "in_stock and price < 80",
        "items": pd.read_parquet(today),
        "block": pd.read_csv(block),
        "k": 5,
    }
    tables = {"history": config.data.interactions, "users": config.data.users}
    facts = recsys.score(trained, tmp_path / "python", **tables, **how, exclude=["i00020", "nope"])
    cli, python = (pq.read_table(tmp_path / name) for name in ("cli", "python"))
    assert cli.sort_by("user_id").equals(python.sort_by("user_id"))
    assert facts["passing_items"] > 20
    with caplog.at_level(logging.WARNING):
        frame = recsys.load(trained).recommend(**how, exclude=exclude)
    assert (
        "1 ids of lists of items are not in the catalogue, the first of them 'nope'" in caplog.text
    )
    assert "10 items of the catalogue are not in" in caplog.text
    assert frame.groupby("user_id")["item_id"].agg(list).to_dict() == dict(
        zip(cli.column("user_id").to_pylist(), lists_of(cli), strict=True)
    )
    few = recsys.load(trained).recommend(["u000001"], allow=["i00030", "i00031"], filter_seen=False)
    assert set(few["item_id"]) == {"i00030", "i00031"}


def test_wrong_filters_are_refused_before_anything_is_written(
    trained: Path, config: ExperimentConfig, tmp_path: Path
) -> None:
    command = ["score", str(trained), "--interactions", config.data.interactions]
    command += ["--users", str(config.data.users), "--output", str(tmp_path / "out")]
    for options, code, words in (
        (["--where", "prise < 3"], 2, "(did you mean 'price'?)"),
        (["--where", "price <"], 2, "  price <\n         ^"),
        (["--exclude", str(tmp_path / "none.txt")], 4, "this path of the exclude table does not"),
        (["--items", str(tmp_path / "none.csv")], 4, "this path of the items table does not exist"),
        (["--block", str(config.data.users)], 3, "column 'item_id': the block table has no such"),
        (["--new-items", "new.parquet", "--where", "true"], 2, "leave out --k, --keep-seen, "),
        (["--new-items", "new.parquet", "--items", "a"], 2, "--since, --where, --exclude, --allow"),
    ):
        done = CliRunner().invoke(main, [*command, *options])
        assert (done.exit_code, words in done.output) == (code, True), done.output
        assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(main, [*command, "--where", "prise < 3", "--json"])
    fields = json.loads(done.stdout)
    assert (fields["error"], fields["column"], fields["position"]) == ("FilterError", "prise", 1)
    model = recsys.load(trained)
    with pytest.raises(recsys.ConfigError, match="no column 'prise'"):
        model.recommend(["u000001"], where="prise < 3")
    with pytest.raises(recsys.ArgumentError, match="argument 'where': must be str or None; got 3"):
        model.recommend(["u000001"], where=3)
    with pytest.raises(NotFoundError, match="this path of the allow table"):
        recsys.score(trained, tmp_path / "out", history=config.data.interactions, allow="none.txt")


def test_a_server_refuses_what_is_no_parameter(trained: Path, requests: pa.Table) -> None:
    server = Lists().server(trained)
    with pytest.raises(ConfigError, match=r"no parameter 'wher' \(did you mean 'where'\?\)"):
        server.answer(requests, {"wher": "price < 3"}, RequestOrigin("asked"))
    some = server.answer(requests, {"k": 2, "allow": ["i00001"]}, RequestOrigin("asked"))
    assert {item for items in lists_of(some) for item in items} <= {"i00001"}
    assert set(some.column("reason").to_pylist()) <= {"filtered"}
