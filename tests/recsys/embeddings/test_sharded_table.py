"""The table sharded over two ranks, step by step beside one whole table of plain torch.

This file is also the program of the ranks.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, IntegrityError
from recsys.embeddings.backend import build_table
from recsys.embeddings.memory import check_memory
from recsys.embeddings.sharded import check_shards, sharded_table
from recsys.embeddings.shards_on_disk import load_table, save_table
from recsys.embeddings.table import TableConfig
from recsys.embeddings.torch_table import TorchTable

RANKS, STEPS, CPU = 2, 6, torch.device("cpu")
FACTORS = (1.0, 1.0, 0.5, 0.1, 2.0, 1.0)
"""What a schedule makes of the learning rate, step by step."""
CASES = [
    (optimizer, weighted)
    for optimizer in ("row_wise_adagrad", "adagrad", "sgd", "adam", "row_wise_adam", "decayed")
    for weighted in (False, True)
]
"""The optimizer, or Adam with decay; whether some rows come with weights."""


def config_of(optimizer: str) -> TableConfig:
    asked = {"optimizer": "adam", "weight_decay": 0.1}
    asked = asked if optimizer == "decayed" else {"optimizer": optimizer}
    return TableConfig.model_validate(  # 9 rows on 2 ranks: 5 and 4
        {"num_rows": 9, "dim": 4, "learning_rate": 0.3, "backend": "torch", **asked}
    )


def bags_of(step: int, rank: int, weighted: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return rows, offsets, weights and the gradient of a rank's bags: none at all at times."""
    generator = torch.Generator().manual_seed(10 * step + rank)
    bags = int(torch.randint(0, 5, (1,), generator=generator)) if step else 2 * rank
    lengths = torch.randint(0, 4, (bags,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    rows = torch.randint(0, 9, (int(offsets[-1]),), generator=generator)
    weights = torch.rand(len(rows), generator=generator) if weighted and step % 2 else None
    return rows, offsets, weights, torch.randn(bags, 4, generator=generator)


def together(step: int, weighted: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return the bags of all ranks as one batch."""
    parts = [bags_of(step, rank, weighted) for rank in range(RANKS)]
    lengths = torch.cat([offsets.diff() for _, offsets, _, _ in parts])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    weights = [part[2] for part in parts if part[2] is not None]
    return (
        torch.cat([part[0] for part in parts]),
        offsets,
        torch.cat(weights) if weights else None,
        torch.cat([part[3] for part in parts]),
    )


def main(folder: Path) -> None:
    from recsys.training.engine.ranks import join, leave

    torch.set_num_threads(1)
    world = join("cpu")
    found: dict[str, Any] = {}
    for optimizer, weighted in CASES:
        name = f"{optimizer}-{weighted}"
        table = sharded_table(config_of(optimizer), CPU, seed=7, weighted=weighted)
        pooled = []
        for step in range(STEPS):
            rows, offsets, weights, grad = bags_of(step, world.rank, weighted)
            table.scale_learning_rate(FACTORS[step])
            out = table(rows, offsets, weights)
            out.backward(grad)
            pooled.append(out.tolist())
        save_table(table, folder / name)
        whole = table.gathered()
        found[name] = {
            "pooled": pooled,
            "first_row": table.first_row,
            "own": table.weight.tolist(),
            "whole": None
            if whole is None
            else {key: value.tolist() for key, value in whole.items()},
            "state": {key: value.tolist() for key, value in table.state.items()},
        }
    narrow = config_of("sgd").model_copy(update={"dim": 8})
    try:
        load_table(sharded_table(narrow, CPU, seed=0), folder / "sgd-True")
    except IntegrityError as error:
        found["refused"] = str(error)
    world.wait()
    if world.is_first:
        for path in (folder / "sgd-False").glob("rows-000000000005*"):
            path.unlink()
    world.wait()
    try:
        load_table(sharded_table(config_of("sgd"), CPU, seed=0), folder / "sgd-False")
    except IntegrityError as error:
        found["broken"] = str(error)
    (folder / f"found-{world.rank}.json").write_text(json.dumps(found))
    leave(world)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, start_ranks: Any) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    for rank in start_ranks(__file__, RANKS, folder):
        output, _ = rank.communicate(timeout=400)
        assert rank.returncode == 0, output
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[Any]:
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize(("optimizer", "weighted"), CASES)
def test_ranks_read_and_update_what_one_table_would(
    found: list[Any], folder: Path, optimizer: str, weighted: bool
) -> None:
    config, name = config_of(optimizer), f"{optimizer}-{weighted}"
    own = [one[name] for one in found]
    oracle = build_table(config, device=CPU, seed=7)
    for step in range(STEPS):
        rows, offsets, weights, grad = together(step, weighted)
        oracle.scale_learning_rate(FACTORS[step])
        pooled = oracle(rows, offsets, weights)
        got = [torch.tensor(one["pooled"][step]).reshape(-1, 4) for one in own]
        torch.testing.assert_close(torch.cat(got), pooled.detach(), atol=2e-6, rtol=1e-5)
        pooled.backward(grad)
    assert [(one["first_row"], len(one["own"])) for one in own] == [(0, 5), (5, 4)]
    shards = torch.cat([torch.tensor(one["own"]) for one in own])
    torch.testing.assert_close(shards, oracle.weight, atol=2e-6, rtol=1e-5)
    assert [one["whole"] is None for one in own] == [False, True]
    assert torch.equal(torch.tensor(own[0]["whole"]["weight"]), shards)
    read = TorchTable(config, CPU)  # what two ranks wrote, in one process
    load_table(read, folder / name) if name != "sgd-False" else read.weight.copy_(shards)
    assert torch.equal(read.weight, shards)
    for key, value in oracle.state.items():
        parts = [torch.tensor(one["state"][key]) for one in own]
        if key == "step":  # the same on both
            assert torch.equal(parts[0], parts[1])
            parts = parts[:1]
        state = torch.cat(parts)
        torch.testing.assert_close(state, value, atol=2e-6, rtol=1e-5)
        assert torch.equal(read.state[key], state)
        assert torch.equal(torch.tensor(own[0]["whole"][key]), state)


def test_a_checkpoint_of_another_shape_or_without_a_file_is_named_on_every_rank(
    found: list[Any],
) -> None:
    for rows, one in zip((5, 4), found, strict=True):
        assert one["refused"].endswith(
            f"rows-000000000000.safetensors: 'weight' is (5, 4), the run's is ({rows}, 8)"
        )
        assert "sgd-False: rows 5 to 9 of the table are missing" in one["broken"]


def test_what_does_not_shard_is_refused() -> None:
    with pytest.raises(ConfigError, match="has 9 rows, too few for 8 processes of 2 each"):
        check_shards(TableConfig(num_rows=9), 8)
    check_shards(TableConfig(num_rows=9), 5)


def test_the_machine_that_gathers_the_table_has_room_for_it_at_the_end() -> None:
    mib = 2**20
    big = TableConfig(num_rows=1_000_000, dim=16)  # 68 bytes a row, 64 of them weights
    check_memory(big, 85 * mib, ranks=2)  # four fifths of it are 68 MiB
    with pytest.raises(ConfigError, match=r"whole table at the end\), four fifths.*to 540,1\d\d "):
        check_memory(big, 85 * mib, ranks=2, gathered_bytes=1_000_000 * 64)
    smaller = big.model_copy(update={"num_rows": 540_100})
    check_memory(smaller, 85 * mib, ranks=2, gathered_bytes=540_100 * 64)
    # Two machines of one rank each: half of the table, and all weights on the first.
    check_memory(big, 119 * mib, ranks=2, ranks_here=1, gathered_bytes=1_000_000 * 64)
    with pytest.raises(ConfigError, match="needs 94 MiB on each of 2 processes"):
        check_memory(big, 115 * mib, ranks=2, ranks_here=1, gathered_bytes=1_000_000 * 64)
    check_memory(big, 42 * mib, ranks=2, ranks_here=1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
