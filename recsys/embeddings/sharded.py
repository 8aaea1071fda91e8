"""The table sharded by rows over the ranks of a process group, on TorchRec.

`DistributedModelParallel` over one `EmbeddingBagCollection` with one table and one key. A call
sends each row's number to the rank that holds it and gets the bags' sums back; gradients go the
same way and are summed, so ranks that share a batch out end with the table that one process would
have. gloo on CPUs, NCCL on GPUs.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.imports import logging_untouched
from recsys.embeddings.exchanged import ExchangedTable
from recsys.embeddings.row_shards import RowShards
from recsys.embeddings.table import TableConfig, initial_rows

_TABLE, _KEY = "table", "bags"


def sharded_table(
    config: TableConfig, device: torch.device, *, seed: int, weighted: bool = False
) -> "ShardedTable | ExchangedTable":
    """Return this rank's shard with seeded initial weights; collective.

    Of TorchRec where its kernels have the optimizer, else with an exchange of our own.

    Args:
        config: of the whole table.
        device: of the shard.
        seed: of the initial weights, the same on every rank.
        weighted: whether rows may come with weights.

    Raises:
        ConfigError: this table cannot be sharded over so many ranks.
    """
    check_shards(config, dist.get_world_size())
    if config.lacking_in_fbgemm is not None:
        return ExchangedTable(config, device, seed=seed)
    return ShardedTable(config, device, seed=seed, weighted=weighted)


class ShardedTable(RowShards):
    """A `recsys.embeddings.table.Table` of which this process holds some rows."""

    def __init__(
        self, config: TableConfig, device: torch.device, *, seed: int, weighted: bool = False
    ) -> None:
        """Build this rank's shard with seeded initial weights; collective.

        Args:
            config: of the whole table.
            device: of the shard.
            seed: of the initial weights, the same on every rank.
            weighted: whether rows may come with weights.
        """
        super().__init__(config)
        self.dim, self.device, self.weighted = config.dim, device, weighted
        self.module = _build(config, device, weighted)
        self.weight, self.state = _local_tensors(self.module, config)
        with torch.no_grad():
            self.weight.copy_(initial_rows(config, seed, self.first_row, len(self.weight)))

    def __call__(self, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return (bags, dim) of this rank's bags."""
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        bags = len(offsets) - 1
        lengths = offsets.diff()
        # Row-wise output is scattered in equal pieces: short ranks bring empty bags.
        most = torch.tensor([bags], device=self.device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        if int(most) > bags:
            lengths = torch.cat([lengths, lengths.new_zeros(int(most) - bags)])
        if self.weighted and weights is None:
            weights = torch.ones(len(rows), device=rows.device)
        batch = KeyedJaggedTensor(
            keys=[_KEY], values=rows, lengths=lengths, weights=weights if self.weighted else None
        )
        pooled: Tensor = self.module(batch).values()
        return pooled[:bags]

    def scale_learning_rate(self, factor: float) -> None:
        """Step `factor` times as far as configured from the next backward pass on."""
        optimizer = self.module.fused_optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor
        optimizer.step()  # the update is fused into the backward pass: this hands the rate over


def check_shards(config: TableConfig, ranks: int) -> None:
    """Refuse a table that cannot be sharded over `ranks` processes.

    Raises:
        ConfigError: TorchRec or FBGEMM is needed and not installed, or a rank would hold no row.
    """
    if config.lacking_in_fbgemm is None:
        _check_libraries(ranks)
    step = -(-config.total_rows // ranks)
    if step * (ranks - 1) >= config.total_rows:
        raise ConfigError(
            f"the embedding table has {config.total_rows} rows, too few for {ranks} processes of "
            f"{step} each: train with fewer --workers"
        )


def _check_libraries(ranks: int) -> None:
    try:
        with logging_untouched():
            import fbgemm_gpu  # noqa: F401
            import torchrec  # noqa: F401
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"training in {ranks} processes needs TorchRec and FBGEMM ({error}): pip install "
            "'recsys-engine[cpu]' (for a GPU: [gpu]), or train with --workers 1"
        ) from None


def _build(config: TableConfig, device: torch.device, weighted: bool) -> Any:
    """Return the sharded collection, its update fused into the backward pass."""
    from torchrec.distributed.comm_ops import set_gradient_division
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.sharding_plan import (
        construct_module_sharding_plan,
        row_wise,
    )
    from torchrec.distributed.types import ShardingEnv, ShardingPlan, ShardingType
    from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
    from torchrec.modules.embedding_modules import EmbeddingBagCollection

    class RowWiseSharder(EmbeddingBagCollectionSharder):  # type: ignore[misc]
        """The stock sharder offers no row-wise sharding on CPUs, which works."""

        def sharding_types(self, compute_device_type: str) -> list[str]:
            return [ShardingType.ROW_WISE.value]

    set_gradient_division(False)
    sharder = RowWiseSharder(fused_params=_fused(config))
    collection = EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=_TABLE,
                embedding_dim=config.dim,
                num_embeddings=config.total_rows,
                feature_names=[_KEY],
                pooling=PoolingType.SUM,
            )
        ],
        is_weighted=weighted,
        device=torch.device("meta"),
    )
    # The default kernel of a plan made by hand is the dense one, wrong on CPUs: ask for fused.
    plan = construct_module_sharding_plan(
        collection,
        {_TABLE: row_wise(compute_kernel="fused")},
        sharder=sharder,
        device_type=device.type,
        local_size=dist.get_world_size(),
        world_size=dist.get_world_size(),
    )
    assert dist.group.WORLD is not None
    return DistributedModelParallel(
        collection,
        env=ShardingEnv.from_process_group(dist.group.WORLD),
        device=device,
        plan=ShardingPlan(plan={"": plan}),
        sharders=[sharder],
        init_data_parallel=False,
    )


def _fused(config: TableConfig) -> dict[str, Any]:
    """Return the optimizer that runs in the backward pass."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType

    optimizers = {
        "row_wise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        "adagrad": EmbOptimType.EXACT_ADAGRAD,
        "sgd": EmbOptimType.EXACT_SGD,
    }
    return {
        "optimizer": optimizers[config.optimizer],
        "learning_rate": config.learning_rate,
        "eps": config.eps,
    }


def _local_tensors(module: Any, config: TableConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Return views of this rank's rows and of their optimizer state."""
    (weight,) = (_shard(value) for value in module.state_dict().values())
    state: dict[str, Tensor] = {}
    if config.optimizer == "sgd":
        return weight, state
    for values in module.fused_optimizer.state_dict()["state"].values():
        for name, value in values.items():
            if "momentum1" in name:
                local = _shard(value)
                state["sum"] = local.view(len(weight), -1)[:, 0] if _row_wise(config) else local
    return weight, state


def _row_wise(config: TableConfig) -> bool:
    return config.optimizer == "row_wise_adagrad"


def _shard(value: Any) -> Tensor:
    """Return the local rows of a sharded tensor."""
    shards = value.local_shards()
    if len(shards) != 1:
        raise RuntimeError(f"a row-wise table has one shard a rank, not {len(shards)}")
    tensor: Tensor = shards[0].tensor
    return tensor.detach()
