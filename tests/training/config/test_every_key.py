"""Every key of every configuration changes something that can be observed, or is refused.

The keys are those of the classes that parse the file, the features' own apart
(`tests/features/kinds/test_options.py`). Each is set to every other value that its type lists, or
to another one, and what comes of the experiment on a small shop has to differ: the rows that were
read and encoded, the weights and the curve of a training of few steps, the evaluation, the files
written. Or it is refused with a message that names the key.

`PROBES` holds what the type does not say: the value, what else has to be set, where to look. A key
without an effect that is not named there fails.
"""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from recsys.app.reference import Key, keys_of
from recsys.core.errors import ConfigError, UserError
from recsys.embeddings.backend import pick_backend
from recsys.embeddings.memory import check_memory
from recsys.embeddings.plan import EmbeddingPlan
from recsys.features.batches.rows import RankingLoader
from recsys.features.world.world import RetailWorld
from recsys.plain.saved import arrays_of
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints, LoopState, Trained
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import pick_device
from recsys.training.engine.warm_start import kept_optimizer_state
from recsys.training.families.family import Family, Given
from recsys.training.families.load import config_of
from recsys.training.families.plain.job import PlainJob
from recsys.training.families.plain.job import _evaluated as plain_evaluation
from recsys.training.families.ranker.evaluation import calibrator_of, evaluate_ranker, evaluation_of
from recsys.training.families.ranker.job import RankingJob
from recsys.training.families.registry import FAMILY_OF_KIND, family_of
from recsys.training.families.retrieval.contents import _index_request, describe
from recsys.training.families.retrieval.evaluating import evaluate_model
from recsys.training.families.retrieval.memory import fit_memory
from recsys.training.jobs.runs import new_run_dir

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]
BASE: Json = {
    "data.interactions": "log.parquet",
    "data.items": "items.parquet",
    "data.users": "users.parquet",
    "data.others": {"plots": "plots.parquet"},
    "schema.interactions": {
        "user": "user_id", "item": "item_id", "time": {"column": "timestamp", "unit": "s"},
    },
    "schema.items": {"key": "item_id"},
    "schema.users": {"key": "user_id"},
    "schema.others": {"plots": {"joins": "items", "key": "item_id"}},
    "schema.features": [
        {"name": "item_id", "table": "items", "kind": "categorical"},
        {"name": "brand", "table": "items", "kind": "categorical", "multiplicity": "auto"},
        {"name": "title", "table": "items", "kind": "text"},
        {"name": "price", "table": "items", "kind": "numeric"},
        {"name": "plot", "table": "plots", "kind": "categorical"},
        {"name": "user_id", "table": "users", "kind": "categorical"},
        {"name": "region", "table": "users", "kind": "categorical"},
        {"name": "device", "table": "interactions", "kind": "categorical"},
    ],
    "split.validation": 0.2,
    "split.test": 0.2,
    "embedding.num_rows": 256,
    "embedding.dim": 4,
    "embedding.backend": "torch",
    "training.batch_size": 96,
    "training.epochs": 1,
    "training.precision": "float32",
    "evaluation.bootstrap_samples": 5,
    "tracking.enabled": False,
}  # fmt: skip
LISTS: Json = {
    "model.dim": 8,
    "model.hidden": [8],
    "model.history_length": 6,
    "training.uniform_negatives": 8,
    "training.metric": "ndcg_at_5",
    "evaluation.ks": [5],
    "evaluation.baselines": ["popularity"],
}
LABEL: Json = {
    "model.hidden": [8],
    "evaluation.rankers": [],
    "schema.interactions.label": {"column": "click"},
}
COUNTED: Json = {
    "training.metric": "ndcg_at_5",
    "evaluation.ks": [5],
    "evaluation.baselines": ["popularity"],
}
COLUMNS = ["item_id", "user_id", "device", "brand"]
TITLE = {"name": "title", "table": "interactions", "kind": "text"}
STREAMED: Json = {
    **LABEL,
    "data.stream": True,
    "data.items": None,
    "data.users": None,
    "data.others": {},
    "schema.items": None,
    "schema.users": None,
    "schema.others": {},
    "schema.features": [
        *({"name": name, "table": "interactions", "kind": "categorical"} for name in COLUMNS),
        {**TITLE, "multiplicity": "auto"},
    ],
}
KINDS: dict[str, Json] = {
    "two_tower": LISTS,
    "session": {**LISTS, "training.batch_size": 16},
    "mlp": LABEL,
    "streamed": STREAMED,
    "item_knn": COUNTED,
}
"""What an experiment of each kind has set beside `BASE`; `streamed` is a ranker of a stream."""
OF_LEARNING = ("embedding.", "training.batch", "training.epochs", "training.precision")
"""What of `BASE` a plain model does not have."""


@dataclass(frozen=True)
class Probe:
    """base: what is set beside; other: what is set anew, empty: what the type gives.

    see: where to look, empty: where keys of its section act. elsewhere: the test file that sees
    it, as it takes more than a small shop.
    """

    base: Json = field(default_factory=dict)
    other: Json = field(default_factory=dict)
    see: str = ""
    elsewhere: str = ""


def flawed(policy: str, table: str = "interactions", **more: Any) -> Probe:
    """Return a probe of a policy, which reads a table with the flaw that it is for."""
    return Probe({**more, f"data.{table}": f"{policy}.parquet"})


SLOW = {"training.learning_rate": 1e-12, "embedding.learning_rate": 1e-12}
WHERE = {"column": "stars", "at_least": 2, "at_most": 4}


STARS: Json = {"column": "stars", "at_least": 3}


def bought(**outcome: Any) -> Json:
    """Return what has a ranker predict a further outcome."""
    outcomes = [{"name": "bought", "column": "bought", **outcome}]
    return {"model.kind": "shared_bottom", "schema.interactions.outcomes": outcomes}


def rated(*stars: int, **more: Any) -> Json:
    """Return what holds for some numbers of stars."""
    return {"column": "stars", "one_of": list(stars), **more}


EVENTS: Json = {"column": "stars", "weights": {"1": 1, "2": 2, "3": 1, "4": 1, "5": 1}}
OF_RELATIONS = "tests/features/relations/test_relations.py"
FOUR: Json = {**EVENTS, "weights": {"1": 1, "2": 2, "3": 1, "4": 1}}


def types(**changes: Any) -> Json:
    return {"schema.interactions.events": {**EVENTS, **changes}}


def targets(**changes: Any) -> Json:
    condition = {"column": "stars", "at_least": 2, "at_most": 4, **changes}
    return {"schema.interactions.targets": condition}


def log_with(**declared: Any) -> Json:
    return {
        "data.interactions": {"path": "log.parquet", **declared},
        "schema.interactions.weight": "w",
    }


def logs_with(**declared: Any) -> Json:
    one = log_with(**declared)
    return {**one, "data.interactions": [one["data.interactions"]]}


def where(**condition: Any) -> Json:
    return {"schema.interactions.where": [{**WHERE, **condition}]}


OF_FILES: Json = {"path": {}, "encoding": {"encoding": "cp1252"}, "delimiter": {"delimiter": ";"}}
"""What is declared of a table's files; the latter two are refused of Parquet."""
HALVES = "2023-08-01"
SHARES = {"split.validation": 0.1, "split.test": 0.1}
WITH_PLOTS = {name: BASE[name] for name in ("data.others", "schema.items", "schema.others")}
PROBES: dict[str, Probe] = {
    **{
        f"data.{table}.{key}": Probe(other={f"data.{table}": {"path": path, **declared}})
        for table, path in (
            ("interactions", "fewer.parquet"),
            ("items", "items_again.parquet"),
            ("users", "users_again.parquet"),
        )
        for key, declared in OF_FILES.items()
    },
    **{
        f"data.others.NAME.{key}": Probe(
            other={"data.others": {"plots": {"path": "plots_again.parquet", **declared}}}
        )
        for key, declared in OF_FILES.items()
    },
    **{
        f"data.interactions{several}.{key}": Probe(of(**before), of(**after))
        for several, of in (("", log_with), ("[]", logs_with))
        for key, before, after in (
            ("columns", {"columns": {"w": "stars"}}, {"columns": {"w": "bought_stars"}}),
            ("set", {"set": {"w": 1}}, {"set": {"w": 2}}),
        )
    },
    **{
        f"data.interactions[].{key}": Probe(
            other={"data.interactions": [{"path": "fewer.parquet", **declared}]}
        )
        for key, declared in OF_FILES.items()
    },
    "policies.unknown_events": Probe(
        {"schema.interactions.events": FOUR}, {"policies.unknown_events": "drop"}
    ),
    "schema.interactions.events.column": Probe(types(), types(column="bought_stars")),
    "schema.interactions.events.weights": Probe(
        types(), types(weights={**EVENTS["weights"], "1": 7})
    ),
    "schema.interactions.events.undo": Probe(
        types(**FOUR, undo={"5": "4"}), types(**FOUR, undo={"5": "3"})
    ),
    "schema.interactions.events.seen": Probe(types(seen=["5"]), types(seen=["4"]), "evaluated"),
    "schema.interactions.targets.column": Probe(targets(), targets(column="bought_stars")),
    "schema.interactions.targets.at_least": Probe(targets(), targets(at_least=3)),
    "schema.interactions.targets.at_most": Probe(targets(), targets(at_most=3)),
    "schema.interactions.targets.one_of": Probe(targets(), targets(one_of=[3])),
    "schema.interactions.label.one_of": Probe(
        {"schema.interactions.label": rated(5)}, {"schema.interactions.label": rated(4, 5)}
    ),
    "training.towards": Probe(targets(), {"training.towards": "rows"}),
    "training.history_gap_minutes": Probe(other={"training.history_gap_minutes": 1e6}),
    "policies.bad_ids": flawed("bad_ids"),
    "policies.float_ids": flawed("float_ids"),
    "policies.duplicate_keys": flawed("duplicate_keys", "items"),
    "streamed: policies.duplicate_keys": Probe(other={"policies.duplicate_keys": "first"}),
    "policies.duplicate_events": flawed("duplicate_events"),
    "policies.unknown_items": flawed("unknown_items"),
    "policies.unknown_users": flawed("unknown_users"),
    "policies.bad_times": flawed("bad_times"),
    "policies.infinite_numbers": flawed(
        "infinite_numbers", **{"schema.interactions.weight": "weight"}
    ),
    "policies.latest_time": Probe(
        {"policies.bad_times": "drop"}, {"policies.latest_time": "2023-10-01"}
    ),
    "schema.interactions.user": Probe(other={"schema.interactions.user": "session_id"}),
    "schema.interactions.item": Probe(other={"schema.interactions.item": "other_item"}),
    "schema.interactions.label.column": Probe(
        {"schema.interactions.label": {"column": "click"}},
        {"schema.interactions.label": {"column": "bought"}},
    ),
    "schema.interactions.label.at_least": Probe(
        {"schema.interactions.label": {"column": "stars", "at_least": 3}},
        {"schema.interactions.label": {"column": "stars", "at_least": 4}},
    ),
    **{
        f"{kind}schema.interactions.outcomes[].{key}": Probe(
            bought(**before) if kind else {}, bought(**after), see
        )
        for kind in ("mlp: ", "streamed: ", "")
        for key, before, after, see in (
            ("column", {}, {"column": "click"}, ""),
            ("at_least", STARS, {**STARS, "at_least": 4}, ""),
            ("name", {}, {"name": "purchase"}, "evaluated"),
            ("weight", {}, {"weight": 0.5}, "trained"),
            ("one_of", rated(5), rated(4, 5), ""),
        )
    },
    "schema.interactions.time.column": Probe(
        other={"schema.interactions.time": {"column": "later", "unit": "s"}}
    ),
    **{
        f"schema.ids.{side}.pad": Probe(other={"schema.ids": {side: {"pad": 9}}})
        for side in ("items", "users")
    },
    **{
        f"schema.ids.{side}.prefix": Probe(elsewhere="tests/features/tables/test_id_forms.py")
        for side in ("items", "users")
    },
    **{
        f"schema.relations.NAME.{key}": Probe(
            elsewhere="tests/features/relations/test_relations.py"
        )
        for key in ("keys", "id", "time.column", "time.unit", "time.format", "time.zone")
    },
    "schema.interactions.time.format": Probe(
        {"schema.interactions.time": {"column": "dated", "format": "%d.%m.%Y %H:%M"}},
        {"schema.interactions.time": {"column": "dated", "format": "%m.%d.%Y %H:%M"}},
    ),
    "schema.interactions.time.zone": Probe(
        {"schema.interactions.time": {"column": "naive", "unit": "datetime"}},
        {"schema.interactions.time": {"column": "naive", "unit": "datetime", "zone": "Asia/Tokyo"}},
    ),
    "schema.interactions.time.unit": Probe(
        other={"schema.interactions.time": {"column": "timestamp", "unit": "ms"}}
    ),
    "schema.interactions.order": Probe(
        {"schema.interactions.time": None, "schema.interactions.order": "place"},
        {"schema.interactions.order": "backwards"},
    ),
    "schema.interactions.weight": Probe(other={"schema.interactions.weight": "stars"}),
    "schema.interactions.session": Probe(other={"schema.interactions.session": "session_id"}),
    "streamed: schema.interactions.session": Probe(
        {"policies.bad_ids": "drop"}, {"schema.interactions.session": "some_session"}
    ),
    "streamed: schema.interactions.order": Probe(
        {
            "policies.bad_times": "drop",
            "schema.interactions.time": None,
            "schema.interactions.order": "place",
        },
        {"schema.interactions.order": "some_place"},
    ),
    "streamed: schema.interactions.item": Probe(
        {"policies.bad_ids": "drop"}, {"schema.interactions.item": "some_session"}
    ),
    "streamed: schema.others.NAME.key": Probe(other=WITH_PLOTS),
    "streamed: schema.others.NAME.joins": Probe(other=WITH_PLOTS),
    "streamed: schema.interactions.time.zone": Probe(  # of its time only the order counts
        {
            "schema.interactions.time": {"column": "naive", "unit": "datetime"},
            "policies.latest_time": "2023-03-14T10:00:00",
            "policies.bad_times": "drop",
        },
        {"schema.interactions.time": {"column": "naive", "unit": "datetime", "zone": "Asia/Tokyo"}},
    ),
    "streamed: schema.interactions.time.column": Probe(
        other={"schema.interactions.time": {"column": "other_time", "unit": "s"}}
    ),
    "schema.interactions.where[].column": Probe(where(), where(column="bought_stars")),
    "schema.interactions.where[].at_least": Probe(where(), where(at_least=3)),
    "schema.interactions.where[].at_most": Probe(where(), where(at_most=3)),
    "schema.interactions.where[].one_of": Probe(where(), where(one_of=[3])),
    **{
        f"schema.{table}.{key}": Probe(elsewhere="tests/features/tables/test_csv_files.py")
        for table in ("interactions", "items", "users", "others.NAME")
        for key in ("decimal", "thousands")
    },
    "schema.items.key": Probe(other={"schema.items": {"key": "other_item"}}),
    "schema.items.title": Probe(other={"schema.items": {"key": "item_id", "title": "title"}}),
    "schema.users.key": Probe(other={"schema.users": {"key": "other_user"}}),
    "schema.others.NAME.joins": Probe(
        other={"schema.others": {"plots": {"joins": "users", "key": "item_id"}}}
    ),
    "schema.others.NAME.key": Probe(
        other={"schema.others": {"plots": {"joins": "items", "key": "other_item"}}}
    ),
    "split.validation_from": Probe(
        {**SHARES, "split.validation_from": HALVES, "split.test_from": "2023-10-01"},
        {"split.validation_from": "2023-09-01"},
    ),
    "split.test_from": Probe(
        {**SHARES, "split.validation_from": HALVES, "split.test_from": "2023-10-01"},
        {"split.test_from": "2023-11-01"},
    ),
    "split.kind": Probe(SHARES, {"split.kind": "leave_one_out"}),
    "split.column": Probe(
        {**SHARES, "split.kind": "column", "split.column": "part"},
        {"split.column": "other_part"},
    ),
    "split.cold_items.share": Probe(
        {"split.cold_items": {"share": 0.3}}, {"split.cold_items.share": 0.6}
    ),
    "split.cold_items.seed": Probe({"split.cold_items": {"share": 0.3}}),
    "split.cold_items.removed": Probe({"split.cold_items": {"share": 0.3}}),
    "split.cold_items.from": Probe(
        {"split.cold_items": {"from": HALVES}}, {"split.cold_items.from": "2023-03-01"}
    ),
    "embedding.groups.NAME.num_rows": Probe(
        {"embedding.groups": {"own": {"num_rows": 8, "features": ["brand"]}}},
        {"embedding.groups.own.num_rows": 9},
    ),
    "embedding.groups.NAME.features": Probe(
        {"embedding.groups": {"own": {"num_rows": 8, "features": ["brand"]}}},
        {"embedding.groups.own.features": ["device"]},
    ),
    "embedding.lookups": Probe(other={"embedding.lookups": 5}),
    "embedding.betas": Probe(
        {"embedding.optimizer": "row_wise_adam"}, {"embedding.betas": [0.5, 0.9]}
    ),
    "embedding.eps": Probe(other={"embedding.eps": 0.5}),
    "embedding.backend": Probe(see="kernel"),
    "embedding.max_memory_mib": Probe(
        {"embedding.num_rows": 1 << 20}, {"embedding.max_memory_mib": 1}, "memory"
    ),
    "training.warmup_steps": Probe(
        {"training.batch_size": 8, "training.epochs": 2}, {"training.warmup_steps": 1}
    ),
    "training.clip_norm": Probe(other={"training.clip_norm": 1e-6}),
    "training.patience": Probe({**SLOW, "training.epochs": 5}, {"training.patience": 1}),
    "training.batch_size": Probe(other={"training.batch_size": 13}),
    "training.checkpoint_every": Probe(other={"training.checkpoint_every": 1}),
    "training.precision": Probe(other={"training.precision": "bfloat16"}),
    "training.device": Probe({"training.device": "cpu"}, {"training.device": "cuda"}, "device"),
    "training.max_validation_queries": Probe(other={"training.max_validation_queries": 3}),
    "warm_start": Probe(elsewhere="tests/training/engine/test_warm_start.py"),
    "compatible_with": Probe(elsewhere="tests/training/families/retrieval/test_meeting.py"),
    **{
        f"relevance.{key}": Probe(elsewhere="tests/training/families/retrieval/test_relevance.py")
        for key in ("keep_recall", "precision", "k", "map")
    },
    "compatible_share": Probe(elsewhere="tests/training/families/retrieval/test_meeting.py"),
    "final": Probe(elsewhere="tests/recsys/app/test_final.py"),
    "tune": Probe(elsewhere="tests/training/search/test_space.py"),
    "tracking.enabled": Probe(elsewhere="tests/training/tracking/test_tracking.py"),
    "tracking.uri": Probe(elsewhere="tests/training/tracking/test_tracking.py"),
    "tracking.experiment": Probe(elsewhere="tests/training/tracking/test_tracking.py"),
    "tracking.model_name": Probe(elsewhere="tests/recsys/app/test_end_to_end.py"),
    "output": Probe(other={"output": "elsewhere"}, see="folder"),
    "cache": Probe(other={"cache": "cache"}, see="kept"),
    "evaluation.bootstrap_samples": Probe(other={"evaluation.bootstrap_samples": 7}),
    "evaluation.ks": Probe(other={"evaluation.ks": [5, 6]}),
    "evaluation.baselines": Probe(other={"evaluation.baselines": ["item_knn"]}),
    "evaluation.rankers": Probe(other={"evaluation.rankers": ["logistic"]}),
    "evaluation.popularity_window_days": Probe(
        {"evaluation.baselines": ["popularity_recent"]}, {"evaluation.popularity_window_days": 3}
    ),
    "evaluation.ease_max_items": Probe(
        {"evaluation.baselines": ["ease"]}, {"evaluation.ease_max_items": 3}
    ),
    "evaluation.max_queries": Probe(other={"evaluation.max_queries": 3}),
    "keep_optimizer_state": Probe(see="state"),
    "index.kind": Probe(other={"index.kind": "hnsw"}, see="index"),
    "index.min_recall": Probe(see="index"),
    "index.threads": Probe(see="index"),
    "session: training.warmup_steps": Probe(
        {"training.batch_size": 2, "training.epochs": 2}, {"training.warmup_steps": 1}
    ),
    "calibration": Probe({"split.validation": 0.4}, see="evaluated"),
    "model[autoint].dropout": Probe(
        {"model.kind": "autoint", "model.hidden": [8]}, {"model.dropout": 0.5}
    ),
    "model[finalmlp].hidden": Probe(
        {"model.kind": "finalmlp", "model.hidden": [8]}, {"model.hidden": [16]}
    ),
    "model[finalmlp].second_hidden": Probe(
        {"model.kind": "finalmlp", "model.second_hidden": [8]}, {"model.second_hidden": [16]}
    ),
    "model[finalmlp].heads": Probe({"model.kind": "finalmlp"}, {"model.heads": 4}),
    "model.kind": Probe(other={"model.kind": "fm", "model.hidden": None}),
    "training.metric": Probe(other={"training.metric": "recall_at_5"}),
    "model.hidden": Probe(other={"model.hidden": [9]}),
    "model.repeats": Probe(
        {"model.repeats": False, "evaluation.filter_seen": False}, see="evaluated"
    ),
    "model.memory.kind": Probe(see="evaluated"),
    **{
        f"model.memory.{key}": Probe(other={f"model.memory.{key}": value}, see="evaluated")
        for key, value in (
            ("weight", 30.0),
            ("steps", 1),
            ("lag_decay", 0.01),
            ("decay", 0.01),
            ("shrinkage", 0.0),
            ("cells", 1),
            ("scale", 0.01),
            ("new_items", 50.0),
        )
    },
    "model.smoothing.rounds": Probe(other={"model.smoothing.rounds": 1}),
    "model.smoothing.weight": Probe({"model.smoothing.rounds": 1}),
    "training.positives": Probe({"training.examples": "users"}, {"training.positives": 2}),
    "training.cut_history": Probe({"training.examples": "users"}),
    "training.hard_negatives.count": Probe(other={"training.hard_negatives.count": 2}),
    "training.hard_negatives.every": Probe(
        {"training.hard_negatives.count": 2}, {"training.hard_negatives.every": 1}
    ),
    "training.self_supervision.batch_size": Probe(
        other={"training.self_supervision.batch_size": 8}
    ),
    "training.session.attributes[].feature": Probe(
        {"training.session.attributes": [{"feature": "brand"}]},
        {"training.session.attributes": [{"feature": "plot"}]},
    ),
    "training.session.attributes[].weight": Probe(
        {"training.session.attributes": [{"feature": "brand"}]},
        {"training.session.attributes": [{"feature": "brand", "weight": 2}]},
    ),
    "training.session.learn_task_weights": Probe(
        {"training.session.attributes": [{"feature": "brand"}]}
    ),
    "training.session.self_supervision.masked_items.share": Probe(
        other={"training.session.self_supervision.masked_items.share": 0.6}
    ),
    "training.session.self_supervision.masked_attributes.share": Probe(
        other={"training.session.self_supervision.masked_attributes.share": 0.6}
    ),
    "training.session.self_supervision.contrastive.reorder": Probe(
        other={"training.session.self_supervision.contrastive.reorder": 0.9}
    ),
    "training.session.self_supervision.masked_attributes.features": Probe(
        other={"training.session.self_supervision.masked_attributes.features": ["plot"]}
    ),
    "sessions.inactivity_minutes": Probe(other={"sessions.inactivity_minutes": 30}),
    "streamed: training.negatives": Probe(other={"training.negatives": 1}),
    "session: model.dim": Probe(other={"model.dim": 16}),
    "model.transformer.num_heads": Probe(other={"model.transformer.num_heads": 4}),
    "training.negatives": Probe(
        {"schema.interactions.label": None, "training.negatives": 1}, {"training.negatives": 2}
    ),
    "data.stream": Probe(elsewhere="tests/training/families/ranker/test_job.py"),
    "item_knn: training.seed": Probe({"training.max_validation_queries": 3}, {"training.seed": 1}),
    "item_knn: training.metric": Probe(other={"training.metric": "recall_at_5"}, see="evaluated"),
    "item_knn: sessions.inactivity_minutes": Probe(
        {"sessions": {}}, {"sessions": {"inactivity_minutes": 10.0}}
    ),
    "item_knn: evaluation.queries": Probe({"sessions": {}}, {"evaluation.queries": "events"}),
    "model[popularity].window_days": Probe(
        {"model.kind": "popularity"}, {"model.window_days": 2.0}
    ),
    "model[item_knn].neighbours": Probe({"model.kind": "item_knn"}, {"model.neighbours": 2}),
    "model[ease].max_items": Probe({"model.kind": "ease"}, {"model.max_items": 3}),
    "model[gf_cf].rank": Probe({"model.kind": "gf_cf"}, {"model.rank": 2}),
    "model[cheby_cf].rank": Probe({"model.kind": "cheby_cf"}, {"model.rank": 2}),
    "model[v_sknn].recent": Probe({"model.kind": "v_sknn"}, {"model.recent": 1}),
}
"""By key, or by kind and key, which goes first."""
AMONG: dict[str, Json] = {
    "model.memory.": {"model.memory.kind": "pairs", "model.memory.weight": 5.0},
    "training.self_supervision.": {
        "training.self_supervision.kind": "contrastive",
        "training.self_supervision.weight": 1.0,
    },
    "streamed: training.self_supervision.": {"training.self_supervision.views": "row"},
    "training.session.self_supervision.masked_items.": {
        "training.session.self_supervision.masked_items.weight": 1.0
    },
    "training.session.self_supervision.masked_attributes.": {
        "training.session.self_supervision.masked_attributes": {
            "weight": 1.0,
            "features": ["brand"],
        }
    },
    "training.session.self_supervision.contrastive.": {
        "training.session.self_supervision.contrastive.weight": 1.0
    },
}
"""What has to be on for the keys of a section to act."""
SEEN_AT = {
    "data": "data",
    "policies": "data",
    "schema": "data",
    "split": "data",
    "sessions": "data",
    "evaluation": "evaluated",
}


@cache
def keys_in(family: Family[Any]) -> tuple[Key, ...]:
    """Return the keys of a family's experiments that hold no other keys."""
    found = [key for key in keys_of(family.experiment) if not key.name.startswith("schema.feat")]
    sections = {
        key.name[: place.start()] for key in found for place in re.finditer(r"[.\[]", key.name)
    }
    return tuple(key for key in found if key.name not in sections)


def cases() -> Iterator[tuple[str, Key]]:
    """Yield every key with each kind that has it; models are alike, streamed or not."""
    for kind in KINDS:
        for key in keys_in(FAMILY_OF_KIND["mlp" if kind == "streamed" else kind]):
            if kind != "streamed" or not key.name.startswith(("model", "embedding.", "tracking.")):
                yield kind, key


def probes_of(kind: str, key: Key) -> list[Probe]:
    """Return what is set and where it is looked for, for each other value of the key."""
    probe = PROBES.get(f"{kind}: {key.name}", PROBES.get(key.name, Probe()))
    base: Json = {}
    for prefix, switched_on in AMONG.items():
        if prefix in f"{kind}: {key.name}":
            base |= switched_on

    base |= probe.base
    name = key.name
    if "[" in name and not probe.other:  # a member of a union: model[dcn].hidden
        head, _, rest = name.partition("[")
        member, _, last = rest.partition("].")
        base |= {f"{head}.kind": member}
        name = f"{head}.{last}"
        if head == "model":
            base["model.hidden"] = None
    see = probe.see or SEEN_AT.get(name.split(".")[0], "trained")
    if probe.other or probe.elsewhere:
        return [replace(probe, base=base, see=see)]
    usual = None if key.default == "(none)" else yaml.safe_load(key.default.strip("`"))
    others = others_of(key, {**BASE, **KINDS[kind], **base}.get(name, usual))
    assert others, f"{key.name}: what other value has it ({key.type}, {key.default})?"
    return [replace(probe, base=base, other={name: other}, see=see) for other in others]


def others_of(key: Key, value: Any) -> list[Any]:
    """Return other values of a key that its type allows."""
    if "`" in key.type:
        found: list[Any] = re.findall("`([^`]+)`", key.type)
        found += [True, False] if "true or false" in key.type else []
        return [one for one in found if one != value]
    if key.type == "true or false":
        return [not value]
    if key.type.startswith("whole number") and value is not None:
        return [value + 1]
    if key.type.startswith("number") and value is not None:
        return [value / 2 if value else 0.5]
    if key.type.startswith("list of whole number"):
        return [[7]]
    return []


FLAWS: dict[str, Callable[[Json], Json]] = {
    "bad_ids": lambda log: log | {"device": log["device"], "item_id": [None, *log["item_id"][1:]]},
    "float_ids": lambda log: log | {"item_id": [float(one) for one in log["item_id"]]},
    "duplicate_keys": lambda items: {
        name: [values[0], *values] if name == "item_id" else [values[-1], *values]
        for name, values in items.items()
    },
    "duplicate_events": lambda log: {n: [values[0], *values] for n, values in log.items()},
    "unknown_items": lambda log: log | {"item_id": [77, *log["item_id"][1:]]},
    "unknown_users": lambda log: log | {"user_id": [777, *log["user_id"][1:]]},
    "bad_times": lambda log: log | {"timestamp": [None, *log["timestamp"][1:]]},
    "infinite_numbers": lambda log: log | {"weight": [np.inf, *log["weight"][1:]]},
}
"""Policy -> what it is for."""


def _tables() -> dict[str, Json]:
    """Return the tables of a small shop by name, ids being whole numbers."""
    world, rng = (
        RetailWorld.create(seed=1, users=30, items=25, events=240),
        np.random.default_rng(0),
    )
    log, items, users = (
        table.to_pydict() for table in (world.interactions, world.items, world.users)
    )
    for table in (log, items, users):
        for name in ("item_id", "user_id", "session_id"):
            if name in table:
                table[name] = [int(one[1:]) for one in table[name]]
    count = len(log["item_id"])
    log["stars"] = rng.integers(1, 6, count).tolist()
    log["bought_stars"] = rng.integers(1, 6, count).tolist()
    log["click"] = rng.integers(0, 2, count).tolist()
    log["bought"] = rng.integers(0, 2, count).tolist()
    log["weight"] = rng.random(count).tolist()
    log["brand"] = [items["brand"][one] for one in log["item_id"]]
    log["title"] = [items["title"][one] for one in log["item_id"]]
    log["other_item"] = rng.integers(0, 25, count).tolist()
    log["later"] = [one + 86_400 * k for k, one in enumerate(log["timestamp"])]
    log["some_session"] = [None, *log["session_id"][1:]]
    log["other_time"] = log["timestamp"][::-1]
    log["naive"] = [datetime.fromtimestamp(one, UTC).replace(tzinfo=None) for one in log["later"]]
    log["dated"] = [f"{1 + k % 12:02d}.{1 + k % 11:02d}.2023 10:{k % 60:02d}" for k in range(count)]
    log["place"] = list(range(count))
    log["some_place"] = [None, *log["place"][1:]]
    log["backwards"] = list(range(count, 0, -1))
    for name, cuts in (("part", (140, 190)), ("other_part", (150, 200))):
        log[name] = [
            "train" if k < cuts[0] else "valid" if k < cuts[1] else "test" for k in range(count)
        ]
    items["other_item"] = items["item_id"][::-1]
    users["other_user"] = users["user_id"][::-1]
    plots = {
        "item_id": items["item_id"],
        "other_item": items["item_id"][::-1],
        "plot": [f"plot {k % 4}" for k in items["item_id"]],
    }
    return {"log": log, "items": items, "users": users, "plots": plots}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the shop, and beside each table another one and those with flaws."""
    folder = tmp_path_factory.mktemp("shop")
    tables = _tables()
    log, items, users, plots = tables.values()
    tables["fewer"] = {name: values[:230] for name, values in log.items()}
    tables["items_again"] = items | {"brand": items["brand"][::-1]}
    tables["users_again"] = users | {"region": users["region"][::-1]}
    tables["plots_again"] = plots | {"plot": [*plots["plot"][1:], "plot 9"]}
    for flaw, spoil in FLAWS.items():
        tables[flaw] = spoil(items if flaw == "duplicate_keys" else log)
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def configured(kind: str, shop: Path, *settings: Json) -> ExperimentConfig:
    """Return the configuration with `settings` laid over what the kind has."""
    raw: Json = {
        "model": {"kind": "mlp" if kind == "streamed" else kind},
        "output": str(shop / "runs"),
    }
    for key, value in {**BASE, **KINDS[kind]}.items():
        if KINDS[kind] is not COUNTED or not key.startswith(OF_LEARNING):
            _set(raw, key, deepcopy(value))
    for one in settings:
        for key, value in one.items():
            _set(raw, key, str(shop / value) if key in ("cache", "output") else deepcopy(value))
    return config_of(raw, source="shop", folder=shop)


def _set(raw: Json, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {})
    if value is None and parents[:1] == ["model"]:
        raw.pop(last, None)
    else:
        raw[last] = value


class _Recording(Checkpoints):
    """Knows at which steps it saved."""

    def save(self, trained: Trained, state: LoopState) -> None:
        self.saved.append(state.global_step)
        self.trained = trained

    def load_latest(self, trained: Trained) -> None:
        self.saved: list[int] = []

    def load(self, trained: Trained, step: int) -> None:
        self.saved.append(-step)


class Laboratory:
    """Observes experiments; data that are alike are read once."""

    def __init__(self, shop: Path) -> None:
        self.shop = shop
        self._jobs: dict[str, Any] = {}
        self._seen: dict[tuple[str, str], Any] = {}

    def observe(self, config: ExperimentConfig, see: str) -> Any:
        key = (config.model_dump_json(), see)
        if key not in self._seen:
            self._seen[key] = getattr(self, f"_{see}")(config)
        return self._seen[key]

    def job(self, config: Any) -> Any:
        tree = config.model_dump(mode="json", by_alias=True)
        parts = ("data", "policies", "schema", "split", "sessions", "cache", "output")
        lookups = None if "embedding" not in tree else config.embedding.lookups
        key = repr([type(config), lookups, *(tree.get(name) for name in parts)])
        if key not in self._jobs:
            family: Any = family_of(config)
            self._jobs[key] = family.open(config, Given())
        return self._jobs[key].under(config)

    def _data(self, config: ExperimentConfig) -> Any:
        job: Any = self.job(config)
        if hasattr(job, "reading"):
            return plain([job.reading.data, job.reading.sessions])
        if isinstance(job.rows.loader, RankingLoader):
            return plain(job.rows.loader.data)
        return plain(
            [job.rows.drops]
            + [list(job.rows.loader.ordered(k, 64)) for k in range(3)]
            + [job.rows.loader.users(2)]
        )

    def _trained(self, config: Any) -> Any:
        family_of(config).check(config)
        job = self.job(config)
        if isinstance(job, PlainJob):
            model = job.fit(self.shop)
            return plain([arrays_of(model.fitted), model.popular, job.validate(model)])
        task = job.task()
        checkpoints = _Recording(self.shop / "checkpoints")
        state = fit(task, config.training, checkpoints)
        trained = checkpoints.trained
        history = [
            {name: one for name, one in point.items() if name != "examples_per_second"}
            for point in state.history
        ]
        return plain(
            [
                (trained.tensors(), trained.table.weight, trained.table.state),
                (history, state.best_metric, checkpoints.saved),
            ]
        )

    def _evaluated(self, config: ExperimentConfig) -> Any:
        job: Any = self.job(config)
        if isinstance(job, PlainJob):
            return plain(plain_evaluation(job.reading, job.fit(self.shop)))
        model = job.task().trained.model
        if isinstance(job, RankingJob):
            own = evaluate_ranker(config, job.rows, model, calibrator_of(config, job.rows, model))
            return plain(evaluation_of(config, own, *job._others(self.shop / "beside")))
        found = evaluate_model(job.reading, model, fitted=fit_memory(job.reading, model))
        return plain([found, job.reading.probability(model)])

    def _state(self, config: Any) -> Any:
        return plain(kept_optimizer_state(config, self.job(config).task().trained.model))

    def _index(self, config: Any) -> Any:
        job: Any = self.job(config)
        vectors = torch.zeros(job.reading.data.num_items, config.model.dim)  # type: ignore[attr-defined]
        described = describe(job.reading, "space")
        asked = _index_request(job.config, job.reading.data, vectors, vectors, described)
        return (asked.kind, asked.min_recall, asked.threads)

    def _kernel(self, config: Any) -> Any:
        job = self.job(config)
        plan = EmbeddingPlan.of(config.embedding, job.layouts)
        return str(pick_backend(config.embedding, plan, batch_size=8, device=torch.device("cpu")))

    def _memory(self, config: Any) -> Any:
        return check_memory(config.embedding, 1 << 40)

    def _device(self, config: Any) -> Any:
        return str(pick_device(config.training.device))

    def _folder(self, config: ExperimentConfig) -> Any:
        return str(new_run_dir(config).parent)

    def _kept(self, config: ExperimentConfig) -> Any:
        family: Any = family_of(config)
        family.open(config, Given())
        return None if config.cache is None else len(list(Path(config.cache).iterdir()))


def plain(value: Any) -> Any:
    """Return what is equal where `value` is."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return (
            str(value.dtype),
            value.shape,
            value.tobytes() if value.dtype != object else repr(value),
        )
    if isinstance(value, pa.Table):
        return repr(value.to_pydict())
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return repr(value)


@pytest.fixture(scope="module")
def laboratory(shop: Path) -> Laboratory:
    return Laboratory(shop)


def outcome(laboratory: Laboratory, kind: str, see: str, *settings: Json) -> Any:
    """Return what is observed, or the error that refuses it."""
    try:
        return laboratory.observe(configured(kind, laboratory.shop, *settings), see)
    except UserError as error:
        return error


CASES = list(cases())


@pytest.mark.parametrize(("kind", "key"), CASES, ids=[f"{kind}: {key.name}" for kind, key in CASES])
def test_a_key_changes_something_or_is_refused(kind: str, key: Key, laboratory: Laboratory) -> None:
    for probe in probes_of(kind, key):
        if probe.elsewhere:
            assert (ROOT / probe.elsewhere).is_file()
            continue
        before = outcome(laboratory, kind, probe.see, probe.base)
        after = outcome(laboratory, kind, probe.see, probe.base, probe.other)
        if isinstance(after, ConfigError):
            assert any(part in str(after) for part in key.name.split(".")[1:] or [key.name])
            continue
        assert not isinstance(before, ConfigError), before
        one, other = (
            repr(seen) if isinstance(seen, UserError) else seen for seen in (before, after)
        )
        assert one != other, f"{probe.other} changes nothing beside {probe.base}"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("two_tower", {"training.positives": 3}, "training.positives is about whole users"),
        (
            "session",
            {"training.loss": "full_softmax", "training.session.frequent_negatives": 3},
            "frequent_negatives: full_softmax has the whole catalogue",
        ),
        (
            "mlp",
            {
                "schema.interactions.label": None,
                "training.negatives": 2,
                "training.negative_rate": 0.5,
            },
            "training.negative_rate is a share of a log's negative rows",
        ),
        (
            "mlp",
            {"embedding.optimizer": "sgd", "embedding.eps": 0.1},
            "embedding: eps is added to a denominator, and optimizer: sgd has none",
        ),
        (
            "mlp",
            {"embedding.optimizer": "adagrad", "embedding.betas": [0.5, 0.9]},
            "embedding: betas are for optimizer: adam or row_wise_adam, and it is adagrad",
        ),
        (
            "mlp",
            {"embedding.lookups": 4, "schema.features": BASE["schema.features"][2:4]},
            "embedding.lookups is shared out among the features of multiplicity: auto",
        ),
        ("mlp", {"split.kind": "leave_one_out"}, "split: validation is a share of the rows"),
        (
            "mlp",
            {"split.kind": "column", "split.column": "part"},
            "split: test is a share of the rows, and the column 'part' says",
        ),
        (
            "mlp",
            {"split.validation_from": HALVES, "split.test_from": "2023-10-01"},
            "split: validation is a share of the rows, and validation_from and test_from say",
        ),
        (
            "mlp",
            {
                **SHARES,
                "split.kind": "leave_one_out",
                "split.validation_from": HALVES,
                "split.test_from": "2023-10-01",
            },
            "split: validation_from is an instant, and split.kind: leave_one_out does not",
        ),
        (
            "two_tower",
            {"split.cold_items": {"from": HALVES, "seed": 2}},
            "split.cold_items: seed is of the share that is drawn",
        ),
        ("streamed", {"training.id_dropout": 0.3}, "training.id_dropout is about the ids of"),
    ],
)
def test_what_another_setting_leaves_without_effect_is_refused(
    kind: str, settings: Json, message: str, laboratory: Laboratory
) -> None:
    found = outcome(laboratory, kind, "data", settings)
    assert isinstance(found, ConfigError)
    assert message in str(found)


def test_a_stream_whose_share_of_dropped_ids_is_not_given_drops_none(shop: Path) -> None:
    assert configured("streamed", shop).training.id_dropout == 0
    assert configured("streamed", shop, {"training.id_dropout": 0.0}).training.id_dropout == 0
    assert configured("mlp", shop).training.id_dropout == 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_alike_is_observed_alike(kind: str, shop: Path) -> None:
    for see in ("data", "trained", "evaluated"):
        first, again = (outcome(Laboratory(shop), kind, see) for _ in range(2))
        assert not isinstance(first, UserError)
        assert first == again


def test_what_is_named_is_a_key() -> None:
    known = {key.name for _, key in CASES}
    assert {name.split(": ")[-1] for name in PROBES} <= known
