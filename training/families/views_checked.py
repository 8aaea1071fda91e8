"""Refuse views of examples that have too few features."""

from collections.abc import Sequence

from recsys.core.errors import ConfigError
from recsys.training.config.self_supervision import SelfSupervision


def check_features(settings: SelfSupervision, example: str, names: Sequence[str]) -> None:
    """Refuse views of an example, "item" or such, with too few features, by their names.

    Raises:
        ConfigError: there are not two features, of which one could be masked.
    """
    if settings.kind == "contrastive" and len(names) < 2:
        raise ConfigError(
            f"training.self_supervision: each view hides some of the {example}'s "
            f"features and shows others, and there is {' and '.join(names) or 'none'} alone: "
            "declare more features, or choose other views or kind: spread_out"
        )
