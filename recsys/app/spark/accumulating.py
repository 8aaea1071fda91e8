"""Counts of Spark's tasks, added up at the driver."""

from pyspark.accumulators import AccumulatorParam

from recsys.serving.engines.tally import Tally


class Tallies(AccumulatorParam[Tally]):  # type: ignore[misc]
    """Adds tallies up."""

    def zero(self, value: Tally) -> Tally:
        """Return an empty one."""
        return Tally()

    def addInPlace(self, value1: Tally, value2: Tally) -> Tally:  # noqa: N802 - Spark's name
        """Add the second to the first."""
        value1.merge(value2)
        return value1
