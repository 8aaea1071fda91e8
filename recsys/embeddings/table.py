"""The table of embeddings: its configuration, what every backend of it answers, how it starts.

A table's update is fused into the backward pass: no dense gradient, ever.

    table(rows (T,) int64, offsets (bags + 1,) int64) -> (bags, dim) float32, sum-pooled

When the result is in a backward pass, the optimizer's step is applied to the rows that
were read and to nothing else. Call a table once a training step: two calls are two steps.
A table is no `nn.Module`: its weights are no parameters of the optimizer outside.

With g[r] the gradient of row r summed over all its reads, plus weight_decay * weight[r] times
the steps since the row was last read (with weight_decay_at: reads, times 1):

    sgd               w[r] -= lr * g[r]
    adagrad           s[r] += g[r]^2;        w[r] -= lr * g[r] / (sqrt(s[r]) + eps)
    row_wise_adagrad  s[r] += mean(g[r]^2);  the same, one accumulator a row
    adam              m[r] = b1 m[r] + (1-b1) g[r];  v[r] = b2 v[r] + (1-b2) g[r]^2;
                      w[r] -= lr * m^[r] / (sqrt(v^[r]) + eps), hats: divided by 1 - b^step
    row_wise_adam     the same with mean(g[r]^2), one second moment a row

Decay is L2 of the whole table, as a dense optimizer has it, at the cost of the rows read: a row
that is not read does not move, and when it is read it gets the decay of all steps since. With
weight_decay_at: reads it gets that of one step: rare values are decayed as often as they are
trained, and frequent ones far more.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, Protocol

from pydantic import Field, model_validator

from recsys.core.bounds import Width
from recsys.core.imports import on_first_use
from recsys.core.strict import StrictModel

with on_first_use():
    import torch
    from torch import Tensor

Optimizer = Literal["row_wise_adagrad", "adagrad", "sgd", "row_wise_adam", "adam"]
ADAMS: tuple[Optimizer, ...] = ("adam", "row_wise_adam")
Backend = Literal["fbgemm", "torch"]
RATE, ADAM_RATE = 0.05, 0.001
BLOCK_ROWS = 65_536
"""Rows that share a seed of their initial weights."""


class GroupConfig(StrictModel):
    """A group of features with rows of their own."""

    num_rows: Annotated[int, Field(ge=1, le=2**31)]
    """Rows of the group."""
    features: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names as `recsys train` prints them in its plan."""


class TableConfig(StrictModel):
    """The shared table: its size, its optimizer, and the kernel that runs it."""

    num_rows: Annotated[int, Field(ge=1, le=2**31)] = 65_536
    """The one number that sets the memory: every feature's values share these rows."""
    dim: Width = 16
    """Width of a row."""
    groups: dict[str, GroupConfig] = Field(default_factory=dict)
    """Features that do not share rows: rows of their own, after the `num_rows` shared ones."""
    lookups: Annotated[int, Field(ge=1)] | None = None
    """Table reads a row, shared out among the features of `multiplicity: auto`; None: twice as
    many as there are such features."""
    optimizer: Optimizer = "row_wise_adagrad"
    """Of the table; its state is a number a row, or one or two a weight."""
    learning_rate: Annotated[float, Field(gt=0)] = RATE
    """Of the table's optimizer; 0.001 where it is `adam` or `row_wise_adam` and nothing is said."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the optimizer's denominator; `sgd` has none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of `adam` and `row_wise_adam`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 of the table; `weight_decay_at` says how often."""
    weight_decay_at: Literal["steps", "reads"] = "steps"
    """When a row decays. `steps`: at every step of the training, as L2 of a dense table does; a row
    gets the decay of all steps since it was last read when it is read again. `reads`: at the steps
    that read it, so that rare values decay as often as they learn (sessions on Diginetica, MRR@20:
    0.178 against 0.173 after an epoch)."""
    init_scale: Annotated[float, Field(gt=0)] = 0.1
    """Initial weights are uniform in [-init_scale, init_scale]."""
    backend: Literal["auto", "measure", "fbgemm", "torch"] = "auto"
    """Which kernel runs the table; they agree to the last digits. `auto`: by a fixed rule, the same
    one for the same command; `measure`: the faster one of both, timed when a run starts."""
    max_memory_mib: Annotated[int, Field(ge=1)] | None = None
    """Refuse a table that needs more; None: four fifths of the memory that is free."""

    @model_validator(mode="after")
    def _rate_of_the_optimizer(self) -> TableConfig:
        """Steps of Adam are as long as the rate says, whatever the gradients are."""
        if "learning_rate" not in self.model_fields_set:
            self.__dict__["learning_rate"] = ADAM_RATE if self.optimizer in ADAMS else RATE
        return self

    @model_validator(mode="after")
    def _runs(self) -> TableConfig:
        if self.backend == "fbgemm" and self.lacking_in_fbgemm is not None:
            raise ValueError(
                f"{self.lacking_in_fbgemm} runs on backend: torch alone: leave backend out, or set "
                "optimizer: row_wise_adagrad and weight_decay: 0"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas must be in [0, 1)")
        fields, optimizer = TableConfig.model_fields, self.optimizer
        if self.betas != fields["betas"].default and optimizer not in ADAMS:
            raise ValueError(
                f"betas are for optimizer: adam or row_wise_adam, and it is {optimizer}: leave "
                "betas out"
            )
        if self.eps != fields["eps"].default and optimizer == "sgd":
            raise ValueError(
                "eps is added to a denominator, and optimizer: sgd has none: leave eps out"
            )
        return self

    @model_validator(mode="after")
    def _decays(self) -> TableConfig:
        if self.weight_decay_at == "reads" and not self.weight_decay:
            raise ValueError(
                "weight_decay_at says when a table decays, and weight_decay is 0: set "
                "weight_decay, or leave weight_decay_at out"
            )
        return self

    @property
    def lacking_in_fbgemm(self) -> str | None:
        """What FBGEMM's kernels do not have, or pass over in silence; None: they have all."""
        if self.optimizer in ADAMS:
            return self.optimizer
        return "weight_decay" if self.weight_decay else None

    @property
    def total_rows(self) -> int:
        """Rows of the whole table, those of the groups among them."""
        return self.num_rows + sum(group.num_rows for group in self.groups.values())

    @property
    def state_floats(self) -> int:
        """Optimizer state of one row, in float32s."""
        shapes = self.state_shapes(1)
        return sum(prod(shape) for name, shape in shapes.items() if name != "step")

    def state_shapes(self, num_rows: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of the optimizer's state for so many rows.

        "step" counts the steps; "last" is the step at which a row was last read, where that says
        how much it decays.
        """
        rows, weights = (num_rows,), (num_rows, self.dim)
        shapes: dict[Optimizer, dict[str, tuple[int, ...]]] = {
            "sgd": {},
            "adagrad": {"sum": weights},
            "row_wise_adagrad": {"sum": rows},
            "adam": {"exp_avg": weights, "exp_avg_sq": weights},
            "row_wise_adam": {"exp_avg": weights, "exp_avg_sq": rows},
        }
        catches_up = self.weight_decay and self.weight_decay_at == "steps"
        clock: dict[str, tuple[int, ...]] = {"last": rows} if catches_up else {}
        if clock or self.optimizer in ADAMS:
            clock["step"] = (1,)
        return shapes[self.optimizer] | clock

    @property
    def memory_bytes(self) -> int:
        """Memory of the table and of its optimizer's state, whatever the number of features."""
        return self.total_rows * (self.dim + self.state_floats) * 4


class Table(Protocol):
    """What every backend answers."""

    def __call__(self, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return (bags, dim), the sum of the rows of each bag, each times its weight (T,)."""

    def scale_learning_rate(self, factor: float) -> None:
        """Step `factor` times as far as configured from the next backward pass on."""

    @property
    def weight(self) -> Tensor:
        """The table itself, (num_rows, dim) float32, a view; of a sharded one this rank's rows."""

    @property
    def state(self) -> dict[str, Tensor]:
        """The optimizer's state by name, views: a row of the table each, but for "step" (1,)."""

    @property
    def first_row(self) -> int:
        """Which row of the whole table `weight[0]` is: 0 unless the table is sharded."""

    @property
    def num_rows(self) -> int:
        """Rows of the whole table."""


def initial_rows(config: TableConfig, seed: int, first: int, count: int) -> Tensor:
    """Return initial weights of rows first..first+count, (count, dim) float32.

    The same for a row however the table is sharded: blocks of rows have seeds of their own.
    """
    parts = []
    for block in range(first // BLOCK_ROWS, -(-(first + count) // BLOCK_ROWS)):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
        start = block * BLOCK_ROWS
        size = min(BLOCK_ROWS, config.total_rows - start)
        rows = torch.rand(size, config.dim, generator=generator)
        parts.append(rows[max(first - start, 0) : first + count - start])
    return (torch.cat(parts) * 2 - 1) * config.init_scale
