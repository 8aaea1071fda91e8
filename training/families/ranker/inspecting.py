"""What `recsys check` says of a ranker's rates, whose log is in memory: how many rows have one."""

import numpy as np
from numpy.typing import NDArray

from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.dataset import encoded, fit_encoder, remembering
from recsys.features.dataset.split import PART_NAMES, TRAIN
from recsys.features.tables.checked import Tables
from recsys.training.families.ranker.config import RankerExperiment

_BATCH_ROWS = 65_536


def rate_notes(config: RankerExperiment, tables: Tables, part: NDArray[np.int8]) -> tuple[str, ...]:
    """Return a sentence for each feature of labels; none where the schema has none."""
    features, held_out = config.schema_.label_features, config.split.evaluated
    if not features or held_out is None:
        return ()
    wanted = {name for one in features for name in one.parts}
    columns = [one for one in config.schema_.column_features if wanted & set(one.lookup_names)]
    schema = config.schema_.model_copy(update={"features": (*columns, *features)})
    encoder = fit_encoder(schema, tables, part)
    data = remembering(encoded(encoder.schema, tables, part, encoder))
    loader = RankingLoader(data, batch_size=_BATCH_ROWS, seed=0)
    place = {name: at for at, name in enumerate(loader.layout.dense)}
    shares = {}
    for number in (TRAIN, held_out):
        batches = loader.ordered(number, _BATCH_ROWS)
        dense = np.concatenate([batch.features.dense.numpy() for batch in batches])
        shares[number] = {one.name: dense[:, place[f"{one.name}.null"]].mean() for one in features}
    return tuple(
        f"feature '{one.name}': {shares[held_out][one.name]:.0%} of the {PART_NAMES[held_out]} "
        f"rows hold values that no training row holds, and {shares[TRAIN][one.name]:.0%} of the "
        "training rows those of none that they see"
        for one in features
    )
