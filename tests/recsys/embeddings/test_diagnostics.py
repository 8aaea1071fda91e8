"""Diagnostics against counts by hand, against chance, and on weights made to be extremes."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.diagnostics import Diagnosis, FeatureDiagnosis, FeatureValues, diagnose
from recsys.embeddings.memory import (
    check_disk,
    check_memory,
    costs,
    fits_one_process,
    free_memory_bytes,
)
from recsys.embeddings.plan import EmbeddingPlan, Group
from recsys.embeddings.table import GroupConfig, TableConfig
from recsys.metrics.representation import rankme


def plan_of(
    num_rows: int, dim: int, groups: tuple[Group, ...] = (), **features: int
) -> EmbeddingPlan:
    layout = FeatureLayout(tuple(features.items()), (), ())
    return EmbeddingPlan(num_rows=num_rows, dim=dim, layouts=(layout,), groups=groups)


def values_of(name: str, count: int, times: Tensor | None = None) -> FeatureValues:
    values = torch.randint(-(2**62), 2**62, (count,)).unique()
    return FeatureValues(
        name, values, torch.ones(count, dtype=torch.int64) if times is None else times
    )


def named(found: Diagnosis) -> dict[str, FeatureDiagnosis]:
    return {one.name: one for one in found.features}


def test_shares_and_loads_are_those_that_a_loop_counts() -> None:
    plan = plan_of(17, 4, color=2, size=1, empty=1)
    features = [
        values_of("color", 9, torch.arange(1, 10)),
        values_of("size", 4, torch.tensor([1, 10, 100, 1000])),
        FeatureValues(
            "empty", torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        ),
        values_of("elsewhere", 3),
    ]
    weight = torch.randn(17, 4)
    found = diagnose(plan, features, weight)
    assert set(named(found)) == {"color", "size"}
    rows = {one.name: plan.rows_of(one.name, one.values).tolist() for one in features[:2]}
    read = {name: {row for value in rows[name] for row in value} for name in rows}
    assert found.rows_used == pytest.approx(len(read["color"] | read["size"]) / 17)
    assert found.load_factor == (9 * 2 + 4 * 1) / 17
    for one, other in (("color", "size"), ("size", "color")):
        got, own = named(found)[one], rows[one]
        columns = [Counter(column) for column in zip(*own, strict=True)]
        meets = [[columns[m][row] > 1 for m, row in enumerate(value)] for value in own]
        assert got.intra == pytest.approx(sum(map(sum, meets)) / (len(own) * len(columns)))
        same = Counter(map(tuple, own))
        assert got.indistinguishable == sum(same[tuple(value)] > 1 for value in own) / len(own)
        shared = [sum(row in read[other] for row in value) / len(value) for value in own]
        assert got.inter == pytest.approx(sum(shared) / len(own))
        counts = dict(zip(("color", "size"), features, strict=False))[one].counts.tolist()
        weighted = sum(s * c for s, c in zip(shared, counts, strict=True)) / sum(counts)
        assert got.inter_traffic == pytest.approx(weighted)
        vectors = weight[torch.tensor(own)].flatten(1)
        assert got.effective_rank == pytest.approx(rankme(vectors))
        assert (got.cardinality, got.width) == (len(own), len(columns) * 4)
    assert 0 < named(found)["color"].inter < 1  # else the loop above would have nothing to count


def test_norms_are_of_whole_vectors_by_frequency() -> None:
    plan = plan_of(1, 2, a=1, b=4)
    counts = {"a": torch.tensor([1, 9, 1000, 5000]), "b": torch.tensor([10, 99, 999])}
    features = [values_of(name, len(times), times) for name, times in counts.items()]
    found = diagnose(plan, features, torch.tensor([[3.0, 4.0]]))
    # One row of norm 5; four lookups of it are a vector of norm 5 * sqrt(4).
    got = [(b.low, b.high, b.num_values, b.norm, b.lookup_norm) for b in found.norms]
    assert got[:2] == [(1, 1, 1, 5, 5), (2, 9, 1, 5, 5)]
    assert got[2:4] == [(10, 99, 2, 10, 5), (100, 999, 1, 10, 5)]
    assert got[4] == (1000, None, 2, 5, 5)
    # All in one row: everything collides, and nothing can be told apart.
    for one in found.features:
        assert (one.intra, one.expected_intra, one.indistinguishable, one.inter) == (1, 1, 1, 1)
        assert (one.expected_indistinguishable, one.expected_inter) == (1, 1)
        assert one.effective_rank == pytest.approx(1)
        assert one.nearest == ""  # nothing varies, so there is no component


def test_chance_is_what_random_hashes_do() -> None:
    plan = plan_of(5000, 4, a=2, b=1, c=3)
    sizes = {"a": 4000, "b": 3000, "c": 500}
    found = diagnose(plan, [values_of(*pair) for pair in sizes.items()], torch.randn(5000, 4))
    for one in found.features:
        # Four standard errors of a share; the lookups of a value are nearly independent.
        error = 4 * math.sqrt(0.25 / (one.cardinality * one.multiplicity))
        assert one.intra == pytest.approx(one.expected_intra, abs=error)
        assert one.inter == pytest.approx(one.expected_inter, abs=error)
        assert one.inter_traffic == pytest.approx(one.inter)
    assert named(found)["a"].expected_inter == pytest.approx(1 - (1 - 1 / 5000) ** 4500)
    assert named(found)["a"].expected_intra == pytest.approx(1 - (1 - 1 / 5000) ** 3999)


def test_chance_of_being_indistinguishable_shrinks_with_each_lookup() -> None:
    plan = plan_of(40, 2, once=1, twice=2)
    found = named(
        diagnose(plan, [values_of(n, 400) for n in ("once", "twice")], torch.randn(40, 2))
    )
    assert found["once"].expected_indistinguishable == found["once"].expected_intra
    expected = 1 - (1 - 1 / 1600) ** 399
    assert found["twice"].expected_indistinguishable == pytest.approx(expected)
    assert found["twice"].indistinguishable == pytest.approx(expected, abs=0.1)
    assert found["once"].indistinguishable == 1


def test_groups_meet_nobody_outside() -> None:
    apart = Group(name="g", num_rows=8, features=("b", "c"))
    plan = plan_of(8, 2, (apart,), a=1, b=1, c=1)
    found = named(diagnose(plan, [values_of(n, 50) for n in "abc"], torch.randn(16, 2)))
    assert (found["a"].inter, found["a"].expected_inter, found["a"].nearest) == (0, 0, "")
    assert found["b"].inter == 1
    assert found["b"].expected_inter == pytest.approx(1 - (7 / 8) ** 50)
    assert (found["b"].nearest, found["c"].nearest) == ("c", "b")


def constructed(directions: dict[str, list[int]], times: dict[str, int]) -> Diagnosis:
    """Two features whose rows vary along some axes alone; of a shared row, the frequent's."""
    plan = plan_of(4000, 8, **dict.fromkeys(directions, 2))
    weight, features = torch.zeros(4000, 8), []
    for name in sorted(directions, key=times.__getitem__):  # the more frequent writes last
        one = values_of(name, 300)
        features.append(FeatureValues(name, one.values, torch.full((300,), times[name])))
        rows = plan.rows_of(name, one.values).flatten()
        axes = torch.zeros(8)
        axes[directions[name]] = 1
        weight[rows] = torch.randn(len(rows), 8) * axes + 5  # a common mean is no direction
    return diagnose(plan, features, weight)


def test_overlap_of_orthogonal_and_of_the_same_subspaces() -> None:
    times = {"a": 100, "b": 1}
    apart = constructed({"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}, times)
    same = constructed({"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}, times)
    contained = constructed({"a": [0, 1, 2, 3], "b": [0, 1]}, times)
    for found, expected in ((apart, 0), (same, 1), (contained, 1)):
        for one in found.features:
            assert one.overlap == pytest.approx(expected, abs=0.02)
            assert one.random_overlap == 4 / 8
        assert found.overlap == pytest.approx(expected, abs=0.02)
    assert {one.nearest for one in apart.features} == {"a", "b"}
    ranks = {one.name: one.effective_rank for one in contained.features}
    assert ranks["a"] > ranks["b"]


def test_overlap_of_random_rows_is_what_chance_says() -> None:
    plan = plan_of(100_000, 16, **{name: 1 for name in "abcdef"})
    # Seven values span at most six directions, and nobody shares a row.
    found = [
        diagnose(plan, [values_of(n, 7) for n in "abcdef"], torch.randn(100_000, 16))
        for _ in range(20)
    ]
    overlap = sum(one.overlap for one in found) / 20
    assert overlap == pytest.approx(sum(one.random_overlap for one in found) / 20, abs=0.02)
    assert 0.2 < overlap < 0.4


def test_metrics_have_names_that_mlflow_takes() -> None:
    plan = plan_of(64, 2, **{"prix (€)": 1, "user_id": 2})
    found = diagnose(plan, [values_of(n, 9) for n in ("prix (€)", "user_id")], torch.randn(64, 2))
    metrics = found.metrics()
    assert metrics["embedding/rows_used"] == found.rows_used
    assert metrics["embedding/load_factor"] == 27 / 64
    assert metrics["embedding/effective_rank/user_id"] == named(found)["user_id"].effective_rank
    assert metrics["embedding/inter_collisions/prix ___"] == named(found)["prix (€)"].inter
    assert metrics["embedding/norm_from_1"] == found.norms[0].norm
    assert "embedding/norm_from_2" not in metrics  # nothing was seen so often
    assert all(math.isfinite(value) for value in metrics.values())


def test_nothing_to_diagnose_is_no_error() -> None:
    found = diagnose(plan_of(8, 2, a=1), [], torch.randn(8, 2))
    assert (found.features, found.rows_used, found.load_factor) == ((), 0, 0)
    assert set(found.metrics()) == {"embedding/rows_used", "embedding/load_factor"}


def test_costs_by_hand() -> None:
    config = TableConfig(num_rows=100, dim=4)
    plan = plan_of(100, 4, a=2, b=1)
    found = costs(plan, config, batch_size=10)
    # 400 floats and an accumulator a row; three lookups of four floats.
    assert (found.table_bytes, found.state_bytes, found.read_bytes) == (1600, 400, 48)
    assert found.flops == 12 * (1 + 4)
    assert found.batch_bytes == 10 * 48 * 2
    assert "48 bytes" in found.line


MIB = 2**20
# 16 floats and an accumulator: 68 bytes a row.
BIG = TableConfig(num_rows=1_000_000, dim=16)


def test_a_table_that_does_not_fit_is_refused_with_what_would() -> None:
    free = 50 * MIB
    most = 40 * MIB // 68
    with pytest.raises(
        ConfigError, match=r"needs 65 MiB.* are 40 MiB: .*num_rows to 616,809"
    ) as no:
        check_memory(BIG, free)
    assert f"{most:,}" in str(no.value)
    check_memory(BIG.model_copy(update={"num_rows": most}), free)
    with pytest.raises(ConfigError):
        check_memory(BIG.model_copy(update={"num_rows": most + 1}), free)


def test_copies_of_the_weights_count() -> None:
    most = 40 * MIB // (68 + 64)
    check_memory(BIG.model_copy(update={"num_rows": most}), 50 * MIB, copies=1)
    with pytest.raises(ConfigError, match=rf"state, their average\).*num_rows to {most:,} or"):
        check_memory(BIG.model_copy(update={"num_rows": most + 1}), 50 * MIB, copies=1)


def test_a_configured_limit_goes_before_what_is_free() -> None:
    check_memory(BIG.model_copy(update={"max_memory_mib": 65}), MIB)
    with pytest.raises(ConfigError, match="max_memory_mib allows 64 MiB"):
        check_memory(BIG.model_copy(update={"max_memory_mib": 64}), 10**12)
    check_memory(BIG, None)


def test_processes_of_one_machine_share_what_is_free() -> None:
    check_memory(BIG, 82 * MIB, ranks=2)
    with pytest.raises(ConfigError, match=r"33 MiB on each of 2 processes.*are 20 MiB each"):
        check_memory(BIG, 50 * MIB, ranks=2)
    check_memory(BIG, 50 * MIB, ranks=2, ranks_here=1)


def test_groups_that_are_too_large_alone_are_named() -> None:
    group = GroupConfig(num_rows=1_000_000, features=("a",))
    table = TableConfig(num_rows=10, groups={"g": group}, max_memory_mib=10)
    with pytest.raises(ConfigError, match=r"the 1,000,000 rows of embedding\.groups alone"):
        check_memory(table, None)
    wide = TableConfig(num_rows=1, dim=2**14)
    with pytest.raises(ConfigError, match="a single row"):
        check_memory(wide, 2**15)


def machine(root: Path, files: dict[str, str]) -> Path:
    """Write the files of a Linux machine with 1000 KiB of available memory."""
    files = {"proc/meminfo": "MemTotal: 4000 kB\nMemAvailable: 1000 kB\n", **files}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_free_memory_is_the_least_that_any_limit_leaves(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path) is None
    assert free_memory_bytes(machine(tmp_path / "plain", {})) == 1000 * 1024

    def group(path: str, limit: str) -> dict[str, str]:
        folder = f"sys/fs/cgroup/{path}"
        texts = {"max": limit, "current": "400", "stat": "anon 100\ninactive_file 300\n"}
        return {f"{folder}/memory.{name}": text for name, text in texts.items()}

    inside = {"proc/self/cgroup": "0::/outer/inner\n"}
    nested = {**inside, **group("outer", "900\n"), **group("outer/inner", "max\n")}
    assert free_memory_bytes(machine(tmp_path / "nested", nested)) == 900 - (400 - 300)
    loose = {**inside, **group("outer", str(10**9))}
    assert free_memory_bytes(machine(tmp_path / "loose", loose)) == 1000 * 1024
    full = {**inside, **group("outer", "50")}
    assert free_memory_bytes(machine(tmp_path / "full", full)) == 0


def test_free_memory_knows_the_older_control_groups(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "5:cpu:/\n4:memory:/of/the/host\n",
        f"{folder}/memory.limit_in_bytes": "2000",
        f"{folder}/memory.usage_in_bytes": "700",
        f"{folder}/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
    }
    assert free_memory_bytes(machine(tmp_path, files)) == 2000 - (700 - 200)


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TableConfig(num_rows=1_000_000, dim=16)  # 68 bytes a row, 64 of them weights
    free = 3 * 132 * 1_000_000  # bytes, with a copy of the weights
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=free))
    check_disk(table, tmp_path / "not" / "there", copies=1)
    bigger = table.model_copy(update={"num_rows": 1_010_000})
    with pytest.raises(ConfigError, match=r"three checkpoints .* take 381 MiB, 378 MiB are free"):
        check_disk(bigger, tmp_path, copies=1)
    check_disk(bigger, tmp_path)


def test_who_shares_out_a_table_that_one_process_holds_with_ease_is_told() -> None:
    """A million rows of 16 floats, and one of row-wise Adagrad: 68,000,000 bytes."""
    table = TableConfig(num_rows=1_000_000, dim=16, optimizer="row_wise_adagrad")
    said = fits_one_process(table, 4 * 68_000_000)
    assert said.startswith("the table needs 64.8 MiB, which one process has: without --workers")
    assert fits_one_process(table, 4 * 68_000_000 - 1) == ""
    assert fits_one_process(table, None) == ""
