"""Every kind of model that a configuration may name as `model.kind`."""

from recsys.models.kind import ModelKind
from recsys.models.rankers import RANKERS
from recsys.models.retrieval import RETRIEVAL

MODELS: dict[str, ModelKind] = {**RETRIEVAL, **RANKERS}
