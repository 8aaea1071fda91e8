"""A trained model opened again, as its family knows it."""

from pathlib import Path

from recsys.bundle.directory import Bundle
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.training.config.file import read_yaml
from recsys.training.families.load import parse_config
from recsys.training.families.opened import OpenedModel


def open_model(path: Path) -> OpenedModel:
    """Verify the bundle at `path` and return what it says of itself.

    Raises:
        NotFoundError: there is no bundle.
        IntegrityError: a file of the bundle is not what was written.
    """
    bundle = Bundle.open(path)
    raw = read_yaml(bundle.text("config.yaml"), source=path / "config.yaml")
    config = parse_config(raw, source=path / "config.yaml")
    encoder = FeatureEncoder.from_bytes(
        bundle.read("encoder/encoder.json"), bundle.read("encoder/known_ids.safetensors")
    )
    return OpenedModel(bundle, config, encoder)
