"""Models of sequences as other libraries train them; runs in the peers' environment (`make peers`).

    python session_rivals.py PEER FOLDER

PEER is rectools (SASRec with its defaults and the full softmax, sessions of 200) or sasrec_bce:
the recipe of the SASRec that most papers compare with, in plain torch: 50 numbers, 2 blocks, 1
head, padded to 200, one negative a step, batches of 128. FOLDER holds user.npy and item.npy, rows
in their order in time. Each line "train" of standard input trains one
epoch, answered by a line of JSON.
"""

import contextlib
import itertools
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 200


def rectools(user: Any, item: Any) -> Any:
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    times = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.arange(len(user)), unit="s")
    rows = pd.DataFrame({Columns.User: user, Columns.Item: item, Columns.Datetime: times})
    rows[Columns.Weight] = 1.0
    data = Dataset.construct(rows)

    def train() -> None:
        with contextlib.redirect_stdout(sys.stderr):
            SASRecModel(epochs=1, session_max_len=LENGTH, loss="softmax").fit(data)

    return train


def sasrec_bce(user: Any, item: Any) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    width, num_items, rng = 50, int(item.max()) + 1, np.random.default_rng(0)
    starts = np.append(np.flatnonzero(np.diff(user, prepend=-1)), len(user))
    padded = np.zeros((len(starts) - 1, LENGTH + 1), np.int64)
    for row, (first, end) in enumerate(itertools.pairwise(starts)):
        last = item[max(first, end - LENGTH - 1) : end] + 1
        padded[row, LENGTH + 1 - len(last) :] = last
    layer = nn.TransformerEncoderLayer(
        width, 1, width, 0.2, activation="relu", batch_first=True, norm_first=True
    )
    model = nn.ModuleDict(
        {
            "vectors": nn.Embedding(num_items + 1, width, padding_idx=0),
            "places": nn.Embedding(LENGTH, width),
            "blocks": nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            "norm": nn.LayerNorm(width),
        }
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, betas=(0.9, 0.98))
    causal = nn.Transformer.generate_square_subsequent_mask(LENGTH)

    def train() -> None:
        for chosen in np.array_split(rng.permutation(len(padded)), -(-len(padded) // 128)):
            rows = torch.from_numpy(padded[chosen])
            inputs, positive = rows[:, :-1], rows[:, 1:]
            negative = torch.from_numpy(rng.integers(1, num_items + 1, positive.shape))
            x = model["vectors"](inputs) * width**0.5 + model["places"].weight
            states = model["norm"](model["blocks"](F.dropout(x, 0.2), mask=causal))
            asked = positive > 0
            states = states[asked]
            loss = F.softplus(-(states * model["vectors"](positive[asked])).sum(1)).mean()
            loss = loss + F.softplus((states * model["vectors"](negative[asked])).sum(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def main() -> None:
    import torch

    torch.set_num_threads(1)
    name, folder = sys.argv[1], Path(sys.argv[2])
    peers = {"rectools": rectools, "sasrec_bce": sasrec_bce}
    train = peers[name](np.load(folder / "user.npy"), np.load(folder / "item.npy"))
    for _line in sys.stdin:
        start = time.process_time()
        train()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"cpu_s": time.process_time() - start, "memory_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
