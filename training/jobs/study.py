"""The job behind `recsys tune embedding`: which features deserve how many lookups."""

from typing import Any

from recsys.core.errors import ConfigError
from recsys.core.strict import listed
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.registry import FAMILIES, family_of


def study_embedding(config: ExperimentConfig, **options: Any) -> Any:
    """Run the study of `config`'s family (`recsys.training.embedding.output.tracked_study`).

    Raises:
        ConfigError: models of its family are not studied, or the options do not go with it.
    """
    study = family_of(config).study_embedding
    if study is None:
        able = [family for family in FAMILIES if family.study_embedding is not None]
        kinds = ", ".join(kind for family in able for kind in family.kinds)
        raise ConfigError(
            f"model.kind: {config.model.kind} is not studied, only "
            f"{listed([family.plural for family in able], 'and')} are ({kinds}): set "
            "multiplicity: auto and embedding.lookups"
        )
    return study(config, **options)
