"""The built-in world: what is drawn is what `preference` says, and the twin holds nothing."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import scipy.stats
import yaml

from recsys.core.errors import ConfigError
from recsys.core.strict import parse
from recsys.embeddings.table import TableConfig
from recsys.features.dataset.split import TEST, SplitConfig, assign
from recsys.features.schema import Schema
from recsys.features.tables.sources import Sources
from recsys.features.world import events as synthetic_events
from recsys.features.world import names as names
from recsys.features.world.events import REPEAT_SHARE, SAME_CATEGORY, SECONDS_A_WEEK
from recsys.features.world.world import END, START, RetailWorld
from recsys.metrics.ranking import hits, recall_at_k


@pytest.fixture(scope="module")
def world() -> RetailWorld:
    return RetailWorld.create(seed=3)


@pytest.fixture(scope="module")
def crowded() -> RetailWorld:
    """Few users and items, many events: frequencies show probabilities."""
    return RetailWorld.create(seed=5, users=4, items=40, events=200_000)


def log_of(world: RetailWorld) -> pd.DataFrame:
    """Return the events in order with rows instead of ids, and their place in the session."""
    log = world.interactions.to_pandas()
    log["user"] = log.user_id.str[1:].astype(int)
    log["item"] = log.item_id.str[1:].astype(int)
    log["category"] = world.catalogue.category[log.item]
    log["repeat"] = world.repeat
    log["step"] = log.groupby("session_id").cumcount()
    log["week"] = (log.timestamp - START) // SECONDS_A_WEEK
    return log


def chi_square(observed: np.ndarray, expected: np.ndarray, fitted: int = 1) -> float:
    """Return the p-value of counts against expected ones, rare cells pooled."""
    rare = expected < 5
    seen = np.append(observed[~rare], observed[rare].sum())
    hoped = np.append(expected[~rare], expected[rare].sum())
    seen, hoped = seen[hoped > 0], hoped[hoped > 0]
    statistic = float(((seen - hoped) ** 2 / hoped).sum())
    return float(scipy.stats.chi2.sf(statistic, len(seen) - fitted))


@pytest.mark.parametrize("step", [0, 1, 3])
def test_choices_are_drawn_as_preference_says_wherever_in_a_session(
    crowded: RetailWorld, step: int
) -> None:
    # One event a session: these are independent, so Pearson's test is exact enough.
    log = log_of(crowded)
    log["began"] = log.groupby("session_id").timestamp.transform("min")
    log = log[(log.step == step) & ~log.repeat]
    rows, began = log.user.to_numpy(), log.began.to_numpy()
    probability = crowded.preference(rows, began)
    np.testing.assert_allclose(probability.sum(1), 1)
    quarter = (began - START) // (13 * SECONDS_A_WEEK)
    for user in range(4):
        for part in range(4):
            chosen = (rows == user) & (quarter == part)
            if chosen.sum() > 500:
                observed = np.bincount(log.item.to_numpy()[chosen], minlength=40)
                assert chi_square(observed, probability[chosen].sum(0)) > 1e-4
    # The same counts do not fit another user's preference, so the test can tell.
    others = crowded.preference((rows + 1) % 4, began).sum(0)
    assert chi_square(np.bincount(log.item, minlength=40), others) < 1e-12


def test_events_respect_launches_and_some_items_are_cold(world: RetailWorld) -> None:
    log, launched = log_of(world), world.items["launched"].to_numpy()
    assert (log.timestamp >= launched[log.item]).all()
    cold = launched >= START + 0.92 * (END - START)
    assert 0.02 < cold.mean() < 0.08
    assert (np.bincount(log.item, minlength=1000)[cold] > 0).mean() > 0.5
    never = world.preference(np.arange(50), START)[:, launched > START]
    assert never.size > 0
    assert (never == 0).all()


def test_tables_fit_together(world: RetailWorld) -> None:
    log = world.interactions
    assert (log.num_rows, world.items.num_rows, world.users.num_rows) == (60_000, 1000, 2000)
    for table, key in ((world.items, "item_id"), (world.users, "user_id")):
        ids = table[key].to_pylist()
        assert ids == sorted(set(ids))
        assert set(log[key].to_pylist()) <= set(ids)
    seconds = log["timestamp"].to_numpy()
    assert START <= seconds[0] <= seconds[-1] < END
    assert (np.diff(seconds) >= 0).all()
    item = world.items.to_pylist()[17]
    assert item["brand"] in item["title"]
    assert item["subcategory"] in item["title"]
    assert item["subcategory"] in names.TREE[item["department"]][item["category"]]
    assert all(column.null_count == 0 for t in (log, world.items, world.users) for column in t)


def test_popularity_is_skewed_and_drifts(world: RetailWorld) -> None:
    log = log_of(world)
    counts = np.sort(np.bincount(log.item, minlength=1000))[::-1]
    assert counts[:100].sum() > 3 * 0.1 * counts.sum()
    assert counts[0] > 10 * np.median(counts)

    def likeness(half: pd.Series) -> float:
        a, b = (np.bincount(log.item[half == side], minlength=1000) for side in (0, 1))
        return float(np.corrcoef(a, b)[0, 1])

    drift = likeness(pd.Series(np.where(log.week < 13, 0, np.where(log.week >= 39, 1, 2))))
    chance = likeness(pd.Series(np.random.default_rng(0).integers(0, 2, len(log))))
    assert drift < chance - 0.05


def test_repeats_were_taken_before(world: RetailWorld) -> None:
    log = log_of(world)
    known = log.duplicated(["user", "item"])
    assert known[log.repeat].mean() > 0.999  # The rest: an earlier event in the same second.
    later = log.groupby("user").cumcount() > 0
    assert log.repeat[later].mean() == pytest.approx(REPEAT_SHARE, abs=0.01)


def share_of_same_category(log: pd.DataFrame) -> float:
    before = log.groupby("session_id").category.shift()
    return float((log.category == before)[before.notna()].mean())


def test_sessions_hold_related_items_and_the_twins_do_not(world: RetailWorld) -> None:
    log = log_of(world)
    within = share_of_same_category(log[~log.repeat])
    shuffled = log.groupby("user").category.sample(frac=1, random_state=0)
    apart = float((shuffled.to_numpy()[1:] == shuffled.to_numpy()[:-1]).mean())
    assert within > SAME_CATEGORY + (1 - SAME_CATEGORY) * apart
    twin = RetailWorld.create(seed=3, noise=True)
    share = np.bincount(twin.catalogue.category) / 1000
    assert share_of_same_category(log_of(twin)) == pytest.approx((share**2).sum(), abs=0.01)


def test_metadata_explains_the_items(world: RetailWorld) -> None:
    items = world.catalogue
    codes = (items.subcategory, items.brand, items.style)
    known = np.hstack([np.eye(code.max() + 1)[code] for code in codes])
    known = np.column_stack([known, np.log(items.price)])
    rest = items.vectors - known @ np.linalg.lstsq(known, items.vectors, rcond=None)[0]
    assert 0.01 < rest.var() / items.vectors.var() < 0.15


def test_the_noise_twin_shares_all_but_what_is_taken() -> None:
    sizes = {"users": 60, "items": 50, "events": 30_000}
    world, twin = (RetailWorld.create(9, **sizes, noise=noise) for noise in (False, True))
    assert twin.items.equals(world.items)
    assert twin.users.equals(world.users)
    assert twin.interactions.drop(["item_id"]).equals(world.interactions.drop(["item_id"]))
    for each, least, most in ((twin, 1e-4, 1.0), (world, 0.0, 1e-12)):
        log = log_of(each)
        before = log.groupby("session_id").item.shift(fill_value=-1)
        tables = [pd.crosstab(log[by], log.item) for by in ("user", "week", "device")]
        tables.append(pd.crosstab(before, log.item))
        p_values = [scipy.stats.chi2_contingency(table).pvalue for table in tables[:2]]
        p_values.append(scipy.stats.chi2_contingency(tables[3]).pvalue)
        p_values.append(scipy.stats.chisquare(np.bincount(log.item, minlength=50)).pvalue)
        assert least <= min(p_values)
        assert max(p_values) <= most
    np.testing.assert_allclose(twin.preference(np.arange(3), START), 1 / 50)


def test_best_reachable_is_far_above_popularity_and_at_chance_on_noise(world: RetailWorld) -> None:
    best, popular = recall_of_best_and_popularity(world)
    assert 0.35 < best < 0.65
    assert popular < best / 3
    best, popular = recall_of_best_and_popularity(RetailWorld.create(seed=3, noise=True))
    # 20 of the items not yet seen, at most 1,000 and on average some 970.
    assert best == pytest.approx(20 / 980, abs=0.008)
    assert popular == pytest.approx(20 / 980, abs=0.008)


def recall_of_best_and_popularity(world: RetailWorld) -> tuple[float, float]:
    """Return recall@20 on the last tenth of the rows, seen items left out."""
    log, size = log_of(world).sort_values(["user", "timestamp"], kind="stable"), 1000
    seconds = log.timestamp.to_numpy()
    test = assign(SplitConfig(), log.user.to_numpy(np.int32), seconds, None) == TEST
    seen = np.unique((log.user * size + log.item)[~test])
    users, items = np.divmod(np.setdiff1d((log.user * size + log.item)[test], seen), size)
    asking, offsets = np.unique(users, return_index=True)
    offsets = np.append(offsets, len(users))
    taken = np.zeros((world.users.num_rows, size), bool)
    taken.flat[seen] = True
    recalls = []
    for scores in (
        world.best_reachable(asking, int(seconds[test].min())),
        np.tile(np.bincount(log.item[~test], minlength=size), (len(asking), 1)),
    ):
        top = np.argsort(-np.where(taken[asking], -np.inf, scores), axis=1, kind="stable")[:, :20]
        recall = recall_at_k(hits(top, items, offsets), np.diff(offsets), 20)
        recalls.append(float(recall.mean()))
    return recalls[0], recalls[1]


def test_best_reachable_weighs_weeks_by_the_time_they_cover(world: RetailWorld) -> None:
    rows, week = np.array([3, 77]), SECONDS_A_WEEK
    start = START + 40 * week
    one = world.preference(rows, np.array([start, start + 5]))
    two = world.preference(rows, start + week)
    assert np.abs(one - two).max() > 1e-4
    np.testing.assert_allclose(world.best_reachable(rows, start, start + week - 1), one, rtol=1e-6)
    mixed = world.best_reachable(rows, start + week // 2, start + 2 * week - 1)
    np.testing.assert_allclose(mixed, (one + 2 * two) / 3, rtol=1e-6)
    # Both ends inside a week: half of the first, three quarters of the second.
    mixed = world.best_reachable(rows, start + week // 2, start + week + 3 * week // 4 - 1)
    np.testing.assert_allclose(mixed, (2 * one + 3 * two) / 5, rtol=1e-6)
    with pytest.raises(ConfigError, match="not inside the log"):
        world.best_reachable(rows, START - 1)


def test_one_seed_is_one_world_also_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"users": 90, "items": 60, "events": 3000}
    world = RetailWorld.create(1, **sizes)
    assert not RetailWorld.create(2, **sizes).interactions.equals(world.interactions)
    monkeypatch.setattr(synthetic_events, "_CELLS_AT_ONCE", 7 * 52 * 24)
    assert RetailWorld.create(1, **sizes).interactions.equals(world.interactions)
    with pytest.raises(ConfigError, match="at least 20 items, got 19"):
        RetailWorld.create(1, items=19)
    with pytest.raises(ConfigError, match="seed is 0 or more, got -1"):
        RetailWorld.create(-1)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_hold_the_tables_and_their_configuration(tmp_path: Path, kind: str) -> None:
    world = RetailWorld.create(1, users=50, items=30, events=500)
    files = world.write(tmp_path, kind="csv" if kind == "csv" else "parquet", parts=3)
    assert len(list(files.interactions.iterdir())) == 3
    for path, table in (
        (files.interactions, world.interactions),
        (files.items, world.items),
        (files.users, world.users),
    ):
        assert ds.dataset(path, format=kind).to_table().equals(table)
    config = yaml.safe_load(world.config_text(files))
    sources = parse(Sources, config["data"], source="recsys.yaml")
    assert (tmp_path / sources.interactions).is_dir()
    schema = parse(Schema, config["schema"], source="recsys.yaml")
    for side in ("items", "users", "interactions"):
        columns = {feature.source_column for feature in schema.features_of(side)}
        assert columns <= set(getattr(world, side).column_names)
    parse(SplitConfig, config["split"], source="recsys.yaml")
    assert parse(TableConfig, config["embedding"], source="recsys.yaml").num_rows == 512


def test_a_larger_world_costs_little_and_keeps_its_sizes() -> None:
    began = time.process_time()
    world = RetailWorld.create(0, users=5000, items=3000, events=200_000)
    assert time.process_time() - began < 8  # About 1 s on an idle core.
    assert world.interactions.num_rows == 200_000
    assert world.interactions["item_id"].type == pa.string()
