"""Embeddings of a study: each against its definition, all against what they promise alike."""

import pytest
import torch
from embedding_methods.alternatives import (
    METHODS,
    MULTIPLEXED,
    StudyEmbedding,
    build_embedding,
    collisionless_parameters,
)
from embedding_methods.lookups import Chunked, QuotientRemainder, rows_to_split, split_number
from embedding_methods.vocabulary import share_rows
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.hashing import salt_of, table_rows
from recsys.embeddings.plan import EmbeddingPlan, allocate
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding

CPU = torch.device("cpu")
CONFIG = TableConfig(dim=8, backend="torch")
ITEMS = FeatureLayout((("id", 3), ("brand", 1)), (("genres", 1), ("tags", 1)), ("price",))
QUERY = FeatureLayout((("user", 1),), (), ())
LAYOUTS = (ITEMS, QUERY)
COUNTS = {"id": 300, "brand": 20, "genres": 12, "tags": 2, "user": 100}
VALUES = {
    name: torch.randint(-(2**62), 2**62, (count,), generator=torch.Generator().manual_seed(count))
    for name, count in COUNTS.items()
}
FULL = collisionless_parameters(VALUES, 8)
SHARED_OUT = ("unified_fine", "unified_wide")
"""Methods that leave lookups unused where they would distinguish no more values."""
SMALL = [method for method in METHODS if method != "collisionless"]


def build(method: str, parameters: int = FULL, seed: int = 3) -> StudyEmbedding:
    return build_embedding(
        method, LAYOUTS, CONFIG, parameters=parameters, values=VALUES, device=CPU, seed=seed
    )


def draw(feature: str, count: int) -> Tensor:
    return VALUES[feature][torch.randint(0, COUNTS[feature], (count,))]


def jagged(feature: str, rows: int, weighted: bool) -> Jagged:
    lengths = torch.randint(0, 4, (rows,))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    weights = torch.rand(int(offsets[-1])) if weighted else None
    return Jagged(draw(feature, int(offsets[-1])), offsets, weights)


def blocks(rows: int = 11, weighted: bool = False) -> list[FeatureBlock]:
    multi = (jagged("genres", rows, weighted), jagged("tags", rows, weighted))
    single = torch.stack([draw("id", rows), draw("brand", rows)], dim=1)
    items = FeatureBlock(single, multi, torch.randn(rows, 1))
    return [items, FeatureBlock(draw("user", 5)[:, None], (), torch.zeros(5, 0))]


def vectors(embedding: StudyEmbedding, feature: str, values: Tensor) -> Tensor:
    """Return the vectors of values of one feature, (T, width), without the stream."""
    lookup = embedding.lookups[feature]
    return lookup.compose(embedding.table.weight[lookup.rows(values)], values)


@pytest.mark.parametrize("parameters", [FULL, FULL // 3, FULL // 20])
@pytest.mark.parametrize("method", SMALL)
def test_the_budget_is_held_and_used_up_but_for_a_row(method: str, parameters: int) -> None:
    embedding = build(method, parameters)
    assert embedding.num_parameters == embedding.table.weight.numel()
    assert parameters - 8 < embedding.num_parameters <= parameters


@pytest.mark.parametrize("method", SMALL)
def test_no_lookup_leaves_the_table_and_all_of_it_is_in_reach(method: str) -> None:
    embedding = build(method, FULL // 10)
    values = torch.randint(-(2**62), 2**62, (4000,))
    seen = {name: torch.cat([values, VALUES[name]]) for name in COUNTS}
    rows = torch.cat([embedding.lookups[name].rows(seen[name]).flatten() for name in COUNTS])
    assert int(rows.min()) >= 0
    assert set(rows.tolist()) == set(range(embedding.table.num_rows))


@pytest.mark.parametrize("method", METHODS)
def test_the_embedded_row_is_as_wide_by_every_method(method: str) -> None:
    embedding = build(method)
    widths = [part.shape[1] for part in embedding(blocks())]
    assert widths == [embedding.width(0), embedding.width(1)]
    wider = {"unified_wide": 2}.get(method, 1)  # and all lookups of this budget can be placed
    dim = embedding.table.weight.shape[1]
    lookups = sum(lookup.num_vectors for lookup in embedding.lookups.values())
    assert sum(widths) == lookups * dim + 1
    assert lookups * dim <= wider * 5 * 8
    if method not in SHARED_OUT:
        assert lookups * dim == 5 * 8


@pytest.mark.parametrize("pooling", ["mean", "sum", "sqrtn"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_forward_is_each_value_alone_then_pooled(method: str, weighted: bool, pooling: str) -> None:
    layout = FeatureLayout(ITEMS.single, ITEMS.multi, ITEMS.dense, (pooling, pooling))  # type: ignore[arg-type]
    embedding = build_embedding(
        method, (layout,), CONFIG, parameters=FULL, values=VALUES, device=CPU, seed=3
    )
    block = blocks(weighted=weighted)[0]
    rows = []
    for n in range(len(block)):
        parts = [
            vectors(embedding, name, block.single[n, column : column + 1])[0]
            for column, name in enumerate(("id", "brand"))
        ]
        for name, values in zip(("genres", "tags"), block.multi, strict=True):
            own = slice(int(values.offsets[n]), int(values.offsets[n + 1]))
            vector = vectors(embedding, name, values.values[own])
            weight = torch.ones(len(vector)) if values.weights is None else values.weights[own]
            total = (vector * weight[:, None]).sum(0)
            size = {"mean": float(weight.sum()), "sqrtn": float(weight.square().sum().sqrt())}
            parts.append(total / size.get(pooling, 1.0) if len(vector) else total)
        rows.append(torch.cat([*parts, block.dense[n]]))
    torch.testing.assert_close(embedding([block])[0], torch.stack(rows))


def test_collisionless_gives_every_value_a_row_and_unseen_ones_one_a_feature() -> None:
    embedding = build("collisionless")
    rows = [embedding.lookups[name].rows(VALUES[name]).flatten().tolist() for name in COUNTS]
    unseen = [embedding.lookups[name].rows(torch.tensor([5, -7])).flatten() for name in COUNTS]
    assert all(int(pair[0]) == int(pair[1]) for pair in unseen)
    every = [row for feature in rows for row in feature] + [int(pair[0]) for pair in unseen]
    assert sorted(every) == list(range(sum(COUNTS.values()) + len(COUNTS)))
    assert embedding.num_parameters == FULL == 8 * (sum(COUNTS.values()) + 5)


@pytest.mark.parametrize("method", ["hashing_trick", "multi_hash", "quotient_remainder", "robe"])
def test_features_with_own_rows_meet_in_none(method: str) -> None:
    embedding = build(method, FULL // 4)
    rows = [set(embedding.lookups[n].rows(VALUES[n]).flatten().tolist()) for n in COUNTS]
    assert len(set().union(*rows)) == sum(len(own) for own in rows)


def test_multi_hash_is_two_hashes_into_the_own_range_side_by_side() -> None:
    embedding = build("multi_hash", FULL // 4)
    num_rows = FULL // 4 // 4  # 219: at least 10 of them for each of five features
    least = {"id": 10, "brand": 10, "genres": 10, "tags": 2, "user": 10}
    first, count = share_rows(COUNTS, least, num_rows)["brand"]
    halves = [
        embedding.table.weight[
            first + table_rows(VALUES["brand"], torch.tensor(salt_of("brand", k)), count)
        ]
        for k in range(2)
    ]
    torch.testing.assert_close(
        vectors(embedding, "brand", VALUES["brand"]), torch.cat(halves, dim=1)
    )


@pytest.mark.parametrize("share", [2, 5])
def test_quotient_and_remainder_tell_all_values_apart(share: int) -> None:
    embedding = build("quotient_remainder", FULL // share)
    for name in COUNTS:
        found = vectors(embedding, name, VALUES[name])
        assert len(torch.unique(found, dim=0)) == COUNTS[name], name


def test_rows_beyond_the_need_of_quotient_and_remainder_go_by_cardinality() -> None:
    embedding = build("quotient_remainder")
    counts = {
        name: lookup.num_rows
        for name, lookup in embedding.lookups.items()
        if isinstance(lookup, QuotientRemainder)
    }
    assert counts["tags"] == rows_to_split(3)  # of 2 values and the unseen
    assert counts["id"] > 2.5 * counts["user"] > 2.5 * 3 * counts["brand"]


def test_too_few_rows_for_a_split_make_the_most_pairs() -> None:
    assert split_number(301, 20) == 10  # 100 pairs; 301 values need 35 rows
    assert split_number(100, 2) == 1
    crowded = build("quotient_remainder", 8 * 30)
    assert torch.isfinite(vectors(crowded, "id", VALUES["id"])).all()


@pytest.mark.parametrize("method", ["robe", "robe_multiplexed"])
def test_robe_reads_consecutive_floats_of_one_circular_array(method: str) -> None:
    embedding = build(method, 8 * 60)  # 120 rows of 4: chunks wrap around
    first, count = 0, 120
    if method == "robe":
        least = {"id": 6, "brand": 6, "genres": 6, "tags": 2, "user": 6}
        first, count = share_rows(COUNTS, least, 120)["brand"]
    array, size = embedding.table.weight[first : first + count].flatten(), count * 4
    values = torch.cat([VALUES["brand"], torch.arange(400)])
    wrapped = 0
    for value, vector in zip(values, vectors(embedding, "brand", values), strict=True):
        places = [int(table_rows(value, torch.tensor(salt_of("brand", k)), size)) for k in range(2)]
        chunks = [array[[(place + i) % size for i in range(4)]] for place in places]
        torch.testing.assert_close(vector, torch.cat(chunks))
        wrapped += sum(place > size - 4 for place in places)
    assert wrapped > 2


def test_multiplexed_quotient_and_remainder_multiply_two_hashed_rows_of_the_whole_table() -> None:
    embedding = build("quotient_remainder_multiplexed", 8 * 50)
    for name, values in VALUES.items():
        salts = [torch.tensor(salt_of(name, k)) for k in range(2)]
        one, other = (embedding.table.weight[table_rows(values, salt, 50)] for salt in salts)
        torch.testing.assert_close(vectors(embedding, name, values), one * other)


@pytest.mark.parametrize("method", MULTIPLEXED)
def test_multiplexed_features_read_all_rows_each_by_salts_of_its_own(method: str) -> None:
    embedding, values = build(method, FULL // 10), torch.arange(4_000)
    reached = {name: embedding.lookups[name].rows(values) for name in COUNTS}
    every = set(range(embedding.table.num_rows))
    assert all(set(rows.flatten().tolist()) == every for rows in reached.values())
    same = (reached["id"][:, 0] == reached["user"][:, 0]).float().mean()
    assert float(same) < 3 / embedding.table.num_rows + 0.02


def test_values_are_numbered_where_a_method_keeps_them_and_nowhere_else() -> None:
    numbered = {method: build(method).numbered_values for method in METHODS}
    kept = {method for method, count in numbered.items() if count}
    assert kept == {"collisionless", "quotient_remainder"}
    assert {numbered[method] for method in kept} == {sum(COUNTS.values())}


def with_multiplicities(found: dict[str, int]) -> tuple[FeatureLayout, ...]:
    def one(layout: FeatureLayout) -> FeatureLayout:
        single = tuple((name, found[name]) for name, _ in layout.single)
        multi = tuple((name, found[name]) for name, _ in layout.multi)
        return FeatureLayout(single, multi, layout.dense)

    return tuple(one(layout) for layout in LAYOUTS)


UNIFIED = {
    "unified": (8, dict.fromkeys(COUNTS, 1)),
    "multi_hash_multiplexed": (4, dict.fromkeys(COUNTS, 2)),
    "unified_auto": (4, allocate(COUNTS, 10)),
    "unified_fine": (2, allocate(COUNTS, 20)),
    "unified_wide": (8, allocate(COUNTS, 10)),
}


@pytest.mark.parametrize("method", UNIFIED)
def test_unified_methods_equal_the_unified_embedding(method: str) -> None:
    dim, multiplicities = UNIFIED[method]
    num_rows = FULL // 2 // dim
    config = TableConfig(num_rows=num_rows, dim=dim, backend="torch")
    plan = EmbeddingPlan(num_rows=num_rows, dim=dim, layouts=with_multiplicities(multiplicities))
    reference = UnifiedEmbedding(plan, build_table(config, device=CPU, seed=3))
    embedding = build(method, FULL // 2)
    for _ in range(3):
        batch = blocks()
        found, expected = embedding(batch), reference(batch)
        torch.testing.assert_close(found, expected)
        (found[0].square().sum() + found[1].sum()).backward()
        (expected[0].square().sum() + expected[1].sum()).backward()
    torch.testing.assert_close(embedding.table.weight, reference.table.weight)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_moves_the_rows_read_and_no_other(method: str) -> None:
    embedding = build(method)
    before, batch = embedding.table.weight.clone(), blocks(rows=3)
    values = {
        "id": batch[0].single[:, 0],
        "brand": batch[0].single[:, 1],
        "genres": batch[0].multi[0].values,
        "tags": batch[0].multi[1].values,
        "user": batch[1].single[:, 0],
    }
    read = {
        row
        for name, own in values.items()
        for row in embedding.lookups[name].rows(own).flatten().tolist()
    }
    if method.startswith("robe"):  # of the two rows of a chunk, the next may hold nothing of it
        assert read >= (read := rows_of_chunks(values, embedding))
    sum(part.square().sum() for part in embedding(batch)).backward()
    moved = set((embedding.table.weight != before).any(1).nonzero().flatten().tolist())
    assert moved == read


def rows_of_chunks(values: dict[str, Tensor], embedding: StudyEmbedding) -> set[int]:
    """Return the rows of 4 that any of the two chunks of 4 floats of any value lies in."""
    found = set()
    for name, own in values.items():
        lookup = embedding.lookups[name]
        assert isinstance(lookup, Chunked)
        for value in own:
            for k in range(2):
                size = lookup.num_rows * 4
                place = int(table_rows(value, torch.tensor(salt_of(name, k)), size))
                found |= {lookup.first + (place + i) // 4 % lookup.num_rows for i in range(4)}
    return found


@pytest.mark.parametrize("method", METHODS)
def test_one_value_in_two_features_learns_two_meanings(method: str) -> None:
    layout = FeatureLayout((("liked", 1), ("hated", 1)), (), ())
    shared = torch.arange(40)
    embedding = build_embedding(
        method,
        [layout],
        CONFIG,
        parameters=8 * 82,
        values={"liked": shared, "hated": shared},
        device=CPU,
        seed=0,
    )
    block = FeatureBlock(shared.repeat(2, 1).T, (), torch.zeros(40, 0))
    for _ in range(120):
        liked, hated = embedding([block])[0].chunk(2, dim=1)
        ((liked - 0.3).square() + (hated + 0.3).square()).sum().backward()
    liked, hated = embedding([block])[0].detach().chunk(2, dim=1)
    assert float(liked.mean()) > 0.1
    assert float(hated.mean()) < -0.1
    assert float((liked.mean(1) > hated.mean(1)).float().mean()) > 0.85


@pytest.mark.parametrize("method", METHODS)
def test_vectors_start_with_the_variance_that_was_asked_for(method: str) -> None:
    values = {"id": torch.arange(10_000)}
    layout = FeatureLayout((("id", 1),), (), ())
    config = TableConfig(dim=8, init_scale=0.3, backend="torch")
    factors = "quotient_remainder" in method  # as many rows of either
    floats = 8 * (201 if factors else 10_001)
    embedding = build_embedding(
        method, [layout], config, parameters=floats, values=values, device=CPU, seed=0
    )
    found = vectors(embedding, "id", values["id"])
    assert float(found.var()) == pytest.approx(0.3**2 / 3, rel=0.15)


def test_nothing_of_it_is_stepped_from_outside() -> None:
    assert not list(build("quotient_remainder").parameters())


def test_wrong_requests_are_named() -> None:
    with pytest.raises(ValueError, match=r"no method 'rob', .* \(did you mean 'robe'\?\)"):
        build("rob")
    with pytest.raises(ValueError, match=f"collisionless needs {FULL} parameters, got {FULL - 1}"):
        build("collisionless", FULL - 1)
    with pytest.raises(ValueError, match="7 parameters are 0 rows of 8"):
        build("unified", 7)
    with pytest.raises(ValueError, match="robe has at most"):
        build("robe", 2**31 + 8)
    odd = {"parameters": 900, "values": VALUES, "device": CPU, "seed": 0}
    with pytest.raises(ValueError, match="cuts dim into 2 equal parts, and it is 7"):
        build_embedding("robe", LAYOUTS, TableConfig(dim=7), **odd)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names of their own and values: user, user"):
        build_embedding("unified", (QUERY, QUERY), CONFIG, **odd)  # type: ignore[arg-type]
    reading = FeatureLayout((("id", 1),), (("taken", 1),), (), reads=(("taken", "id"),))
    with pytest.raises(ValueError, match="that read the rows of others are for the unified"):
        build_embedding("unified", (reading,), CONFIG, **odd)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 sides, got 1 blocks"):
        build("unified")(blocks()[:1])
    with pytest.raises(ValueError, match=r"side 1 wants .* \(1, 0, 0\), the block has \(2, 2, 1\)"):
        build("unified")([blocks()[0], blocks()[0]])
