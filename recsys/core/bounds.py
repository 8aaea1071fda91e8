"""Upper bounds of sizes in a configuration.

Without them a mistyped size (`model.dim: 1000000`) allocates until the system kills the process.
With them it is refused, with its key, before anything is allocated.
"""

from typing import Annotated

from pydantic import Field

Width = Annotated[int, Field(ge=1, le=16_384)]
"""Numbers of a vector, rows of a layer, layers, heads."""
Steps = Annotated[int, Field(ge=1, le=100_000)]
"""Steps of a history that a model sees."""
Drawn = Annotated[int, Field(ge=0, le=10_000_000)]
"""Items that are drawn beside those of a batch."""
Samples = Annotated[int, Field(ge=1, le=100_000)]
"""Samples that an interval is made of."""
