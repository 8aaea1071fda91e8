"""A resized table: what every value reads afterwards, against the hash's own arithmetic."""

import pytest
import torch
from torch import Tensor

from recsys.bundle.transfer import transferred
from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.growth import regrown, resized, share_blended
from recsys.embeddings.plan import EmbeddingPlan, Group
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.models.dcn import DCN, DCNConfig, embedded_axes

CPU = torch.device("cpu")
OLD = FeatureLayout((("user", 2), ("city", 1)), (("tags", 2),), ("age", "price"))
NEW = FeatureLayout((("shop", 1), ("city", 3), ("user", 2)), (("tags", 2),), ("price", "x", "age"))
VALUES = torch.randint(-(2**62), 2**62, (500,), generator=torch.Generator().manual_seed(3))


def brute_force(rows: Tensor, num_rows: int) -> Tensor:
    """Every hash of a small world of hashes, one by one: the mean of what it read before."""
    old, hashes = len(rows), len(rows) * num_rows  # each row of either table gets whole hashes
    found: list[list[Tensor]] = [[] for _ in range(num_rows)]
    for one in range(hashes):
        found[one * num_rows // hashes].append(rows[one * old // hashes])
    return torch.stack([torch.stack(read).mean(0) for read in found])


@pytest.mark.parametrize(("old", "new"), [(5, 10), (4, 12), (5, 7), (7, 5), (9, 3), (3, 3), (1, 4)])
def test_a_new_row_is_the_mean_of_what_its_hashes_read(old: int, new: int) -> None:
    rows = torch.randn(old, 3)
    torch.testing.assert_close(resized(rows, new), brute_force(rows, new))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_multiple_loses_nothing(times: int) -> None:
    before = EmbeddingPlan(num_rows=101, dim=4, layouts=(OLD,))
    after = EmbeddingPlan(num_rows=101 * times, dim=4, layouts=(OLD,))
    weight = torch.randn(101, 4)
    grown = resized(weight, 101 * times)
    for feature, _ in OLD.features:
        old, new = before.rows_of(feature, VALUES), after.rows_of(feature, VALUES)
        assert torch.equal(grown[new], weight[old])
    assert share_blended(101, 101 * times) == 0


def test_another_size_blends_at_most_the_borders() -> None:
    # Of 7 new rows of 5 old ones: borders 7/5, 14/5, 21/5, 28/5 lie within four of them.
    assert share_blended(5, 7) == pytest.approx(4 / 7)
    assert share_blended(1000, 1500) == pytest.approx(500 / 1500)


def test_groups_grow_by_themselves_and_new_ones_start_fresh() -> None:
    old = EmbeddingPlan(
        num_rows=4, dim=1, layouts=(OLD,), groups=(Group(name="g", num_rows=2, features=("city",)),)
    )
    new = EmbeddingPlan(
        num_rows=4,
        dim=1,
        layouts=(OLD,),
        groups=(
            Group(name="h", num_rows=2, features=("user",)),
            Group(name="g", num_rows=4, features=("city",)),
        ),
    )
    weight, total = torch.arange(6.0).unsqueeze(1), torch.arange(6.0)
    step = torch.tensor([9.0])
    found = regrown(
        old,
        new,
        {"weight": weight, "sum": total, "step": step},
        lambda first, count: torch.full((count, 1), 100.0 + first),
    )
    assert found["weight"].flatten().tolist() == [0, 1, 2, 3, 104, 104, 4, 4, 5, 5]
    assert found["sum"].tolist() == [0, 1, 2, 3, 0, 0, 4, 4, 5, 5]
    assert found["step"].tolist() == [9]


def model_of(layout: FeatureLayout, num_rows: int, seed: int) -> DCN:
    config = TableConfig(num_rows=num_rows, dim=4, backend="torch")
    plan = EmbeddingPlan.of(config, (layout,))
    torch.manual_seed(seed)
    embedding = UnifiedEmbedding(plan, build_table(config, device=CPU, seed=seed))
    return DCN(DCNConfig(hidden=(8, 4)), embedding, plan.width(0)).eval()


def started_from(old: DCN, layout: FeatureLayout, num_rows: int) -> DCN:
    new = model_of(layout, num_rows, seed=2)
    axes = embedded_axes(old.config)
    plans = old.embedding.plan, new.embedding.plan  # type: ignore[union-attr]
    new.load_state_dict(transferred(*plans, axes, old.state_dict(), new.state_dict()))  # type: ignore[arg-type]
    new.embedding.table.weight.copy_(resized(old.embedding.table.weight, num_rows))  # type: ignore
    return new


def block(layout: FeatureLayout, columns: dict[str, Tensor], tags: Jagged) -> FeatureBlock:
    single = torch.stack([columns[name].long() for name, _ in layout.single], dim=1)
    dense = torch.stack([columns[name].float() for name in layout.dense], dim=1)
    return FeatureBlock(single, (tags,), dense)


def rows_of_both() -> tuple[FeatureBlock, FeatureBlock]:
    generator = torch.Generator().manual_seed(5)
    names = {name for layout in (OLD, NEW) for name, _ in layout.single}
    columns = {name: torch.randint(0, 99, (20,), generator=generator) for name in sorted(names)}
    for name in ("age", "price", "x"):
        columns[name] = torch.randn(20, generator=generator)
    tags = Jagged(torch.randint(0, 9, (40,), generator=generator), torch.arange(0, 41, 2))
    return block(OLD, columns, tags), block(NEW, columns, tags)


def test_new_features_more_lookups_and_another_order_predict_the_same_at_first() -> None:
    old = model_of(OLD, 50, seed=1)
    new = started_from(old, NEW, 100)
    before, after = rows_of_both()
    torch.testing.assert_close(new(after), old(before))


def test_new_columns_learn() -> None:
    old = model_of(OLD, 50, seed=1)
    new = started_from(old, NEW, 50)
    _, after = rows_of_both()
    new(after).sum().backward()
    grad = new.cross[0].weight.grad
    assert grad is not None
    assert grad[:, :4].abs().sum() > 0  # the columns of "shop", a new feature


def test_other_sizes_are_refused_by_name() -> None:
    old = model_of(OLD, 50, seed=1)
    other = {**old.state_dict(), "deep.0.weight": torch.zeros(9, 22)}
    plan = old.embedding.plan
    with pytest.raises(ConfigError, match=r"'deep.0.weight' is \(8, 22\), this one's \(9, 22\)"):
        transferred(plan, plan, embedded_axes(old.config), old.state_dict(), other)  # type: ignore


def test_a_feature_that_changes_its_group_starts_anew() -> None:
    """Its values read other rows, of which the old weights know nothing."""
    old = EmbeddingPlan(num_rows=9, dim=2, layouts=(OLD,))
    group = Group(name="g", num_rows=5, features=("city",))
    new = EmbeddingPlan(num_rows=9, dim=2, layouts=(OLD,), groups=(group,))
    weight = torch.ones(3, old.width(0))  # two rows of two for the user, one for the city
    found = transferred(old, new, {"w": ((1, 0),)}, {"w": weight}, {"w": weight})["w"]
    assert found[0].tolist() == [1] * 4 + [0] * 2 + [1] * 6


def test_a_history_of_another_feature_starts_anew() -> None:
    """Its columns hold what its source's rows hold, so the name alone does not carry them."""
    single = (("id", 1), ("brand", 1))
    layouts = [
        FeatureLayout(single, (("taken", 1),), (), ("mean",), (("taken", source),))
        for source in ("id", "id", "brand")
    ]
    old, same, other = (EmbeddingPlan(num_rows=9, dim=2, layouts=(one,)) for one in layouts)
    weight = torch.arange(6.0).unsqueeze(0)
    found = [
        transferred(old, new, {"w": ((1, 0),)}, {"w": weight}, {"w": weight})["w"].tolist()
        for new in (same, other)
    ]
    assert found == [[[0, 1, 2, 3, 4, 5]], [[0, 1, 2, 3, 0, 0]]]
    group = (Group(name="apart", num_rows=3, features=("id",)),)
    apart = EmbeddingPlan(num_rows=9, dim=2, layouts=(layouts[0],), groups=group)
    moved = transferred(old, apart, {"w": ((1, 0),)}, {"w": weight}, {"w": weight})["w"]
    assert moved.tolist() == [[0, 0, 2, 3, 0, 0]]  # with the group of its source
