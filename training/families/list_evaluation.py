"""What the evaluation of every family of models that give lists says and writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.embeddings.diagnostics import Diagnosis
from recsys.features.dataset.dataset import Dataset, drawn_validation
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.training.config.file import dump_config
from recsys.training.evaluation.results import Evaluation, NothingHeldOut
from recsys.training.families.held_out import ALL_ROWS, ON_VALIDATION
from recsys.training.families.plain.fallback import PlainRanker
from recsys.training.reports.showcase import examples, item_groups, item_titles


@dataclass(frozen=True)
class ListReport:
    """What a report shows: an evaluation, its queries (None: nothing was asked), and of what.

    config: of the experiment, of any family whose models give lists.
    """

    config: Any
    data: Dataset
    evaluation: Evaluation | NothingHeldOut
    queries: Queries | None


def with_fallbacks(
    evaluation: Evaluation, plain: Mapping[str, PlainRanker], queries: Queries
) -> Evaluation:
    """Return the evaluation with how many queries plain models answered by popularity alone."""
    fell_back = {name: int(one.fell_back(queries).sum()) for name, one in plain.items()}
    return replace(
        evaluation,
        fell_back={name: count for name, count in fell_back.items() if count},
        fallback=next((one.model.popular.words for one in plain.values()), "popularity"),
    )


def write_list_report(
    path: Path,
    title: str,
    about: ListReport,
    *,
    history: Sequence[Mapping[str, float]] = (),
    item_vectors: NDArray[np.float32] | None = None,
    embedding: Diagnosis | None = None,
) -> None:
    """Write the HTML report of an evaluation.

    Args:
        path: the file.
        title: what was trained.
        about: what is shown.
        history: points of the training's curves.
        item_vectors: (n_items, E), of models that have them.
        embedding: diagnostics of the table, of models that have one.
    """
    from recsys.training.reports.map import embedding_map
    from recsys.training.reports.retrieval import write_report
    from recsys.training.reports.unmeasured import write_unmeasured_report

    data, evaluation = about.data, about.evaluation
    shown: dict[str, Any] = {
        "title": title,
        "config_text": dump_config(about.config),
        "history": history,
        "facts": data_facts(data),
        "embedding": embedding,
    }
    titles, groups = item_titles(data), item_groups(data)
    if isinstance(evaluation, NothingHeldOut):
        item_map = None
        if item_vectors is not None:
            item_map = embedding_map(item_vectors, titles, groups, data.train_counts)
        write_unmeasured_report(path, evaluation=evaluation, item_map=item_map, **shown)
        return
    assert about.queries is not None, "an evaluation has queries"
    write_report(
        path,
        evaluation=evaluation,
        item_titles=titles,
        item_groups=groups,
        item_vectors=item_vectors,
        examples=examples(data, about.queries, evaluation),
        **shown,
    )


def data_facts(data: Dataset) -> dict[str, str]:
    """Describe how much data there is and what was left out."""
    facts = {
        "interactions": f"{len(data.tables.events):,}",
        "users": f"{data.num_users:,}",
        "items": f"{data.num_items:,}",
        "data fingerprint": data.tables.fingerprint,
    }
    for drop in data.tables.drops:
        facts[f"{drop.table}.{drop.column}: {drop.reason}"] = f"{drop.rows:,} rows ({drop.policy})"
    return facts


def protocol_of(config: Any, data: Dataset) -> dict[str, str]:
    """Return words on how the log was parted."""
    counts = [int((data.part == part).sum()) for part in (TRAIN, VALIDATION, TEST)]
    words = {
        "time": "global time split",
        "leave_one_out": "leave one out, each user's last row",
        "column": f"given by the column '{config.split.column}'",
        "none": ALL_ROWS,
    }[config.split.kind]
    if config.split.join_validation:
        words += "; validation rows trained on, too"
    if config.split.evaluated == VALIDATION:
        words += f"; {ON_VALIDATION}"
    sizes = "{:,} training, {:,} validation and {:,} test rows".format(*counts)
    drawn = drawn_validation(config.schema_, data.tables, config.split)
    return {"split": words, **({"validation": drawn} if drawn else {}), "rows": sizes}
