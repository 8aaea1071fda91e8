"""Data frames of requests or rows in, data frames of lists or probabilities out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from recsys.app.arguments import Count, checked
from recsys.app.batch_function import BatchFunction, batch_function
from recsys.app.models import Reference
from recsys.app.spark.columns import arrow_schema, holdable, spark_schema
from recsys.app.spark.session import need_spark
from recsys.app.spark.shipping import received, shipped
from recsys.core.errors import ConfigError
from recsys.core.strict import nearest
from recsys.serving.engines.tally import Tally


@checked
def recommend(
    model: Reference,
    frame: Any,
    *,
    k: Count | None = None,
    filter_seen: bool | None = None,
    probability: bool = False,
    approximate: bool = False,
    where: str | None = None,
    exclude: Any = None,
    allow: Any = None,
    block: Any = None,
    items: Any = None,
    cut: bool | None = None,
    keep: Sequence[str] = (),
    counts: Any = None,
    settings: Mapping[str, Any] | None = None,
    ship: bool | None = None,
    tracking_uri: str | None = None,
) -> Any:
    """Return a data frame with a list for each request: the columns that `recsys.score` writes.

    Args:
        model: see `recsys.load`; a folder, a run, models:/name@alias.
        frame: Spark data frame of requests: user key, `history` and what else the model reads.
        k: longest list; None: as the model says, else 20.
        filter_seen: leave out items the user has interacted with; None: as in the evaluation.
        probability: add the probability of each item.
        approximate: search the model's index, which may miss some, and not all vectors.
        where: a condition on columns of the items.
        exclude: ids to leave out, or a file or frame of them.
        allow: the only ids that may be recommended, likewise.
        block: a table of users and items that they are not to be shown.
        items: the items of today, which `where` reads.
        cut: end lists where relevance does; None: where the model knows that.
        keep: columns of `frame` that go along.
        counts: of `counts(spark)`, to which the counts of the lists are added.
        settings: other policies than in training.
        ship: send the bundle to the workers; None: unless they are on this machine.
        tracking_uri: MLflow store.

    Raises:
        UserError: there is no such model, or frame or options do not fit it. What is wrong with a
            single row is raised by Spark when the lists are computed.
    """
    how: dict[str, Any] = {"k": k, "filter_seen": filter_seen, "probability": probability}
    how |= {"approximate": approximate, "where": where, "cut": cut, "settings": settings}
    given = {"exclude": exclude, "allow": allow, "block": block}
    how |= {name: _collected(one) for name, one in given.items()}
    how |= {"tables": {"items": _collected(items)}, "tracking_uri": tracking_uri}
    function = batch_function(model, **how)
    if function.gives_rows:
        raise ConfigError("recommend: the model is a ranker and scores rows: use predict")
    return mapped(function, frame, keep=keep, counts=counts, ship=ship)


@checked
def predict(
    model: Reference,
    frame: Any,
    *,
    tables: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    ship: bool | None = None,
    tracking_uri: str | None = None,
) -> Any:
    """Return a data frame with a ranker's probability for each row, and the keys of the rows.

    Args:
        model: a ranker; see `recsys.load`.
        frame: Spark data frame of the rows.
        tables: tables of attributes that the rows do not hold, by name, as paths or frames:
            `users`, `items`, a side table or a relation (the log is `interactions`).
        keep: columns of `frame` that go along.
        settings: other policies than in training.
        ship: send the bundle to the workers; None: unless they are on this machine.
        tracking_uri: MLflow store.

    Raises:
        UserError: there is no such model, or frame or tables do not fit it.
    """
    given = {name: _collected(one) for name, one in (tables or {}).items()}
    function = batch_function(model, tables=given, settings=settings, tracking_uri=tracking_uri)
    if not function.gives_rows:
        raise ConfigError(
            "predict: the model ranks items for users and scores no rows: use recommend"
        )
    return mapped(function, frame, keep=keep, ship=ship)


def counts(spark: Any) -> Any:
    """Return an accumulator whose `value` counts lists: how many, short by reason, fallen back.

    It is exact where the lists are written, or shown, without a shuffle after `recommend`; Spark
    adds the tasks that it repeats before a shuffle twice. Not of Spark Connect.
    """
    need_spark()
    from recsys.app.spark.accumulating import Tallies

    return spark.sparkContext.accumulator(Tally(), Tallies())


def mapped(
    function: BatchFunction,
    frame: Any,
    *,
    keep: Sequence[str] = (),
    counts: Any = None,
    ship: bool | None = None,
) -> Any:
    """Return a data frame of the answers of `function` to `frame`.

    Raises:
        UserError: the columns do not fit the model.
    """
    need_spark()
    asked = arrow_schema(frame)
    for name in keep:
        if name not in asked.names:
            raise ConfigError(f"keep: the frame has no column '{name}'{nearest(name, asked.names)}")
    answers = holdable(function.schema(asked))
    twice = [name for name in keep if name in answers.names]
    if twice:
        raise ConfigError(
            f"keep: the answers have a column '{twice[0]}' themselves: rename that of the frame"
        )
    for name in keep:
        answers = answers.append(holdable(asked).field(name))
    read = function.columns()
    chosen = [name for name in asked.names if name in (*read, *keep)]
    spark = frame.sparkSession
    archive = shipped(spark, function, ship)
    task = _Task(replace(function, threads=1), answers, tuple(keep), archive, counts)
    return frame.select(*(f"`{one}`" for one in chosen)).mapInArrow(task, spark_schema(answers))


@dataclass(frozen=True)
class _Task:
    """What a worker runs for each partition."""

    function: BatchFunction
    answers: pa.Schema
    keep: tuple[str, ...]
    archive: str | None
    counts: Any

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        number = 0 if context is None else context.partitionId()
        function, tally = received(self.function, self.archive), Tally()
        asked: list[pa.RecordBatch] = []

        def noted() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                asked.append(batch)
                yield batch

        for found in function.answers(noted(), f"partition {number}", tally.add):
            batch = asked.pop()
            columns = [*found.columns, *(batch.column(name) for name in self.keep)]
            table = pa.Table.from_arrays(columns, names=self.answers.names)
            yield from table.cast(self.answers).combine_chunks().to_batches()
        if self.counts is not None:
            self.counts.add(tally)


def _collected(given: Any) -> Any:
    """Return a table of Spark as an Arrow table; everything else as it is."""
    return given.toArrow() if hasattr(given, "sparkSession") else given
