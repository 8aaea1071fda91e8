"""Self-supervision as a configuration names it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recsys.core.strict import StrictModel


class SelfSupervision(StrictModel):
    """A loss without labels beside that of the labels (`training.self_supervision`)."""

    kind: Literal["none", "contrastive", "spread_out"] = "none"
    """`contrastive`: two views of a thing, each with other features masked, know each other;
    `spread_out`: things differ, nothing is masked."""
    views: Literal["item", "row", "query", "both"] = "item"
    """Of items drawn uniformly from the catalogue; for rankers also of the batch's rows, for
    retrieval also of users (`query`), drawn uniformly as well, or of items and users (`both`)."""
    masking: Literal["random", "correlated", "none"] = "correlated"
    """Half of the features, or a feature with those that tell most about it; `none`: `dropout`
    alone makes both views."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the values of multi-valued features left out of a view; with `masking: none`,
    share of the features masked in a row of a view."""
    weight: Annotated[float, Field(ge=0)] = 0.01
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """What cosines are divided by before the softmax."""
    batch_size: Annotated[int, Field(ge=2)] = 512
    """Items drawn a step, or rows of the batch, compared with each other."""

    @model_validator(mode="after")
    def _views_differ(self) -> "SelfSupervision":
        if self.kind == "contrastive" and self.masking == "none" and not self.dropout:
            raise ValueError(
                "masking: none without dropout makes two views that are the same: set dropout"
            )
        return self

    def check(self, model: str, *, streamed: bool) -> None:
        """Refuse what does not fit the kind of model or the log.

        Raises:
            ValueError: the key is named, and what it may be.
        """
        if self.kind == "none":
            return
        if model not in ("two_tower", "autoint", "dcn", "mlp"):
            raise ValueError(
                f"training.self_supervision is for two_tower, autoint, dcn and mlp, which have a "
                f"representation to compare, and model.kind is {model}: set its kind to none"
            )
        known = ("item", "query", "both") if model == "two_tower" else ("item", "row")
        if self.views not in known:
            raise ValueError(
                f"training.self_supervision.views: {self.views} is not for model.kind: {model}: "
                f"choose {', '.join(known[:-1])} or {known[-1]}"
            )
        if streamed and self.views == "item":
            raise ValueError(
                "training.self_supervision.views: item draws from the items table, which a "
                "streamed log does not have: set views: row"
            )
