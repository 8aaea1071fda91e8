"""What settings may choose among layers, by name: read without any tensor."""

from typing import Literal

Combine = Literal["project", "sum"]
Geometry = Literal["sphere", "biased_sphere", "dot", "ball"]
Norm = Literal["batch", "layer", "none"]
