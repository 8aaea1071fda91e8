"""Rankers compared: each scores the same labelled rows.

AUC and log loss are resampled by rows, the metrics within users by users, with the same draws for
all rankers. Shape letters: N test rows, S samples.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.bundle.calibration import sigmoid
from recsys.core.errors import ConfigError
from recsys.core.strict import listed, nearest
from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.split import TEST, TRAIN
from recsys.metrics.classification import interval_of, resampled
from recsys.metrics.grouped import GroupedRows, weighted_draws, weighted_mean
from recsys.metrics.intervals import Difference
from recsys.training.engine.ranks import World
from recsys.training.evaluation.comparison import ALL, ComparedModel, Comparison, Measured
from recsys.training.evaluation.slices import HISTORY_SLICES, item_slices, ranges
from recsys.training.families.comparing import (
    CommonTest,
    Comparer,
    ModelOnTest,
    NamedModel,
    words_of_roles,
)
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.evaluation import MOST_SAMPLES, NDCG_K, SPLITS, base_rate
from recsys.training.families.ranker.opening import opened_ranker
from recsys.training.families.ranker.rates import Rates
from recsys.training.families.ranker.rows import rows_of
from recsys.training.families.ranker.task import predictions

METRICS = ("auc", "log_loss", "gauc", f"ndcg_at_{NDCG_K}")
LESS_IS_BETTER = frozenset({"log_loss"})
_Floats = NDArray[np.float64]
_Drawn = Mapping[str, tuple[float, _Floats]]
"""Metric -> its value, and its values on resampled rows or users, (S,)."""


@dataclass(frozen=True)
class LabelledRows:
    """The rows that are scored, (N,) each.

    number: which row of the log. item, user: rows of the data's tables.
    """

    number: NDArray[np.int64]
    item: NDArray[np.int64]
    user: NDArray[np.int32]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]

    def same(self, other: "LabelledRows") -> bool:
        """Whether the same rows have the same labels."""
        return all(np.array_equal(own, vars(other)[name]) for name, own in vars(self).items())


@dataclass(frozen=True)
class Scored:
    """What a ranker says of the rows, (N,) each; model_id: "" of a plain one."""

    name: str
    kind: str
    model_id: str
    logit: NDArray[np.floating]
    probability: _Floats


@dataclass(frozen=True)
class Asked:
    """A ranker on the test, its answers, and what they are about."""

    model: ModelOnTest
    loader: RankingLoader
    rows: LabelledRows
    scored: Scored


def _settled(test: CommonTest) -> CommonTest:
    """Return the test with a metric of the label.

    Raises:
        ConfigError: there is no such metric.
    """
    known = METRICS
    if test.metric in known:
        return test
    if test.metric == test.config.training.metric:  # that of a further outcome
        return replace(test, metric="auc")
    raise ConfigError(
        f"metric '{test.metric}' is none of rankers{nearest(test.metric, list(known))}; there are "
        f"{listed(known, 'and')}"
    )


def compare_rows(every: tuple[Asked, ...], test: CommonTest) -> Comparison:
    """Compare rankers on the test rows that they scored.

    Raises:
        ConfigError: the rows are not the same, or the metric is not defined on them.
    """
    common = every[0]
    for one in every[1:]:
        _check_same(one, common)
    scored = [*(one.scored for one in every), *_plain(common)]
    measuring = _Measuring.of(test.config, common)
    drawn = {one.name: dict(measuring.drawn(one)) for one in scored}
    compared = [measuring.compared(one, drawn[one.name], drawn[scored[0].name]) for one in scored]
    plain = [one for one in compared if one.is_plain]
    known = [_beaten(one, plain, drawn, test.metric) for one in compared if not one.is_plain]
    if test.metric not in known[0].metrics:
        raise ConfigError(f"metric '{test.metric}' is not defined on these rows: take another")
    share = float(np.average(common.rows.label, weights=common.rows.weight))
    count, base = len(common.rows.label), base_rate(share)
    unknown = {f"new to {one.model.name}": one.model.unknown for one in every}
    return Comparison(
        models=(*known, *plain),
        metric=test.metric,
        asked="rows",
        protocol={
            "data": test.source,
            "split": SPLITS[test.config.split.kind],
            "test rows": f"{count:,} rows, {share:.1%} of them positive",
            "log loss of always predicting the mean": f"{base:.4f}",
            **{name: words for name, words in unknown.items() if words},
        },
        headline=tuple(
            name for name in dict.fromkeys((test.metric, *METRICS)) if name in known[0].metrics
        ),
        less_is_better=LESS_IS_BETTER,
        warnings=(*_leaks(every), *_worse_than_the_mean(known, base)),
    )


def _check_rows(model: NamedModel, test: CommonTest) -> None:
    """Refuse what cannot be scored again, or not as the same rows."""
    experiments = {test.source: test.config, model.name: model.opened.config}
    for name, config in experiments.items():
        if config.data.stream:
            raise ConfigError(
                f"{name}: a streamed log is evaluated at the end of its training, not again"
            )
    has_labels = not test.config.training.negatives
    for name, config in experiments.items():
        if (not config.training.negatives) != has_labels:
            which = ("a label", "no label, and negatives are drawn")
            own, other = which if not has_labels else which[::-1]
            raise ConfigError(
                f"{name} was trained on a log with {own}; that of {test.source} has {other}"
            )


def ask_rows(model: NamedModel, test: CommonTest) -> Asked:
    """Return a ranker with what it says of the test rows.

    Raises:
        ConfigError: a log is streamed, or the model is of another kind of log.
        UserError: it cannot read the data.
    """
    _check_rows(model, test)
    here = ModelOnTest.of(model, test)
    config: RankerExperiment = here.opened.config
    drawn = {"negatives": test.config.training.negatives}
    config = config.model_copy(update={"training": config.training.model_copy(update=drawn)})
    network, calibrator = opened_ranker(here.opened)
    rows = rows_of(config, here.data)
    loader = rows.loader
    assert isinstance(loader, RankingLoader)
    found = predictions(network, rows, TEST, config.training.batch_size, World())
    items, users = loader.items(TEST), loader.users(TEST)
    events = here.data.tables.events
    per_event = len(users) // max(len(here.data.targets_of((TEST,))), 1)
    number = np.repeat(events.row[here.data.targets_of((TEST,))], per_event)
    return Asked(
        here,
        loader,
        LabelledRows(number, items, users, found.label, found.weight),
        Scored(
            model.name,
            here.opened.description.kind,
            model.model_id,
            found.logit,
            calibrator.probability(found.logit),
        ),
    )


def _check_same(asked: Asked, common: Asked) -> None:
    ids = [_ids(one) for one in (asked, common)]
    rows = asked.rows
    if not asked.loader.negatives and ids[0] != ids[1]:
        # Other catalogues: rows of the tables differ, those of the log need not.
        rows = replace(rows, item=common.rows.item, user=common.rows.user)
    if rows.same(common.rows):
        return
    why = words_of_roles(asked.model, common.model)
    raise ConfigError(
        f"{asked.model.name} and {common.model.name} are not asked the same: {len(rows.label):,} "
        f"and {len(common.rows.label):,} test rows, which or whose labels differ{why}. Compare "
        "models that read the log in the same way"
    )


def _ids(asked: Asked) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    data = asked.model.data
    items, users = data.tables.items, data.tables.users
    return items.column(data.schema.item_key), users.column(data.schema.user_key)


def _plain(common: Asked) -> Iterator[Scored]:
    """Yield the plain rankers, fitted on the training rows."""
    for name, logit in Rates.fit(common.loader).logits(common.loader).items():
        yield Scored(name, name, "", logit, sigmoid(logit))


@dataclass(frozen=True)
class _Measuring:
    """How answers become metrics, all of them on the same draws.

    inside: slice -> which rows are in it, (N,) bool.
    """

    rows: LabelledRows
    inside: Mapping[str, NDArray[np.bool_]]
    samples: int
    seed: int
    ranks_lists: bool

    @classmethod
    def of(cls, config: RankerExperiment, common: Asked) -> "_Measuring":
        """Part the rows by their users' and items' training rows."""
        data, rows = common.model.data, common.rows
        users = data.tables.events.user_row[data.part == TRAIN]
        counts = np.bincount(users, minlength=data.num_users)[rows.user]
        inside = {
            name: members[rows.item] for name, members in item_slices(data.train_counts).items()
        }
        for words, members in ranges(counts, HISTORY_SLICES).items():
            inside[f"users: {words} training rows"] = members
        return cls(
            rows,
            {name: members for name, members in inside.items() if members.any()},
            config.evaluation.bootstrap_samples,
            config.training.seed,
            not config.training.negatives,
        )

    def drawn(self, scored: Scored) -> Iterator[tuple[str, _Drawn]]:
        """Yield slices with the metrics of a ranker."""
        every = np.ones(len(self.rows.label), bool)
        yield ALL, {**self._of_rows(scored, every), **self._within_users(scored)}
        for name, members in self.inside.items():
            yield name, self._of_rows(scored, members)

    def _of_rows(self, scored: Scored, inside: NDArray[np.bool_]) -> _Drawn:
        found = {}
        rows = (self.rows.label[inside], self.rows.weight[inside])
        samples = min(self.samples, MOST_SAMPLES)
        # AUC is of the logits: a calibrator may tie rows that the ranker distinguishes.
        for place, (name, score) in enumerate(
            (("auc", scored.logit), ("log_loss", scored.probability))
        ):
            value, drawn = resampled(score[inside], *rows, samples=samples, seed=self.seed)
            found[name] = (float(value[place]), drawn[:, place])
        return found

    def _within_users(self, scored: Scored) -> _Drawn:
        grouped = GroupedRows.of(scored.logit, self.rows.user)
        values = {"gauc": (grouped.auc(self.rows.label), grouped.sizes)}
        if self.ranks_lists:
            ndcg = grouped.ndcg(self.rows.label, NDCG_K)
            values[f"ndcg_at_{NDCG_K}"] = (ndcg, np.ones(len(ndcg), np.int64))
        return {
            name: (
                weighted_mean(*one),
                weighted_draws(*one, samples=self.samples, seed=self.seed),
            )
            for name, one in values.items()
            if not np.isnan(one[0]).all()
        }

    def compared(
        self, scored: Scored, own: Mapping[str, _Drawn], first: Mapping[str, _Drawn]
    ) -> ComparedModel:
        """Return a ranker with its differences to the first."""
        slices = {}
        for name, metrics in own.items():
            count = int(self.inside[name].sum()) if name in self.inside else len(self.rows.label)
            slices[name] = {
                metric: Measured(
                    interval_of(*one),
                    None if own is first else _difference(one, first[name][metric]),
                    count,
                )
                for metric, one in metrics.items()
                if not np.isnan(one[0])
            }
        return ComparedModel(scored.name, scored.kind, scored.model_id, slices)


def _difference(own: tuple[float, _Floats], other: tuple[float, _Floats]) -> Difference:
    found = interval_of(own[0] - other[0], own[1] - other[1])
    return Difference(found.value, found.low, found.high)


def _beaten(
    model: ComparedModel,
    plain: list[ComparedModel],
    drawn: Mapping[str, Mapping[str, _Drawn]],
    metric: str,
) -> ComparedModel:
    """Note the best plain ranker where it is better by the metric that decides."""
    sign = -1.0 if metric in LESS_IS_BETTER else 1.0
    able = [one for one in plain if metric in one.metrics and metric in model.metrics]
    if not able:
        return model
    best = max(able, key=lambda one: sign * one.metrics[metric].value.value)
    behind = _difference(drawn[model.name][ALL][metric], drawn[best.name][ALL][metric])
    return replace(model, beaten_by=best.name, behind=behind) if sign * behind.mean < 0 else model


def _leaks(every: tuple[Asked, ...]) -> Iterator[str]:
    for one in every:
        if one.model.leak:
            yield f"{one.model.name}: {one.model.leak}"


def _worse_than_the_mean(models: list[ComparedModel], base: float) -> Iterator[str]:
    for one in models:
        loss = one.metrics["log_loss"].value
        if loss.value > base:
            yield (
                f"{one.name}: its log loss, {loss.value:.4f}, is above that of always predicting "
                f"the mean, {base:.4f}"
            )


ROWS = Comparer("scores labelled rows", _settled, compare_rows)
"""How rankers are compared."""
