"""Settings of the ranker `recsys.models.masknet`."""

from typing import Annotated, Literal

from pydantic import Field

from recsys.core.bounds import Width
from recsys.layers.choices import Norm
from recsys.models.kind import ModelConfig


class MaskNetConfig(ModelConfig):
    """Sizes and options of a `MaskNet`."""

    kind: Literal["masknet"] = "masknet"
    structure: Literal["parallel", "serial"] = "parallel"
    """`parallel`: all blocks read the row; `serial`: each block reads the one before."""
    blocks: Width = 3
    """Mask blocks."""
    block_dim: Width = 128
    """Width of a block."""
    mask_ratio: Annotated[float, Field(gt=0)] = 1.0
    """Width of the hidden layer of a mask, as a multiple of the embedded row's."""
    hidden: tuple[Width, ...] = (400,)
    """Widths of the perceptron that reads the blocks; empty: a linear readout."""
    field_norm: Norm = "batch"
    """Normalisation of what is read from the table: `batch`, each number over the rows; `layer`,
    each lookup by itself, as the paper has it; or `none`."""
    norm: Norm = "batch"
    """In each block and in each hidden layer of the perceptron: `batch`, `layer`, as the paper has
    it, or `none`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Of the perceptron's hidden layers and of the blocks."""
