"""A trained model opened again: its bundle verified, its data read and encoded as it knew them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from recsys.bundle.calibration import CALIBRATOR_FILE, Calibrator
from recsys.bundle.directory import Bundle
from recsys.bundle.weights import load_ranker
from recsys.core.strict import parse
from recsys.data.batch import FeatureLayout
from recsys.features.dataset.dataset import Dataset, encoded, parted
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.tables.checked import read_tables
from recsys.models.rankers import RANKERS
from recsys.models.retrieval import RetrievalConfig
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import read_yaml

Say = Callable[[str], None]


@dataclass(frozen=True)
class OpenedModel:
    """A verified bundle with its configuration and its fitted encoder."""

    bundle: Bundle
    config: ExperimentConfig
    encoder: FeatureEncoder

    @property
    def is_ranker(self) -> bool:
        """Whether the model judges labelled rows."""
        return self.config.model.kind in RANKERS

    def data(self, say: Say) -> Dataset:
        """Return the data that the configuration names, as the model's encoder sees them.

        Raises:
            NotFoundError: they are no longer where they were.
        """
        config = self.config
        tables = read_tables(
            config.schema_, config.data, config.policies, split_column=config.split.column
        )
        if tables.fingerprint != self.bundle.manifest["facts"]["data_fingerprint"]:
            say("note: the data are not those the model was trained on; rows may have moved parts")
        schema = self.encoder.schema if self.is_ranker else config.schema_
        tables, part, cold = parted(schema, tables, config.split)
        return encoded(schema, tables, part, self.encoder, cold)

    def ranker(self, layout: FeatureLayout) -> nn.Module:
        """Return the ranker, in evaluation mode, for rows of `layout`.

        Raises:
            IntegrityError: the weights are not those of such a model.
        """
        assert not isinstance(self.config.model, RetrievalConfig)
        weights = self.bundle.read("weights.safetensors")
        return load_ranker(weights, self.config.model, self.config.embedding, layout)

    def calibrator(self) -> Calibrator:
        """Return what turns the ranker's logits into probabilities."""
        return Calibrator.from_json(self.bundle.text(CALIBRATOR_FILE))


def open_model(path: Path) -> OpenedModel:
    """Verify the bundle at `path` and return what it says of itself.

    Raises:
        NotFoundError: there is no bundle.
        IntegrityError: a file of the bundle is not what was written.
    """
    bundle = Bundle.open(path)
    raw = read_yaml(bundle.text("config.yaml"), source=path / "config.yaml")
    config = parse(ExperimentConfig, raw, source=path / "config.yaml")
    encoder = FeatureEncoder.from_bytes(
        bundle.read("encoder/encoder.json"), bundle.read("encoder/known_ids.safetensors")
    )
    return OpenedModel(bundle, config, encoder)
