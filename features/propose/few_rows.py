"""What `recsys init` proposes for a log of fewer rows than items: to learn from the features.

Measured with `tests/benchmarks/ssl_curves.py`, recall@20 of a two-tower without and with the loss,
means of 3 seeds: 0.0307 and 0.0368 on all rows of 3 % of the users of Amazon Beauty (0.38 training
rows an item; popularity has 0.0172), 0.0177 and 0.0208 on Sports (0.36; 0.0162). Over the queries
both intervals leave out zero; on Sports one of the seeds lost. On 3 % of the rows, which leave
users hardly a history, it gained 0.0034 and 0.0056, and popularity was better than either model.
With 1.3 rows an item it gained 0.0026 on Beauty; with 1.2 on Sports and 4.3 on MovieLens-1M no gain
over all queries was sure, and a built-in world lost with 3.6. So it is proposed where rows are
fewer than items, and commented out.
"""

from recsys.features.propose.draft import Draft
from recsys.features.propose.yaml_text import flow

_LEAST_FEATURES = 2
"""Of the items, their id among them: a view shows some and hides others."""
_LOSS = {
    "kind": "contrastive",
    "views": "item",
    "masking": "none",
    "dropout": 0.3,
    "weight": 0.5,
    "temperature": 0.1,
}


def few_rows_lines(draft: Draft) -> list[str]:
    """Return a block with a self-supervised loss, commented out; none where rows are not few."""
    log, items = draft.roles.log, draft.roles.items
    if items is None or draft.active["items"] < _LEAST_FEATURES:
        return []
    if not log.complete or log.rows >= items.table.rows:
        return []
    lines = [
        f"# {log.rows:,} rows for {items.table.rows:,} items: popularity may be hard to beat. With",
        "# the rows of 3 % of the users of Amazon Beauty and Sports (0.4 an item), item views with",
        "# features left out raised recall@20 from 0.031 to 0.037 and from 0.018 to 0.021. To try",
        "# it, remove the '#' of this line:",
        f"# training: {flow({'self_supervision': _LOSS})}",
    ]
    return ["\n".join(lines)]
