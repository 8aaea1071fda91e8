"""What a ranker hangs on: known by hand for small functions, and in planted worlds of parities."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.explanation.attention_maps import AttentionMaps, attention_maps
from recsys.explanation.explanations import (
    Importance,
    agreement,
    contributions,
    exchanged,
    field_names,
    pair_interactions,
    permutation_importance,
    row_interactions,
)
from recsys.models.autoint import AutoInt, AutoIntConfig
from recsys.models.fm import FMConfig
from recsys.models.logistic import LogisticConfig
from recsys.models.rankers import RankerConfig, build_ranker

LAYOUT = FeatureLayout(
    (("user", 1), ("city", 1)),
    (("tags", 1),),
    ("price", "price.null", "plot.0", "plot.1", "plot.null"),
)
NUMBERS = FeatureLayout((), (), ("a", "a.null", "b", "b.null", "c", "c.null"))


def numbers(*columns: Sequence[float] | Tensor) -> FeatureBlock:
    """Rows of the numbers a, b, c; none is null."""
    dense = torch.zeros(len(columns[0]), 6)
    for place, column in enumerate(columns):
        dense[:, 2 * place] = torch.as_tensor(column)
    return FeatureBlock(torch.zeros(len(dense), 0, dtype=torch.int64), (), dense)


def abc(block: FeatureBlock) -> tuple[Tensor, Tensor, Tensor]:
    return block.dense[:, 0], block.dense[:, 2], block.dense[:, 4]


def signs(count: int) -> FeatureBlock:
    return numbers(*(1.0 - 2 * torch.randint(0, 2, (3, count))))


def test_fields_are_those_of_the_models() -> None:
    model = model_of(FMConfig(), LAYOUT)
    assert field_names(LAYOUT) == ("user", "city", "tags", "price", "plot")
    assert field_names(LAYOUT) == model.fields.names


def test_all_columns_of_a_field_change_together_and_no_other() -> None:
    tags = Jagged(torch.tensor([1, 2, 3, 4]), torch.tensor([0, 1, 4]), torch.ones(4))
    rows = FeatureBlock(torch.tensor([[1, 2], [3, 4]]), (tags,), torch.arange(10.0).view(2, 5))
    donors = rows.take(torch.tensor([1, 0]))
    found = exchanged(rows, LAYOUT, ("city", "plot"), donors)
    assert found.single.tolist() == [[1, 4], [3, 2]]
    assert found.multi[0] is tags
    assert found.dense.tolist() == [[0, 1, 7, 8, 9], [5, 6, 2, 3, 4]]
    found = exchanged(rows, LAYOUT, ("tags", "price"), donors)
    assert found.multi[0].values.tolist() == [2, 3, 4, 1]
    assert found.multi[0].offsets.tolist() == [0, 3, 4]
    assert found.dense.tolist() == [[5, 6, 2, 3, 4], [0, 1, 7, 8, 9]]
    with pytest.raises(ValueError, match=r"not in the layout: \['ciy'\]"):
        exchanged(rows, LAYOUT, ("ciy",), donors)
    with pytest.raises(ValueError, match="1 donors for 2 rows"):
        exchanged(rows, LAYOUT, ("city",), donors.take(torch.tensor([0])))


def test_importance_of_a_field_that_says_it_all_and_of_one_that_says_nothing() -> None:
    """Permuted, a perfect field is a coin: the AUC is 1/2 and half the rows are wrong by s."""
    label, s = torch.tensor([0.0, 1.0]).repeat(100), 1.5
    rows = numbers(2 * label - 1, torch.randn(200), torch.randn(200))
    found = permutation_importance(
        lambda block: s * abc(block)[0], NUMBERS, rows, label.numpy(), repeats=60
    )
    assert found.names == ("a", "b", "c")
    assert found.auc == 1
    assert found.log_loss == pytest.approx(math.log1p(math.exp(-s)))
    # The deviation of the AUC of unrelated scores, ties counting half: 0.5 / sqrt(N - 1).
    assert found.auc_fall[0] == pytest.approx(0.5, abs=3 * 0.035 / 60**0.5)
    assert found.auc_deviation[0] == pytest.approx(0.5 / 199**0.5, rel=0.3)
    assert found.log_loss_rise[0] == pytest.approx(s / 2, abs=0.03)
    assert np.abs(found.auc_falls[:, 1:]).max() == 0
    assert np.abs(found.log_loss_rises[:, 1:]).max() == 0
    assert found.ranking[0] == "a"


def test_weights_count_in_importance() -> None:
    """Rows without weight do not: only `b` tells the others apart."""
    label = torch.tensor([0.0, 1.0]).repeat(50)
    a = torch.where(torch.arange(100) < 50, 2 * label - 1, torch.zeros(100))
    b = torch.where(torch.arange(100) < 50, torch.zeros(100), 2 * label - 1)
    rows, weight = numbers(a, b), (torch.arange(100) >= 50).double().numpy()
    found = permutation_importance(
        lambda block: abc(block)[0] / 8 + abc(block)[1], NUMBERS, rows, label.numpy(), weight
    )
    assert found.ranking[0] == "b"
    assert found.auc_fall[1] > 5 * found.auc_fall[0]
    even = permutation_importance(
        lambda block: abc(block)[0] / 8 + abc(block)[1], NUMBERS, rows, label.numpy()
    )
    assert even.auc_fall[1] < 5 * even.auc_fall[0]


def test_labels_all_the_same_leave_log_loss_to_order_the_fields() -> None:
    rows = numbers(torch.randn(50), torch.randn(50))
    found = permutation_importance(
        lambda block: 3 + abc(block)[1], NUMBERS, rows, np.ones(50, np.float32)
    )
    assert np.isnan(found.auc)
    falls = np.zeros((1, 3))
    one = Importance(("a", "b", "c"), math.nan, 1.0, falls * math.nan, np.array([[0, 2.0, 1.0]]))
    assert one.ranking == ("b", "c", "a")
    assert one.auc_deviation.shape == (3,)


def test_contributions_to_a_linear_logit_are_weight_times_distance_from_the_mean() -> None:
    background, row = numbers(torch.randn(40), torch.randn(40)), numbers([2.0], [-1.0])
    found = contributions(
        lambda block: 2 * abc(block)[0] - 3 * abc(block)[1] + 1, NUMBERS, row, background
    )
    a, b, _ = (one.double().numpy() for one in abc(background))
    assert found.logit == pytest.approx(8)
    assert found.probability == pytest.approx(1 / (1 + math.exp(-8)))
    np.testing.assert_allclose(
        found.change, [2 * (2 - a.mean()), -3 * (-1 - b.mean()), 0], atol=1e-5
    )
    np.testing.assert_allclose(
        found.error, [2 * a.std(ddof=1) / 40**0.5, 3 * b.std(ddof=1) / 40**0.5, 0], atol=1e-5
    )
    otherwise = [1 / (1 + np.exp(-(2 * a + 4))), 1 / (1 + np.exp(-(5 - 3 * b)))]
    np.testing.assert_allclose(found.otherwise[:2], [p.mean() for p in otherwise], atol=1e-5)
    doubled = contributions(
        lambda block: abc(block)[0], NUMBERS, row, background, lambda logit: logit / 10
    )
    assert doubled.probability == pytest.approx(0.2)
    assert doubled.otherwise[0] == pytest.approx(a.mean() / 10)
    with pytest.raises(ValueError, match="got 2 and 40"):
        contributions(
            lambda block: abc(block)[0], NUMBERS, background.take(torch.arange(2)), background
        )


@pytest.mark.parametrize(
    ("logit", "expected"),
    [
        (lambda a, b, c: 3 * a * b + 5 * c - 2 * a, {"ab": 3, "ac": 0, "bc": 0}),
        (lambda a, b, c: 2 * a * b * c + 4 * a, {"ab": 2, "ac": 2, "bc": 2}),
        (lambda a, b, c: 3 * a * b + 4 * a * b * c, {"ab": 5, "ac": 4, "bc": 4}),
        (lambda a, b, c: a + torch.exp(b) - c, {"ab": 0, "ac": 0, "bc": 0}),
    ],
)  # fmt: skip
def test_pairs_are_what_the_products_of_signs_add(
    logit: object, expected: dict[str, float]
) -> None:
    """A product of independent signs times w has the deviation |w|; main effects count for none."""
    found = pair_interactions(
        lambda block: logit(*abc(block)), NUMBERS, signs(6000), ("a", "b", "c")  # type: ignore[operator]
    )  # fmt: skip
    assert ["".join(pair) for pair in found.pairs] == ["ab", "ac", "bc"]
    np.testing.assert_allclose(found.logits, list(expected.values()), rtol=0.06, atol=1e-6)
    assert found.strongest(1)[0][1] == found.logits.max()


def test_pairs_of_one_row_are_the_mean_of_what_they_add_together() -> None:
    background, row = signs(30), numbers([1.0], [-1.0], [1.0])
    found = row_interactions(
        lambda block: 3 * abc(block)[0] * abc(block)[1] + abc(block)[2],
        NUMBERS,
        row,
        background,
        ("a", "b", "c"),
    )
    a, b, _ = (one.double().numpy() for one in abc(background))
    np.testing.assert_allclose(found.logits, [3 * ((1 - a) * (-1 - b)).mean(), 0, 0], atol=1e-6)
    assert found.strongest(1)[0][0] == ("a", "b")


def test_agreement_by_hand() -> None:
    found = agreement(np.array([1.0, 2, 3]), np.array([10.0, 30, 20]))
    assert found.correlation == pytest.approx(1 - 6 * 2 / (3 * 8))
    assert (found.chance, found.count) == (pytest.approx(2**-0.5), 3)
    assert math.isnan(agreement(np.ones(3), np.arange(3.0)).correlation)
    assert math.isnan(agreement(np.ones(1), np.ones(1)).correlation)


FIELDS = tuple("abcdef")
SIX = FeatureLayout(tuple((name, 1) for name in FIELDS), (), ())
AUTOINT = AutoIntConfig(layers=1, head_dim=8, field_dim=8)
TEST_ROWS = 1500


def model_of(config: RankerConfig, layout: FeatureLayout, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    table = TableConfig(num_rows=512, dim=8, backend="torch", learning_rate=0.1)
    plan = EmbeddingPlan.of(table, (layout,))
    embedding = UnifiedEmbedding(plan, build_table(table, device=torch.device("cpu"), seed=seed))
    return build_ranker(config, embedding)


def parity(order: int, *, noise: bool, rows: int, seed: int) -> tuple[FeatureBlock, Tensor]:
    """Six fields of four values; the label hangs on the product of the signs of the first ones.

    Of two and, by itself, on a third; or of three and on nothing else. The noise twin has the
    labels of other rows.
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 4, (rows, 6), generator=generator)
    sign = 1 - 2.0 * (values % 2)
    logit = 2.5 * sign[:, :order].prod(1) + (1.5 * sign[:, 2] if order == 2 else 0)
    label = (torch.rand(rows, generator=generator) < torch.sigmoid(logit)).float()
    if noise:
        label = label[torch.randperm(rows, generator=generator)]
    return FeatureBlock(values + 1000 * torch.arange(6), (), torch.zeros(rows, 0)), label


@cache
def learnt(
    config: RankerConfig, order: int, noise: bool
) -> tuple[nn.Module, FeatureBlock, Importance]:
    """Train on rows of a world; return the model, other rows, and what it hangs on there."""
    features, label = parity(order, noise=noise, rows=3000, seed=0)
    model = model_of(config, SIX)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        rows = torch.randint(0, 3000, (256,))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model(features.take(rows)), label[rows]).backward()
        optimizer.step()
    test, truth = parity(order, noise=noise, rows=TEST_ROWS, seed=1)
    with torch.no_grad():
        found = permutation_importance(model.eval(), SIX, test, truth.numpy(), repeats=3)
    return model, test, found


@pytest.mark.parametrize("order", [2, 3])
def test_the_fields_of_a_planted_parity_are_found(order: int) -> None:
    _, _, found = learnt(AUTOINT, order, False)
    assert found.auc > 0.87
    assert set(found.ranking[:order]) == set(FIELDS[:order])
    assert set(found.ranking[:3]) == set("abc")
    assert found.auc_fall[:3].min() > 0.04
    assert np.abs(found.auc_fall[3:]).max() < 0.01


@pytest.mark.parametrize("order", [2, 3])
def test_the_pairs_of_a_planted_parity_are_found(order: int) -> None:
    model, test, _ = learnt(AUTOINT, order, False)
    planted = list(combinations(FIELDS[:order], 2))
    with torch.no_grad():
        pairs = pair_interactions(model, SIX, test, FIELDS)
    assert {pair for pair, _ in pairs.strongest(len(planted))} == set(planted)
    strengths = dict(zip(pairs.pairs, pairs.logits, strict=True))
    assert min(strengths[pair] for pair in planted) > 1.8
    assert max(value for pair, value in strengths.items() if pair not in planted) < 0.7


def test_attention_is_strongest_between_the_two_fields_of_a_parity() -> None:
    """So it is for every seed tried; of a parity of three it is so for most seeds, not for all.

    How much attention a field receives in all does not tell its importance here.
    """
    model, test, _ = learnt(AUTOINT, 2, False)
    maps = maps_of(model, test)
    looks = {pair: maps.between(*pair) for pair in combinations(FIELDS, 2)}
    assert max(looks, key=lambda pair: looks[pair]) == ("a", "b")
    assert looks["a", "b"] > 1.2 * sorted(looks.values())[-2]


def maps_of(model: nn.Module, rows: FeatureBlock) -> AttentionMaps:
    assert isinstance(model, AutoInt)
    return attention_maps(model.attention, model.fields.names, rows)


def test_a_linear_model_finds_no_parity_and_has_no_pairs() -> None:
    model, test, found = learnt(LogisticConfig(), 3, False)
    assert abs(found.auc - 0.5) < 0.05
    assert np.abs(found.auc_fall).max() < 0.05
    with torch.no_grad():
        assert pair_interactions(model, SIX, test, FIELDS).logits.max() < 1e-5
    beside_a_main_effect = learnt(LogisticConfig(), 2, False)[2]
    assert beside_a_main_effect.ranking[0] == "c"
    assert beside_a_main_effect.auc_fall[:2].max() < 0.05


@pytest.mark.parametrize("config", [AUTOINT, LogisticConfig()], ids=lambda config: config.kind)
def test_in_the_noise_twin_nobody_finds_anything(config: RankerConfig) -> None:
    """The AUC of unrelated scores deviates by about 1 / sqrt(3 N), 0.015 here."""
    _, _, found = learnt(config, 3, True)
    assert abs(found.auc - 0.5) < 3 * (3 * TEST_ROWS) ** -0.5
    assert np.abs(found.auc_fall).max() < 4 * (3 * TEST_ROWS) ** -0.5
