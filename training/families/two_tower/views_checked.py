"""Refuse views of a two-tower's items and users, before any data are read."""

from recsys.core.errors import ConfigError
from recsys.features.schema import Schema
from recsys.training.families.two_tower.config import TowerSelfSupervision
from recsys.training.families.views_checked import check_features


def check_views(settings: TowerSelfSupervision, schema: Schema, *, smoothed: bool) -> None:
    """Refuse the views that `tower_views` refuses, before any data are read.

    Raises:
        ConfigError: there are not two features to mask, or items are smoothed over the catalogue.
    """
    if settings.kind == "none" or not settings.weight:
        return
    check_smoothing(settings, smoothed=smoothed)
    names = {side: [one.name for one in schema.features_of(side)] for side in ("items", "users")}
    if settings.views in ("item", "both"):
        check_features(settings, "item", names["items"])
    if settings.views in ("query", "both"):
        check_features(settings, "user", names["users"])


def check_smoothing(settings: TowerSelfSupervision, *, smoothed: bool) -> None:
    """Refuse masked items where they are smoothed over the catalogue.

    Raises:
        ConfigError: they are.
    """
    if smoothed and settings.views != "query":
        raise ConfigError(
            f"training.self_supervision.views: {settings.views} encodes items with masked features "
            "by themselves, and model.smoothing sees none but whole catalogues: set views: query, "
            "or smoothing.rounds: 0"
        )
