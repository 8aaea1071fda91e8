"""What a training is estimated to take, as `recsys check` says it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """Peak memory and CPU time of a training, in one process with one thread.

    epochs: that `cpu_seconds` is for. machine: on which the constants were measured. It is no
    promise: measured trainings were off by the factor `off`.
    """

    memory_mib: float
    cpu_seconds: float
    epochs: int
    machine: str
    off: float

    @property
    def line(self) -> str:
        """The estimate as text."""
        minutes = self.cpu_seconds / 60
        took = f"{minutes:,.0f} minutes" if minutes >= 2 else f"{self.cpu_seconds:,.0f} seconds"
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs:,} epochs"
        return (
            f"training, estimated: {took} of one thread for {epochs} "
            f"({self.machine}), {self.memory_mib:,.0f} MiB at the most; off by up to "
            f"{self.off:g} times where it was measured, and no promise"
        )
