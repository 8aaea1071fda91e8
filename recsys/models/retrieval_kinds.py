"""The models that retrieve by the name of their kind: their settings, and how they are built."""

from recsys.core.imports import on_first_use
from recsys.models.kind import ModelKind
from recsys.models.session_config import MAY_BEGIN, SessionTransformerConfig
from recsys.models.two_tower_config import TwoTowerConfig

with on_first_use():
    from recsys.models.session import SessionTransformer
    from recsys.models.session import embedded_axes as axes_of_sessions
    from recsys.models.two_tower import TwoTower
    from recsys.models.two_tower import embedded_axes as axes_of_towers

RetrievalConfig = TwoTowerConfig | SessionTransformerConfig

RETRIEVAL: dict[str, ModelKind] = {
    "two_tower": ModelKind(TwoTowerConfig, TwoTower, axes_of_towers),
    "session": ModelKind(
        SessionTransformerConfig,
        SessionTransformer,
        axes_of_sessions,
        may_begin=MAY_BEGIN,
        reads="steps",
    ),
}
"""To add one: a file next to this one with the methods that these two share, a file of its
settings, an entry here, its settings in the union above and its class in that of
`recsys.models.retrieval`."""
