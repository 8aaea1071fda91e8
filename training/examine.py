"""The job behind `recsys evaluate`: a bundle judged again on the data it names."""

from collections.abc import Callable
from pathlib import Path

from features.dataset import encoded, part_of
from features.encoder import FeatureEncoder
from features.tables import read_tables
from recsys.bundle import Bundle
from recsys.errors import ConfigError
from recsys.models.rankers import RANKERS
from recsys.models.two_tower import TwoTowerConfig
from recsys.strict import parse
from recsys.weights import load_ranker, load_two_tower
from training.config import ExperimentConfig, read_yaml
from training.ranking_job import RankingEvaluation, report_on_ranker
from training.ranking_job import judge as judge_ranker
from training.ranking_rows import RankingRows, rows_of
from training.results import Evaluation
from training.retrieval_job import judge, report_on


def evaluate_bundle(
    path: Path, report: Path, *, say: Callable[[str], None] = lambda line: None
) -> Evaluation | RankingEvaluation:
    """Evaluate the bundle at `path` on its own split of the data, and write `report`.

    Raises:
        NotFoundError: no bundle, or its data are no longer where they were.
        IntegrityError: a file of the bundle is not what was written.
    """
    bundle = Bundle.open(path)
    raw = read_yaml(bundle.text("config.yaml"), source=path / "config.yaml")
    config = parse(ExperimentConfig, raw, source=path / "config.yaml")
    encoder = FeatureEncoder.from_bytes(
        bundle.read("encoder/encoder.json"), bundle.read("encoder/known_ids.safetensors")
    )
    if config.data.stream:
        raise ConfigError("a streamed log is judged at the end of its training, not again")
    tables = read_tables(
        config.schema_, config.data, config.policies, split_column=config.split.column
    )
    if tables.fingerprint != bundle.manifest["facts"]["data_fingerprint"]:
        say("note: the data are not those the model was trained on; rows may have moved parts")
    if config.model.kind in RANKERS:
        data = encoded(encoder.schema, tables, part_of(tables, config.split), encoder)
        return _ranker(bundle, config, rows_of(config, data), report)
    data = encoded(config.schema_, tables, part_of(tables, config.split), encoder)
    layouts = (encoder.layout("items"), encoder.query_layout())
    model = load_two_tower(
        bundle.read("weights.safetensors"), config.two_tower, config.embedding, layouts
    )
    evaluation, queries, items, _ = judge(config, data, model)
    report_on(report, config, data, evaluation, queries, items, [])
    return evaluation


def _ranker(
    bundle: Bundle, config: ExperimentConfig, rows: RankingRows, report: Path
) -> RankingEvaluation:
    assert not isinstance(config.model, TwoTowerConfig)
    weights = bundle.read("weights.safetensors")
    model = load_ranker(weights, config.model, config.embedding, rows.layout)
    evaluation = judge_ranker(config, rows, model)
    report_on_ranker(report, config, rows, evaluation)
    return evaluation
