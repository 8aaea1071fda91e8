"""Retrieval as other libraries train it; runs in an environment of its own (`make peers`).

    python retrieval_rivals.py PEER FOLDER SETTINGS

PEER is bpr (implicit), lightfm or dssm (both through RecTools), or one that is fitted in one go:
cosine (implicit) or ease (RecTools), of which "train" is the whole fit. FOLDER holds train.npy
(2, N) int64, distinct pairs of a user and an item numbered from 0, and sizes.npy, how many there
are of each. SETTINGS is JSON with "dim". Each line of standard input is an order, answered by a
line of JSON: "train" is one epoch, "evaluate" writes PEER_users.npy and PEER_items.npy, whose
inner products rank. RecTools' DSSM demands features of users and items: here the ids are theirs.
"""

import contextlib
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0


class Bpr:
    """implicit's BayesianPersonalizedRanking, all else its defaults."""

    def __init__(self, train: Any, sizes: Any, dim: int) -> None:
        from implicit.cpu.bpr import BayesianPersonalizedRanking
        from scipy import sparse

        ones = np.ones(train.shape[1], np.float32)
        self.matrix = sparse.csr_matrix((ones, train), shape=tuple(sizes))
        self.model = BayesianPersonalizedRanking(
            factors=dim, iterations=1, num_threads=1, random_state=SEED
        )

    def train(self) -> None:
        self.model.random_state += 1  # else every epoch would draw the same triples
        self.model.fit(self.matrix, show_progress=False)

    def vectors(self) -> tuple[Any, Any]:
        return self.model.user_factors, self.model.item_factors


def dataset(train: Any, sizes: Any, *, with_features: bool) -> Any:
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset

    rows = pd.DataFrame({Columns.User: train[0], Columns.Item: train[1]})
    rows[Columns.Weight], rows[Columns.Datetime] = 1.0, "2000-01-01"
    features: dict[str, Any] = {}
    if with_features:
        for name, count in zip(("user", "item"), sizes, strict=True):
            ids = np.arange(count)
            features[f"{name}_features_df"] = pd.DataFrame(
                {"id": ids, "feature": "id", "value": ids}
            )
            features[f"cat_{name}_features"] = ["id"]
    return Dataset.construct(rows, **features)


class Cosine:
    """implicit's CosineRecommender with 200 neighbours."""

    def __init__(self, train: Any, sizes: Any, _dim: int) -> None:
        from scipy import sparse

        ones = np.ones(train.shape[1], np.float32)
        self.matrix = sparse.csr_matrix((ones, train), shape=tuple(sizes))

    def train(self) -> None:
        from implicit.nearest_neighbours import CosineRecommender

        CosineRecommender(K=200, num_threads=1).fit(self.matrix, show_progress=False)


class Ease:
    """RecTools' EASEModel."""

    def __init__(self, train: Any, sizes: Any, _dim: int) -> None:
        self.rows = dataset(train, sizes, with_features=False)

    def train(self) -> None:
        from rectools.models import EASEModel

        EASEModel(regularization=200.0).fit(self.rows)


class LightFm:
    """RecTools' wrapper of LightFM with WARP, all else its defaults."""

    def __init__(self, train: Any, sizes: Any, dim: int) -> None:
        from lightfm import LightFM
        from rectools.models import LightFMWrapperModel

        self.rows, self.sizes = dataset(train, sizes, with_features=False), sizes
        inner = LightFM(no_components=dim, loss="warp", random_state=SEED)
        self.model = LightFMWrapperModel(inner, epochs=1, num_threads=1)

    def train(self) -> None:
        self.model.fit_partial(self.rows, epochs=1)

    def vectors(self) -> tuple[Any, Any]:
        users, items = self.model.get_vectors(self.rows)
        return placed(users, self.rows.user_id_map, self.sizes[0]), placed(
            items, self.rows.item_id_map, self.sizes[1]
        )


class Dssm:
    """RecTools' DSSM, all else its defaults; Adam starts anew at every order."""

    def __init__(self, train: Any, sizes: Any, dim: int) -> None:
        self.rows, self.dim, self.net = dataset(train, sizes, with_features=True), dim, None
        self.sizes = sizes

    def train(self) -> None:
        from rectools.models import DSSMModel

        self.model = DSSMModel(
            n_factors=self.dim,
            max_epochs=1,
            loggers=False,
            trainer_accelerator="cpu",
            model=self.net,
        )
        self.model.fit(self.rows)
        self.net = self.model.model

    def vectors(self) -> tuple[Any, Any]:
        users, items = self.model.get_vectors(self.rows)
        # Nearest is best: inner products with (v, -|v|^2 / 2) rank as distances do.
        users = np.hstack([users, np.ones((len(users), 1))])
        items = np.hstack([items, -0.5 * (items**2).sum(1, keepdims=True)])
        return placed(users, self.rows.user_id_map, self.sizes[0]), placed(
            items, self.rows.item_id_map, self.sizes[1], worst=True
        )


def placed(vectors: Any, ids: Any, count: int, *, worst: bool = False) -> Any:
    """Return the vectors by our numbers; 0 without a training row, or last of all (`worst`)."""
    found = np.zeros((count, vectors.shape[1]), np.float32)
    if worst:
        found[:, -1] = -1e6
    found[np.asarray(ids.external_ids, np.int64)] = vectors[: len(ids.external_ids)]
    return found


def high_water_mib() -> int:
    """Largest resident memory of this process alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def main() -> None:
    peer, folder, settings = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")  # the libraries print: their words go elsewhere
    with contextlib.redirect_stdout(sys.stderr):
        if peer != "bpr":
            import torch

            torch.set_num_threads(1)
            torch.manual_seed(SEED)
        train, sizes = np.load(folder / "train.npy"), np.load(folder / "sizes.npy")
        kinds = {"bpr": Bpr, "lightfm": LightFm, "dssm": Dssm, "cosine": Cosine, "ease": Ease}
        made = kinds[peer]
        rival = made(train, sizes, settings["dim"])
        os.chdir(folder)
        before = high_water_mib()
        for order in itertools.chain(["ready"], sys.stdin):
            verb, started = order.split()[0], time.process_time()
            if verb == "train":
                rival.train()
            elif verb == "evaluate":
                users, items = rival.vectors()
                np.save(folder / f"{peer}_users.npy", users)
                np.save(folder / f"{peer}_items.npy", items)
            cpu = time.process_time() - started
            memory = {"peak_mib": high_water_mib(), "loaded_mib": before}
            found = {"cpu": cpu, **memory, "pairs": train.shape[1]}
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
