"""What the commands share."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from recsys.training.config.experiment import ExperimentConfig


class ExportTarget(click.ParamType[str]):
    """What `recsys export --to` takes; who knows is imported where it is asked."""

    name = "target"

    @staticmethod
    def _choice() -> click.Choice[str]:
        from recsys.serving.export.targets import export_targets

        return click.Choice(export_targets())

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return the targets as help shows them."""
        return self._choice().get_metavar(param, ctx)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the target; refuse what is none."""
        return self._choice().convert(value, param, ctx)


def resolve_model(model: str, uri: str | None) -> Path:
    """Return the folder of the bundle that `model` names."""
    from recsys.serving.registry import resolve

    return Path(resolve(model, uri=uri))


def starting_from(
    config: "ExperimentConfig", model: str | None, uri: str | None
) -> "ExperimentConfig":
    """Return `config` with the bundle that `model`, or its own `warm_start`, names."""
    reference = model or config.warm_start
    if reference is None:
        return config
    folder = resolve_model(reference, uri or config.tracking.uri).resolve()
    return config.model_copy(update={"warm_start": str(folder)})


def progress_lines(quiet: bool) -> Callable[[str], None]:
    """Progress goes to the error stream, so that results can be piped."""
    return (lambda line: None) if quiet else (lambda line: click.echo(line, err=True))


def train_one(
    config: "ExperimentConfig",
    resume: Path | None,
    *,
    quiet: bool = False,
    extra_rankers: Any = None,
) -> dict[str, Any] | None:
    """Train, print the evaluation, register where the configuration names a model.

    Joins the other ranks where torchrun started several; None on all of them but the first.
    """
    from recsys.bundle.directory import Bundle
    from recsys.serving.registry import register as add_version
    from recsys.training.engine.ranks import join, leave
    from recsys.training.jobs.train import train as run
    from recsys.training.tracking.progress import Progress

    world = join(config.training.device)
    quiet = quiet or not world.is_first
    say = progress_lines(quiet)
    with Progress(config.training.epochs, metric=config.training.metric, quiet=quiet) as progress:
        result = run(
            config,
            resume=resume,
            listeners=(progress,),
            extra_rankers=extra_rankers,
            say=say,
            world=world,
        )
    leave(world)
    if result is None:
        return None
    outcome: dict[str, Any] = {
        "run_dir": str(result.run_dir),
        "run_id": result.run_id,
        "bundle": str(result.bundle),
        "model_id": result.bundle.name,
        "report": str(result.report),
        "metrics": metrics_of(result.evaluation),
    }
    name = config.tracking.model_name
    if config.tracking.enabled and name:
        bundle = Bundle.open(result.bundle)
        version = add_version(bundle, name, uri=config.tracking.uri, run_id=result.run_id)
        outcome["version"] = version
        say(f"registered models:/{name}/{version}")
    if not quiet:
        print_evaluation(result.evaluation)
    return outcome


def train_together(
    config: "ExperimentConfig", resume: Path | None, workers: int, *, quiet: bool
) -> int:
    """Start `workers` ranks of a run on this machine; return the exit code."""
    from recsys.core.errors import ConfigError
    from recsys.embeddings.sharded import check_shards
    from recsys.training.engine.launch import launch
    from recsys.training.jobs.train import check_metric, new_run_dir

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--workers starts ranks of its own: leave it away under torchrun")
    check_metric(config)
    check_shards(config.embedding, workers)
    run_dir = resume or new_run_dir(config)
    arguments = ("--json",) if quiet else ()
    return launch(run_dir, workers, arguments, say=progress_lines(False))


def wait_for_last_words(error: RuntimeError) -> int | None:
    """Return the exit code if `error` says no more than that another rank is gone, else None.

    Before that the rank that failed has time to report, and the agent to end this one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from recsys.training.engine.ranks import LAST_WORDS_SECONDS, LOST_PEER, peer_is_lost

    if not peer_is_lost(error):
        return None
    time.sleep(LAST_WORDS_SECONDS)
    return LOST_PEER


def metrics_of(evaluation: Any) -> dict[str, Any]:
    """Return an evaluation as plain numbers, by ranker; the model's own first.

    A ranker of labelled rows has its metrics on top, and those of the others by name.
    """
    if hasattr(evaluation, "flat"):
        return {n.removeprefix("test/"): value for n, value in evaluation.tracked().items()}
    return {name: result.metrics for name, result in evaluation.results.items()}


def score_users(
    model: str,
    output: Path,
    interactions: str | None,
    users: str | None,
    *,
    requests: str | None = None,
    others: dict[str, str] | None = None,
    k: int = 20,
    filter_seen: bool | None = None,
    probability: bool = False,
    rows_per_part: int = 10_000,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Recommend for the users of a log or for those who ask; return the summary.

    filter_seen: leave out what they have taken; None: as when the model was evaluated.
    """
    from recsys.serving.engines.batch import score_to_parquet
    from recsys.serving.recommend.scorer import Scorer

    scorer = Scorer.open(Path(model), k=k, filter_seen=filter_seen, probability=probability)
    shards = _shards(scorer, interactions, users, requests, others or {}, rows_per_part)
    summary = score_to_parquet(
        scorer, shards, output, on_part=lambda done, total: say(f"part {done} of {total}")
    )
    return dict(vars(summary))


def audience_of_new_items(
    model: str,
    new_items: str,
    output: Path,
    interactions: str | None,
    users: str | None,
    *,
    requests: str | None = None,
    others: dict[str, str] | None = None,
    top_customers: int = 100,
    rows_per_part: int = 10_000,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Say who will take items that the catalogue lacks, and how many; return the summary."""
    from recsys.serving.recommend.audience import read_new_items, score_new_items
    from recsys.serving.recommend.scorer import Scorer

    scorer = Scorer.open(Path(model), probability=True)
    side_of = {name: table.joins for name, table in scorer.schema.others.items()}
    given = others or {}
    of_items = {name: path for name, path in given.items() if side_of.get(name) == "items"}
    of_users = {name: path for name, path in given.items() if name not in of_items}
    new = read_new_items(scorer, {"items": new_items, **of_items})
    shards = _shards(scorer, interactions, users, requests, of_users, rows_per_part)
    summary = score_new_items(
        scorer,
        new,
        shards,
        output,
        top_customers=top_customers,
        on_part=lambda done, total: say(f"part {done} of {total}"),
    )
    return dict(vars(summary))


def _shards(
    scorer: Any,
    interactions: str | None,
    users: str | None,
    requests: str | None,
    others: dict[str, str],
    rows_per_part: int,
) -> Any:
    from recsys.features.tables.sources import Sources
    from recsys.serving.engines.batch import shards_of_log, shards_of_requests

    if requests is not None:
        return shards_of_requests(scorer, requests)
    assert interactions is not None
    sources = Sources(interactions=interactions, users=users, others=others)
    return shards_of_log(scorer, sources, rows_per_part=rows_per_part)


def score_labelled_rows(
    model: Path,
    rows: str,
    tables: dict[str, str],
    output: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Judge rows with a ranker; return the summary."""
    from recsys.serving.recommend.rows import RowScorer, score_rows

    scorer = RowScorer.open(model, tables)
    summary = score_rows(
        scorer, rows, output, on_part=lambda done, total: say(f"part {done} of {total}")
    )
    return dict(vars(summary))


def export_model(
    folder: Path,
    target: str,
    out: Path,
    min_recall: float,
    encoded: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Export a two-tower's vectors or index, or a ranker's graph; return what was measured.

    encoded: bits and repetitions, where items are to be written as encodings.
    """
    from recsys.core.errors import ConfigError
    from recsys.retrieval.index.registry import kinds_by_export

    if is_ranker(folder):
        if encoded is not None:
            raise ConfigError("--encoding fde is about vectors, and a ranker has none")
        if target != "onnx":
            raise ConfigError(f"--to {target}: a ranker has no vectors to search; give --to onnx")
        from recsys.serving.export.onnx_export import export_onnx

        return export_onnx(folder, out)
    if target == "onnx":
        raise ConfigError(
            "--to onnx is for rankers; a retrieval model goes --to parquet, or to an index: "
            f"{', '.join(kinds_by_export())}"
        )
    from recsys.serving.export.query_encoding import EncodingSize
    from recsys.serving.export.retrieval import export_index

    size = None if encoded is None else EncodingSize(*encoded)
    return export_index(folder, target, out, min_recall=min_recall, encoded=size)


def is_ranker(folder: Path) -> bool:
    """Whether the bundle in `folder` holds a ranker."""
    from recsys.bundle.directory import Bundle
    from recsys.models.rankers import RANKERS

    return Bundle.open(folder).manifest["facts"].get("kind") in RANKERS


def named_paths(options: tuple[str, ...]) -> dict[str, str]:
    """NAME=PATH options as a mapping."""
    for option in options:
        if "=" not in option:
            raise click.UsageError(f"--other {option}: expected NAME=PATH")
    return dict(option.split("=", 1) for option in options)


def print_evaluation(evaluation: Any) -> None:
    """Print the metrics of an evaluation as a table."""
    from recsys.training.families.ranker.evaluation import RankingEvaluation
    from recsys.training.reports.evaluation_table import evaluation_table, ranking_table

    if isinstance(evaluation, RankingEvaluation):
        ranking_table(evaluation)
    else:
        evaluation_table(evaluation)
