"""What a model says of the item index of an earlier one that its queries may search."""

from recsys.core.strict import StrictModel


class CompatibleSpace(StrictModel):
    """An earlier model's space, and what was measured when this model was rotated onto it.

    The figures are means of `metric` over the queries of `part`, of vectors alone, without a memory
    of pairs; on the earlier index only its own items are found.
    """

    space_id: str
    """Of the earlier model's item vectors."""
    model_id: str
    """The hash of its bundle."""
    metric: str
    """As in `recall_at_20`."""
    part: str
    """Of the log, whose queries were asked: `test` or `validation`."""
    new_on_old: float
    """Of this model's queries on the earlier model's items."""
    old_on_old: float
    """Of the earlier model's queries on its own items."""
    new_on_new: float
    """Of this model's queries on its own items."""
    shared_items: int
    """Items that both models know, over which the rotation was found."""
    measured_of: str | None = None
    """Model of which this was measured, where this one was trained on all rows with its settings;
    null: of this one."""

    @property
    def share(self) -> float:
        """How much of the earlier model's own recall is left; 1 where that had none."""
        return self.new_on_old / self.old_on_old if self.old_on_old else 1.0

    @property
    def words(self) -> str:
        """The figures in words."""
        return (
            f"{self.metric} {self.new_on_old:.4f} on the item index of model {self.model_id}, "
            f"{self.share:.1%} of that model's own {self.old_on_old:.4f} (on its own items: "
            f"{self.new_on_new:.4f}; {self.shared_items:,} items in both)"
        )
