"""Where a value's rows are is a file format: literal values, and what may change around them."""

import pytest
import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.hashing import mix, salt_of, table_rows
from recsys.embeddings.plan import EmbeddingPlan, Group
from recsys.embeddings.table import Table, TableConfig
from recsys.embeddings.unified import UnifiedEmbedding

CPU = torch.device("cpu")
VALUES = torch.tensor([0, 1, -1, 2**62, -(2**63), 1234567890123456789])
OLD = FeatureLayout((("user", 2), ("city", 1)), (("tags", 2),), ("age",))
GROUPS = (
    Group(name="first", num_rows=50, features=("user",)),
    Group(name="places", num_rows=1000, features=("city", "tags")),
)


@pytest.mark.parametrize(
    ("feature", "lookup", "salt"),
    [
        ("user", 0, 425663481386925318),
        ("user", 1, 7184546423261087193),
        ("city", 0, 6781970035917895702),
        ("tags", 0, 198751238942407320),
        ("tags", 1, -7210663013888416975),
        ("", 0, 236512214089386803),
        ("prix_\u20ac", 7, 7254764008424957),
    ],
)
def test_salts_are_frozen(feature: str, lookup: int, salt: int) -> None:
    assert salt_of(feature, lookup) == salt


def test_the_mix_is_frozen() -> None:
    assert mix(VALUES).tolist() == [
        0,
        6238072747940578789,
        -5417735806833148549,
        1360429390938723525,
        2720858781877447050,
        -4020178596217861550,
    ]


@pytest.mark.parametrize(
    ("num_rows", "rows"),
    [
        (7, [[1, 0], [0, 1], [5, 6], [6, 3], [5, 1], [2, 2]]),
        (
            100_003,
            [
                [16607, 8170],
                [741, 20705],
                [73621, 90787],
                [89808, 50648],
                [73078, 14921],
                [34270, 31491],
            ],
        ),
        (
            2**31,
            [
                [356637693, 175451223],
                [15923291, 444625661],
                [1580953052, 1949584443],
                [1928557052, 1087631722],
                [1569311246, 320430628],
                [735925464, 676245960],
            ],
        ),
    ],
)
def test_table_rows_are_frozen(num_rows: int, rows: list[list[int]]) -> None:
    salts = torch.tensor([425663481386925318, 7184546423261087193])
    assert table_rows(VALUES.unsqueeze(1), salts, num_rows).tolist() == rows


def test_rows_of_a_plan_with_groups_are_frozen() -> None:
    plan = EmbeddingPlan(num_rows=5000, dim=4, layouts=(OLD,), groups=GROUPS)
    assert plan.rows_of("user", VALUES).tolist() == [
        [5008, 5004],
        [5000, 5010],
        [5036, 5045],
        [5044, 5025],
        [5036, 5007],
        [5017, 5015],
    ]
    assert plan.rows_of("city", VALUES).flatten().tolist() == [5830, 5223, 5603, 5261, 5425, 5714]
    assert plan.rows_of("tags", VALUES).tolist() == [
        [6023, 5326],
        [5353, 5998],
        [5424, 5276],
        [5566, 5572],
        [5674, 5844],
        [5704, 5316],
    ]
    shared = EmbeddingPlan(num_rows=100_003, dim=4, layouts=(OLD,), groups=GROUPS[1:])
    assert shared.rows_of("user", VALUES)[:2].tolist() == [[16607, 8170], [741, 20705]]


LAYOUTS = {
    "one more, first": (FeatureLayout((("new", 3), *OLD.single), OLD.multi, OLD.dense),),
    "one more, last": (FeatureLayout((*OLD.single, ("new", 1)), OLD.multi, OLD.dense),),
    "another order": (FeatureLayout(OLD.single[::-1], OLD.multi, OLD.dense),),
    "one fewer": (FeatureLayout((("city", 1),), OLD.multi, ()),),
    "another side": (FeatureLayout(OLD.single, (), ()), FeatureLayout((), OLD.multi, ())),
    "more lookups": (FeatureLayout((("user", 5), ("city", 1)), (("tags", 3),), ()),),
}


@pytest.mark.parametrize("groups", [(), GROUPS[1:]], ids=["shared", "group"])
@pytest.mark.parametrize("change", LAYOUTS)
def test_a_feature_keeps_its_rows_whatever_happens_to_others(
    change: str, groups: tuple[Group, ...]
) -> None:
    old = EmbeddingPlan(num_rows=700, dim=4, layouts=(OLD,), groups=groups)
    new = EmbeddingPlan(num_rows=700, dim=4, layouts=LAYOUTS[change], groups=groups)
    kept = [name for name, _ in OLD.features if name in dict(new.features)]
    assert len(kept) >= 2
    for name in kept:
        multiplicity = dict(OLD.features)[name]
        rows = new.rows_of(name, VALUES)[:, :multiplicity]
        assert torch.equal(rows, old.rows_of(name, VALUES)), name


def test_a_group_that_is_added_last_leaves_the_others_where_they_are() -> None:
    layout = FeatureLayout((*OLD.single, ("new", 1)), OLD.multi, ())
    late = Group(name="late", num_rows=9, features=("new",))
    old = EmbeddingPlan(num_rows=700, dim=4, layouts=(OLD,), groups=GROUPS)
    new = EmbeddingPlan(num_rows=700, dim=4, layouts=(layout,), groups=(*GROUPS, late))
    for name, _ in OLD.features:
        assert torch.equal(new.rows_of(name, VALUES), old.rows_of(name, VALUES))
    assert int(new.rows_of("new", VALUES).min()) >= old.total_rows


def filled_table(weight: Tensor) -> Table:
    config = TableConfig(num_rows=len(weight), dim=weight.shape[1], backend="torch")
    table = build_table(config, device=CPU, seed=0)
    table.weight.copy_(weight)
    return table


def test_an_old_table_gives_the_old_vectors_under_a_plan_with_one_more_feature() -> None:
    trained = torch.randn(300, 4)
    user, city, new = (torch.randint(-(2**62), 2**62, (6,)) for _ in range(3))
    tags = Jagged(torch.randint(-99, 99, (9,)), torch.tensor([0, 2, 2, 3, 7, 8, 9]))
    age = torch.randn(6, 1)

    before = UnifiedEmbedding(
        EmbeddingPlan(num_rows=300, dim=4, layouts=(OLD,)), filled_table(trained)
    ).side(0, FeatureBlock(torch.stack([user, city], dim=1), (tags,), age))
    grown = FeatureLayout((("user", 2), ("new", 2), ("city", 1)), OLD.multi, OLD.dense)
    after = UnifiedEmbedding(
        EmbeddingPlan(num_rows=300, dim=4, layouts=(grown,)), filled_table(trained)
    ).side(0, FeatureBlock(torch.stack([user, new, city], dim=1), (tags,), age))

    assert torch.equal(torch.cat([after[:, :8], after[:, 16:]], dim=1), before)
    assert torch.equal(after[:, 8:16].view(6, 2, 4), trained[new_rows(new)])


def new_rows(values: Tensor) -> Tensor:
    salts = torch.tensor([salt_of("new", 0), salt_of("new", 1)])
    return table_rows(values.unsqueeze(1), salts, 300)
