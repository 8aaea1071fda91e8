"""`recsys check`: what training refuses is said before it, where that is known."""

from recsys.training.config.experiment import ExperimentConfig
from recsys.training.jobs.check import preflight


def test_a_table_that_is_too_large_for_this_machine_is_said(config: ExperimentConfig) -> None:
    """Not refused: several machines may share it."""
    table = config.embedding.model_copy(update={"max_memory_mib": 1, "num_rows": 10**6})  # type: ignore[attr-defined]
    found = preflight(config.model_copy(update={"embedding": table}))
    (said,) = [line for line in found.warnings if "embedding table" in line]  # type: ignore[attr-defined]
    assert "training is refused here: the embedding table needs" in said
    assert "set embedding.num_rows to" in said
    assert not any("embedding table" in one for one in preflight(config).warnings)  # type: ignore[attr-defined]
