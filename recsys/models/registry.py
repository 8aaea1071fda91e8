"""Every kind of model that a configuration may name as `model.kind`."""

from recsys.models.kind import Kind, ModelKind
from recsys.models.rankers import RANKERS
from recsys.models.retrieval_kinds import RETRIEVAL
from recsys.pipeline.config import PipelineConfig
from recsys.plain.registry import PLAIN

LEARNED: dict[str, ModelKind] = {**RETRIEVAL, **RANKERS}
"""Those that are trained."""
PIPELINES: dict[str, Kind] = {"pipeline": Kind(PipelineConfig, reads="parts")}
"""Those that are made of others."""
MODELS: dict[str, Kind] = {**LEARNED, **PLAIN, **PIPELINES}
