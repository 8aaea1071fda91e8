"""UnifiedEmbedding against a loop over features; its two kernels against each other and Adagrad."""

from dataclasses import replace

import pytest
import torch

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.fbgemm_table import FbgemmTable
from recsys.embeddings.hashing import salt_of, table_rows
from recsys.embeddings.plan import EmbeddingPlan, Group
from recsys.embeddings.table import Table, TableConfig
from recsys.embeddings.torch_table import TorchTable
from recsys.embeddings.unified import UnifiedEmbedding, activation_in
from recsys.layers.pooling import ActivationPooling, attended

CPU = torch.device("cpu")
ITEMS = FeatureLayout((("id", 2), ("brand", 1)), (("genres", 3), ("words", 1)), ("price",))
QUERY = FeatureLayout((("user", 1),), (), ())


def plan(num_rows: int = 50, dim: int = 8) -> EmbeddingPlan:
    return EmbeddingPlan(num_rows=num_rows, dim=dim, layouts=(ITEMS, QUERY))


def item_block(rows: int) -> FeatureBlock:
    def jagged() -> Jagged:
        lengths = torch.randint(0, 4, (rows,))
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        return Jagged(torch.randint(-(2**62), 2**62, (int(offsets[-1]),)), offsets)

    single = torch.randint(-(2**62), 2**62, (rows, 2))
    return FeatureBlock(single, (jagged(), jagged()), torch.randn(rows, 1))


def query_block(rows: int) -> FeatureBlock:
    return FeatureBlock(torch.randint(-99, 99, (rows, 1)), (), torch.zeros(rows, 0))


def oracle(weight: torch.Tensor, layout: FeatureLayout, block: FeatureBlock) -> torch.Tensor:
    """One row, one feature, one lookup at a time."""
    rows = []
    for n in range(len(block)):
        parts = []
        for column, (name, multiplicity) in enumerate(layout.single):
            for lookup in range(multiplicity):
                salt = torch.tensor(salt_of(name, lookup))
                parts.append(weight[table_rows(block.single[n, column], salt, len(weight))])
        for jagged, (name, multiplicity) in zip(block.multi, layout.multi, strict=True):
            values = jagged.values[jagged.offsets[n] : jagged.offsets[n + 1]]
            for lookup in range(multiplicity):
                salt = torch.tensor(salt_of(name, lookup))
                found = weight[table_rows(values, salt, len(weight))]
                parts.append(found.mean(0) if len(values) else torch.zeros(weight.shape[1]))
        rows.append(torch.cat([*parts, block.dense[n]]))
    return torch.stack(rows)


@pytest.mark.parametrize("backend", ["torch", "fbgemm"])
def test_embedding_equals_a_loop_over_features(backend: str) -> None:
    table = build_table(
        TableConfig.model_validate({"num_rows": 50, "dim": 8, "backend": backend}),
        device=CPU,
        seed=3,
    )
    embedding = UnifiedEmbedding(plan(), table)
    items, query = item_block(17), query_block(5)
    found = embedding([items, query])
    torch.testing.assert_close(found[0], oracle(table.weight, ITEMS, items))
    torch.testing.assert_close(found[1], oracle(table.weight, QUERY, query))
    torch.testing.assert_close(embedding.side(0, items), found[0])


def adagrad_oracle(
    weight: torch.Tensor, config: TableConfig, steps: list[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """Dense gradient by autograd, then the formula row by row."""
    weight, state = weight.clone(), torch.zeros(len(weight))
    for rows, target in steps:
        leaf = weight.clone().requires_grad_()
        (leaf[rows] * target).sum().backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        for row in rows.unique():
            grad = leaf.grad[row]
            state[row] += (grad**2).mean()
            weight[row] -= config.learning_rate * grad / (state[row].sqrt() + config.eps)
    return weight


@pytest.mark.parametrize("kind", [TorchTable, FbgemmTable])
def test_fused_update_is_row_wise_adagrad(kind: type) -> None:
    config = TableConfig(num_rows=30, dim=4)
    table: Table = kind(config, CPU)
    start = torch.rand(30, 4)
    table.weight.copy_(start)
    steps = [(torch.randint(0, 30, (40,)), torch.randn(40, 4)) for _ in range(4)]
    for rows, target in steps:
        pooled = table(rows, torch.arange(41))
        (pooled * target).sum().backward()
    torch.testing.assert_close(table.weight, adagrad_oracle(start, config, steps))


@pytest.mark.parametrize("kind", [TorchTable, FbgemmTable])
def test_weights_of_values_scale_what_is_read_and_learnt_and_are_themselves_given(
    kind: type,
) -> None:
    config = TableConfig(num_rows=30, dim=4)
    table: Table = kind(config, CPU)
    start = torch.rand(30, 4)
    table.weight.copy_(start)
    rows, weights = torch.randint(0, 30, (40,)), torch.rand(40).requires_grad_()
    offsets, target = torch.tensor([0, 3, 3, 20, 40]), torch.randn(4, 4)
    scale = weights.detach().unsqueeze(1)

    pooled = table(rows, offsets, weights)
    bags = [(start[rows] * scale)[a:b].sum(0) for a, b in offsets.unfold(0, 2, 1).tolist()]
    torch.testing.assert_close(pooled.detach(), torch.stack(bags))

    (pooled * target).sum().backward()  # type: ignore[no-untyped-call]
    by_read = scale * target.repeat_interleave(offsets.diff(), dim=0)
    torch.testing.assert_close(table.weight, adagrad_oracle(start, config, [(rows, by_read)]))
    assert weights.grad is None or not weights.grad.any()  # what it would cost is not paid


@pytest.mark.parametrize("optimizer", ["row_wise_adagrad", "adagrad", "sgd"])
def test_both_kernels_train_to_the_same_numbers(optimizer: str) -> None:
    tables = []
    for backend in ("torch", "fbgemm"):
        torch.manual_seed(1)
        config = {"num_rows": 50, "dim": 8, "backend": backend, "optimizer": optimizer}
        table = build_table(TableConfig.model_validate(config), device=CPU, seed=3)
        embedding = UnifiedEmbedding(plan(), table)
        for _ in range(5):
            items, query = embedding([item_block(17), query_block(5)])
            (items.square().sum() + (query**3).sum()).backward()
        tables.append(table)
    torch.testing.assert_close(tables[0].weight, tables[1].weight, atol=3e-7, rtol=0)
    assert tables[0].state.keys() == tables[1].state.keys()
    for name, state in tables[0].state.items():
        torch.testing.assert_close(state, tables[1].state[name], atol=3e-7, rtol=1e-6)


def test_initial_weights_are_seeded_and_uniform_around_zero() -> None:
    config = TableConfig(num_rows=4000, dim=4, init_scale=0.5, backend="torch")
    first, again, other = (build_table(config, device=CPU, seed=s).weight for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.min()) == pytest.approx(-0.5, abs=0.01)
    assert float(first.max()) == pytest.approx(0.5, abs=0.01)
    assert float(first.mean()) == pytest.approx(0, abs=0.01)


def test_a_step_touches_only_rows_that_were_read() -> None:
    table = build_table(TableConfig(num_rows=40, dim=4, backend="torch"), device=CPU, seed=0)
    before = table.weight.clone()
    rows = torch.tensor([3, 3, 7])
    table(rows, torch.tensor([0, 2, 3])).sum().backward()
    changed = (table.weight != before).any(1).nonzero().flatten().tolist()
    assert changed == [3, 7]


def test_a_feature_keeps_its_rows_when_others_come_and_go() -> None:
    table = build_table(TableConfig(num_rows=50, dim=8, backend="torch"), device=CPU, seed=3)
    values = torch.arange(6).unsqueeze(1)
    empty = torch.zeros(6, 0)
    alone = EmbeddingPlan(num_rows=50, dim=8, layouts=(FeatureLayout((("b", 2),), (), ()),))
    joined = FeatureLayout((("a", 1), ("b", 2), ("c", 1)), (), ())
    both = EmbeddingPlan(num_rows=50, dim=8, layouts=(joined,))
    one = UnifiedEmbedding(alone, table).side(0, FeatureBlock(values, (), empty))
    many = UnifiedEmbedding(both, table).side(0, FeatureBlock(values.repeat(1, 3), (), empty))
    torch.testing.assert_close(many[:, 8:24], one)
    assert not torch.equal(many[:, :8], many[:, 24:])  # same raw value, other feature, other row


def test_two_features_of_the_same_raw_values_learn_different_vectors() -> None:
    """Their values are equal, what is asked of them is opposite, and they share every row."""
    config = TableConfig(num_rows=400, dim=4, backend="torch", learning_rate=0.05)
    both = FeatureLayout((("bought", 2), ("returned", 2)), (), ())
    table = build_table(config, device=CPU, seed=0)
    embedding = UnifiedEmbedding(EmbeddingPlan.of(config, (both,)), table)
    values = torch.arange(30).unsqueeze(1).repeat(1, 2)
    features = FeatureBlock(values, (), torch.zeros(30, 0))
    target = torch.cat([torch.ones(30, 8), -torch.ones(30, 8)], dim=1)
    for _ in range(100):
        (embedding.side(0, features) - target).square().sum().backward()
    bought, returned = embedding.side(0, features).detach().split(8, dim=1)
    assert float(bought.mean()) > 0.6
    assert float(returned.mean()) < -0.6


# Features that read the rows of another, and attention of the one over the other

SHOWN = FeatureLayout(
    (("user", 1), ("id", 2)),
    (("genres", 1), ("taken", 2), ("liked", 1), ("seen", 2)),
    ("price",),
    ("mean", "attention", "attention", "mean"),
    (("taken", "id"), ("liked", "genres"), ("seen", "id")),
)


def shown_plan(num_rows: int = 60, apart: bool = False) -> EmbeddingPlan:
    groups = (Group(name="items", num_rows=25, features=("id",)),) if apart else ()
    return EmbeddingPlan(num_rows=num_rows, dim=4, layouts=(SHOWN,), groups=groups)


def shown_block(rows: int = 9) -> FeatureBlock:
    def jagged(most: int, *, weighted: bool = False) -> Jagged:
        lengths = torch.randint(0, most, (rows,))
        lengths[:3] = torch.tensor([0, 1, most])
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        values = torch.randint(0, 12, (int(offsets[-1]),))
        return Jagged(values, offsets, torch.rand(len(values)) if weighted else None)

    lists = (jagged(3), jagged(6), jagged(5, weighted=True), jagged(4))
    return FeatureBlock(torch.randint(0, 12, (rows, 2)), lists, torch.randn(rows, 1))


def attention_oracle(
    weight: torch.Tensor, plan: EmbeddingPlan, block: FeatureBlock
) -> torch.Tensor:
    """One row, one value, one lookup at a time, the softmax written out."""

    def vector(source: str, value: torch.Tensor) -> torch.Tensor:
        first, count = plan.range_of(source)
        salts = [salt_of(source, lookup) for lookup in range(2 if source == "id" else 1)]
        rows = [int(table_rows(value, torch.tensor(salt), count)) + first for salt in salts]
        return torch.cat([weight[row] for row in rows])

    def mean(source: str, jagged: Jagged, n: int) -> torch.Tensor:
        values = jagged.values[jagged.offsets[n] : jagged.offsets[n + 1]]
        empty = torch.zeros(8 if source == "id" else 4, dtype=weight.dtype)
        return sum((vector(source, v) for v in values), empty) / max(len(values), 1)

    def attentive(source: str, query: torch.Tensor, jagged: Jagged, n: int) -> torch.Tensor:
        here = slice(int(jagged.offsets[n]), int(jagged.offsets[n + 1]))
        vectors = [vector(source, value) for value in jagged.values[here]]
        shares = [torch.exp(query @ one / len(query) ** 0.5) for one in vectors]
        if jagged.weights is not None:
            shares = [s * w for s, w in zip(shares, jagged.weights[here], strict=True)]
        empty = torch.zeros_like(query)
        return sum((s * v / sum(shares) for s, v in zip(shares, vectors, strict=True)), empty)

    rows = []
    for n in range(len(block)):
        item = vector("id", block.single[n, 1])
        genres, taken, liked, seen = block.multi
        parts = [vector("user", block.single[n, 0]), item, mean("genres", genres, n)]
        parts.append(attentive("id", item, taken, n))
        parts.append(attentive("genres", parts[2], liked, n))
        parts += [mean("id", seen, n), block.dense[n].to(weight.dtype)]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@pytest.mark.parametrize("backend", ["torch", "fbgemm"])
@pytest.mark.parametrize("apart", [False, True])
def test_attention_over_a_history_equals_a_softmax_written_out(backend: str, apart: bool) -> None:
    plan, block = shown_plan(apart=apart), shown_block()
    config = TableConfig.model_validate(
        {"num_rows": plan.total_rows, "dim": 4, "backend": backend, "init_scale": 2.0}
    )
    table = build_table(config, device=CPU, seed=3)
    embedding = UnifiedEmbedding(plan, table)
    torch.testing.assert_close(
        embedding.side(0, block), attention_oracle(table.weight, plan, block), atol=1e-5, rtol=1e-5
    )


def test_attention_trains_candidate_and_history_as_autograd_would() -> None:
    """Two steps of SGD through the fused table against autograd on a dense one."""
    plan, config = shown_plan(), TableConfig(num_rows=60, dim=4, optimizer="sgd", backend="torch")
    table = build_table(config.model_copy(update={"init_scale": 1.0}), device=CPU, seed=3)
    embedding, dense = UnifiedEmbedding(plan, table), table.weight.double().clone()
    for _ in range(2):
        block = shown_block()
        target = torch.randn(len(block), plan.width(0))
        (embedding.side(0, block) * target).sum().backward()
        leaf = dense.clone().requires_grad_()
        (attention_oracle(leaf, plan, block) * target).sum().backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        dense -= config.learning_rate * leaf.grad
    torch.testing.assert_close(table.weight.double(), dense, atol=1e-5, rtol=1e-5)


def test_gradients_of_attention_match_finite_differences() -> None:
    history = Jagged(torch.zeros(7, dtype=torch.int64), torch.tensor([0, 3, 3, 4, 7]))
    weighted = Jagged(history.values, history.offsets, torch.rand(7, dtype=torch.float64))
    query, vectors = (torch.randn(n, 3, dtype=torch.double, requires_grad=True) for n in (4, 7))
    for one in (history, weighted):
        assert torch.autograd.gradcheck(lambda q, v, h=one: attended(q, v, h), (query, vectors))


def test_attention_is_finite_for_large_scores_and_for_weights_of_zero() -> None:
    history = Jagged(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 2, 3]), torch.ones(3))
    vectors = torch.tensor([[900.0], [-900.0], [5.0]])
    found = attended(torch.tensor([[900.0], [1.0]]), vectors, history)
    assert found.tolist() == [[900.0], [5.0]]
    nothing = Jagged(history.values, history.offsets, torch.zeros(3))
    assert attended(torch.ones(2, 1), vectors, nothing).tolist() == [[0.0], [0.0]]


def test_activation_is_the_sum_by_what_the_unit_says_of_each_pair() -> None:
    layout = replace(SHOWN, pooling=("mean", "activation", "activation", "mean"))
    plan = EmbeddingPlan(num_rows=60, dim=4, layouts=(layout,))
    table = build_table(TableConfig(num_rows=60, dim=4, backend="torch"), device=CPU, seed=3)
    embedding, block = UnifiedEmbedding(plan, table), shown_block()
    parts = embedding.side(0, block).split([4, 8, 4, 8, 4, 8, 1], dim=1)
    even = UnifiedEmbedding(replace(plan, layouts=(replace(SHOWN, pooling=()),)), table)

    def normed(v: torch.Tensor) -> torch.Tensor:
        return (v - v.mean()) / v.std(correction=0)

    for place, query_BE, name in ((1, parts[1], "taken"), (2, parts[2], "liked")):
        unit, jagged = activation_in(embedding.activations, name).unit, block.multi[place]  # type: ignore
        rows = plan.rows_of(name, jagged.values)
        weights = torch.ones(len(rows)) if jagged.weights is None else jagged.weights
        for n in range(len(block)):
            total = torch.zeros(query_BE.shape[1])
            for t in range(int(jagged.offsets[n]), int(jagged.offsets[n + 1])):
                v = table.weight[rows[t]].flatten()
                x, y = normed(query_BE[n]), normed(v)
                inner = unit[0].weight @ torch.cat([x, y, x - y, x * y]) + unit[0].bias
                hidden = torch.where(inner > 0, inner, unit[1].weight * inner)
                total += weights[t] * (unit[2].weight @ hidden + unit[2].bias) * v
            if query_BE[n].abs().sum() > 0:  # a row without genres asks with zeros
                torch.testing.assert_close(parts[2 + place][n], total, atol=1e-5, rtol=1e-4)
    assert not list(even.activations.parameters())


def test_gradients_of_activation_match_finite_differences() -> None:
    history = Jagged(torch.zeros(7, dtype=torch.int64), torch.tensor([0, 3, 3, 4, 7]))
    weighted = Jagged(history.values, history.offsets, torch.rand(7, dtype=torch.float64))
    query, vectors = (torch.randn(n, 3, dtype=torch.double, requires_grad=True) for n in (4, 7))
    pooling = ActivationPooling(3, hidden=5).double()
    for one in (history, weighted):
        assert torch.autograd.gradcheck(lambda q, v, h=one: pooling(q, v, h), (query, vectors))
    assert pooling(query, vectors, history)[1].tolist() == [0, 0, 0]


def test_activation_sees_the_direction_of_vectors_alone() -> None:
    pooling = ActivationPooling(6)
    query, vectors = torch.randn(5, 6), torch.randn(5, 6)
    shares = pooling.shares(query, vectors)
    torch.testing.assert_close(
        pooling.shares(query * 0.1, vectors * 0.3), shares, atol=1e-5, rtol=0
    )


def test_a_history_of_the_item_itself_reads_its_vector_whatever_the_pooling() -> None:
    table = build_table(TableConfig(num_rows=60, dim=4, backend="torch"), device=CPU, seed=3)
    block = shown_block(5)
    itself = Jagged(block.single[:, 1], torch.arange(6))
    lists = (block.multi[0], itself, block.multi[0], itself)
    embedded = UnifiedEmbedding(shown_plan(), table).side(
        0, FeatureBlock(block.single, lists, block.dense)
    )
    _, item, _, taken, _, seen, _ = embedded.split([4, 8, 4, 8, 4, 8, 1], dim=1)
    assert torch.equal(taken, item)
    assert torch.equal(seen, item)


def test_features_that_cannot_share_rows_are_named() -> None:
    def refused(layout: FeatureLayout, group: str = "id") -> None:
        groups = (Group(name="apart", num_rows=2, features=(group,)),)
        EmbeddingPlan(num_rows=9, dim=2, layouts=(layout,), groups=groups)

    single = (("id", 2),)
    with pytest.raises(ValueError, match="'taken' reads 1 rows a value, its source 'id' 2"):
        refused(FeatureLayout(single, (("taken", 1),), (), ("mean",), (("taken", "id"),)))
    with pytest.raises(ValueError, match="'taken' cannot read the rows of 'gone'"):
        refused(FeatureLayout(single, (("taken", 2),), (), ("mean",), (("taken", "gone"),)))
    with pytest.raises(ValueError, match="'taken' is pooled by attention, but reads no other"):
        refused(FeatureLayout(single, (("taken", 2),), (), ("attention",)))
    with pytest.raises(ValueError, match="a group holds 'taken', which reads the rows of 'id'"):
        refused(SHOWN, group="taken")
    assert (
        "  taken: 2 lookup(s), width 8, rows 60..84, the rows of id"
        in shown_plan(apart=True).lines()
    )


def test_wrong_inputs_are_named() -> None:
    table = build_table(TableConfig(num_rows=50, dim=8, backend="torch"), device=CPU, seed=3)
    embedding = UnifiedEmbedding(plan(), table)
    with pytest.raises(ValueError, match=r"side 1 wants .* \(1, 0, 0\), the block has \(2, 2, 1\)"):
        embedding([item_block(3), item_block(3)])
    with pytest.raises(ValueError, match="2 sides, got 1"):
        embedding([item_block(3)])
    with pytest.raises(ValueError, match=r"a 60 x 8 table, got \(50, 8\)"):
        UnifiedEmbedding(plan(num_rows=60), table)
    with pytest.raises(ValueError, match="twice: user"):
        EmbeddingPlan(num_rows=9, dim=2, layouts=(QUERY, QUERY))
    words = FeatureLayout((), (("user", 1),), ())
    with pytest.raises(ValueError, match="twice: user"):
        EmbeddingPlan(num_rows=9, dim=2, layouts=(QUERY, words))
