"""A trained model opened again, as its family knows it."""

from pathlib import Path

from recsys.core.strict_yaml import read_yaml
from recsys.features.bundle.files import CONFIG, read_config
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.training.families.load import parse_config
from recsys.training.families.opened import OpenedModel


def open_model(path: Path) -> OpenedModel:
    """Verify the bundle at `path` and return what it says of itself.

    Raises:
        NotFoundError: there is no bundle, or it holds no model.
        IntegrityError: a file of the bundle is not what was written, or encoder and model do not
            belong together.
        ConfigError: the configuration is not one of this engine.
    """
    found, source = ModelBundle.read(path), path / CONFIG
    config = parse_config(read_yaml(read_config(found.bundle), source=source), source=source)
    return OpenedModel(**vars(found), config=config)
