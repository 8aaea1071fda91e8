"""Reports with every section that there is, and names as long as people give them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from recsys.bundle.relevance import Relevance
from recsys.data.batch import FeatureLayout
from recsys.embeddings.diagnostics import Diagnosis, FeatureValues, diagnose
from recsys.embeddings.plan import EmbeddingPlan
from recsys.explanation.attention_maps import AttentionMaps
from recsys.explanation.explanations import Importance, Interactions
from recsys.metrics.classification import Interval, calibration
from recsys.metrics.intervals import Difference
from recsys.training.evaluation.comparison import ALL, ComparedModel, Comparison, Measured
from recsys.training.evaluation.cut_lists import ScoredLists, cut_lists
from recsys.training.evaluation.results import ColdItems
from recsys.training.explain.explanation import Explanation
from recsys.training.families.ranker.evaluation import (
    OutcomeResult,
    RankerResult,
    RankingEvaluation,
)
from recsys.training.reports.comparison import write_comparison
from recsys.training.reports.ranking import write_ranking_report
from tests.training.reports.test_report import KS, made_up, write

LONG = "last_seen_category_of_the_session_before_this_one"
FIELDS = ("item_id", "user_id", "price", "shop", LONG, "history", "hour_of_the_day", "brand")
FIELDS += ("device", "title", "city x hour_of_the_day")
FACTS = {"interactions": "60,000", f"interactions.{LONG}: infinite": "3 rows (null)"}
CONFIG = "data:\n  interactions: /a/" + "folder/" * 20 + "log.parquet\nmodel:\n  dim: 64\n"


def table() -> Diagnosis:
    """The diagnosis of a table of as many features as `FIELDS`."""
    torch.manual_seed(0)
    layout = FeatureLayout(tuple((name, 1 + len(name) % 3) for name in FIELDS), (), ())
    plan = EmbeddingPlan(num_rows=30_000, dim=8, layouts=(layout,))
    sizes = (20, 1200, 40_000, 7, 300, 4, 5000, 90, 11, 60, 2000)
    values = [
        FeatureValues(name, torch.randint(2**62, (size,)), torch.randint(1, 90_000, (size,)))
        for name, size in zip(FIELDS, sizes, strict=True)
    ]
    return diagnose(plan, values, torch.randn(30_000, 8))


def write_retrieval(path: Path) -> None:
    """Ten rankers, slices of all sides, cold items, an alarm, long titles and user ids."""
    base = made_up(120, 120)
    model, best = base.results["two_tower"], base.results["best_reachable"]
    more = {"item counts: 1,000+ rows": {"recall_at_20": 0.1, "queries": 3_000.0}}
    more |= {"sessions: 10-19 steps": {"recall_at_20": 0.2, "queries": 40_000.0}}
    cold = {f"cold_recall_at_{k}": 0.0123 for k in KS}
    cold |= {f"cold_alone_recall_at_{k}": 0.4567 for k in KS}
    names = ["session", "popularity", "popularity_recent", "item_knn", "session_items", "markov"]
    names += ["markov_10", "v_sknn", "attributes", "sasrec", "best_reachable"]
    results = {}
    for name in names:
        result = base.results.get(name, best if name == "best_reachable" else model)
        results[name] = replace(
            result,
            name=name,
            slices={**result.slices, **more},
            metrics={**result.metrics, **cold},
            intervals={**result.intervals, **dict.fromkeys(cold, (0.0, 0.5))},
        )
    measured = ("rankme", "alignment", "uniformity")
    history = [
        {"step": 200.0 * n, "epoch": n, **{f"validation/{m}": -30.0 + n for m in measured}}
        | {"loss": 9.0 - n, "loss/views": 1.0 + n}
        | {f"validation/{m}_at_20": n / 9 for m in ("recall", "hit_rate", "ndcg", "mrr")}
        for n in range(1, 8)
    ]
    rng = np.random.default_rng(0)
    places = ScoredLists(
        scores=-np.sort(-rng.normal(0, 1, (60, 20)).astype(np.float32)),
        hit=rng.random((60, 20)) < 0.1,
        crowds=np.zeros(60),
        num_steps=np.arange(60),
        num_seen=np.arange(60),
        num_relevant=np.full(60, 20),
    )
    evaluation = replace(
        base,
        results=results,
        cold=ColdItems(60, 123, trained=False),
        asked="events",
        representation={"rankme": 1.7, "uniformity": -0.1},
        ended=cut_lists(places, Relevance(1.0, -3.0, -3.5, k=20)),
        left_out={"ease": "a matrix of 90,000 x 90,000 items needs 64,800,000,000 bytes"},
    )
    items = len(base.train_counts)
    titles = [f"The title of the item number {row}, which goes on and on" for row in range(items)]
    write(
        path,
        evaluation,
        title="Session transformer",
        history=history,
        embedding=table(),
        facts=FACTS,
        config_text=CONFIG,
        item_titles=titles,
    )


def write_ranker(path: Path) -> None:
    """Five rankers, curves, calibration, attention among eleven fields, the embedding table."""
    rng = np.random.default_rng(0)
    wide = Interval(0.7654, 0.7512, 0.7798)
    metrics = {n: wide for n in ("auc", "log_loss", "relative_information_gain", "gauc")}
    metrics["ndcg_at_10"] = wide
    probability = rng.uniform(0.01, 0.9, 5000)
    label = (rng.random(5000) < probability).astype(np.float64)
    after, before = calibration(probability, label), calibration(probability**2, label)
    rankers = ("autoint", "logistic", "fm", "dcn", "mlp")
    results = {
        name: RankerResult(
            {n: replace(one, value=one.value - place / 99) for n, one in metrics.items()},
            after,
            None if place else before,
            name=name,
            less_auc=wide if place else None,
            outcomes={} if place else {"purchase": OutcomeResult(metrics, after, None, 1234, 0.05)},
        )
        for place, name in enumerate(rankers)
    }
    protocol = {"split": "by time: training before validation before test", "test rows": "5,000"}
    heads = rng.dirichlet(np.ones(len(FIELDS)), (2, 2, len(FIELDS)))
    falls = np.sort(rng.normal(0.01, 0.01, (3, len(FIELDS))))
    importance = Importance(FIELDS, 0.7654, 0.41, falls, falls)
    pairs = tuple((FIELDS[i], FIELDS[j]) for i in range(5) for j in range(i))
    write_ranking_report(
        path,
        title="AutoInt",
        config_text=CONFIG,
        evaluation=RankingEvaluation(protocol, results, 0.6931),
        history=[
            {"step": 100.0 * n, "epoch": n, "loss": 1 / n, "validation/auc": 0.7 + n / 99}
            for n in range(1, 9)
        ],
        facts={**FACTS, **protocol},
        embedding=table(),
        explanation=Explanation(
            "autoint",
            5000,
            importance,
            Interactions(pairs, rng.random(len(pairs))),
            AttentionMaps(FIELDS, heads, heads.mean((0, 1))),
        ),
    )


def write_compared(path: Path) -> None:
    """Write a comparison of four models of long names, beaten and doubted, with plain ones."""
    rng, metrics = np.random.default_rng(0), [f"{m}_at_{k}" for k in KS for m in ("recall", "ndcg")]
    metrics += [f"coverage_at_{k}" for k in KS]
    slices = [ALL, "items: head", "items: cold", "item counts: 1,000+ rows", "users: 20+ events"]
    slices += ["sessions: 10-19 steps"]

    def measured(is_first: bool) -> Measured:
        value, low, high = np.sort(rng.random(3))[[1, 0, 2]]
        less = None if is_first else Difference(value - 0.5, low - 0.5, high - 0.5)
        return Measured(Interval(value, low, high), less, 12_345)

    def model(number: int, name: str, model_id: str) -> ComparedModel:
        found = {
            name: {
                metric: measured(number == 0)
                for metric in (metrics if name == ALL else metrics[:1])
            }
            for name in slices
        }
        beaten = (
            ("popularity_recent", Difference(-0.01, -0.02, 0.003)) if number == 1 else (None, None)
        )
        return ComparedModel(name, "two_tower", model_id, found, *beaten)

    names = ["retail-recommendations-europe@champion", "session-20260101-120000", "shop/12", "x"]
    models = [model(number, name, f"{number}" * 16) for number, name in enumerate(names)]
    plain = [model(9, name, "") for name in ("popularity_recent", "session_items", "v_sknn")]
    write_comparison(
        path,
        Comparison(
            models=(*models, *plain),
            metric="ndcg_at_20",
            asked="users",
            protocol={"data": "/a/" + "folder/" * 20 + "recsys.yaml", "split": "global time split"},
            headline=("ndcg_at_20", "recall_at_20"),
            warnings=(f"{names[0]}: 12,345 of 50,000 test rows were training rows",),
            left_out={"ials": "the package implicit is not installed"},
        ),
    )
