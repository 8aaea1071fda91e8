"""What a worker of `recsys score --workers` runs: it opens the model and makes parts of the job."""

from recsys.core.imports import uncollected

with uncollected():
    import gc
    import logging
    from collections.abc import Iterator
    from contextlib import contextmanager
    from pathlib import Path
    from typing import Any

    from recsys.app.scoring import ListOptions, lists_opened
    from recsys.serving.engines import answers, rows
    from recsys.serving.engines.worker import Maker, serve
    from recsys.serving.recommend.rows import RowScorer


@contextmanager
def opened(spec: dict[str, Any]) -> Iterator[Maker]:
    """Open a model as `recsys.app.scoring.team_of` describes it."""
    folder, settings = Path(spec["folder"]), spec["settings"]
    if spec["lists"] is None:
        yield rows.maker_of(RowScorer.open(folder, spec["tables"], settings))
        return
    lists = ListOptions(**spec["lists"])
    with lists_opened(folder, lists, spec["tables"], settings, spec["log"]) as (scorer, filters):
        yield answers.maker_of(scorer, filters)


if __name__ == "__main__":
    # The job has said already what there is to be said of the model and its filters.
    logging.getLogger("recsys").addHandler(logging.NullHandler())
    logging.getLogger("recsys").propagate = False
    gc.freeze()
    serve(opened)
