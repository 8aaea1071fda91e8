"""Options that features of several kinds share."""

from typing import Annotated, Literal

from pydantic import Field

Name = Annotated[str, Field(min_length=1)]
Multiplicity = Annotated[int, Field(ge=1, le=16)] | Literal["auto"]
Pooling = Literal["mean", "sum", "sqrtn"]
HistoryPooling = Literal["mean", "sum", "sqrtn", "attention", "activation"]
BY_CANDIDATE: tuple[HistoryPooling, ...] = ("attention", "activation")
"""Poolings that weigh each value by what the row's own value reads."""
