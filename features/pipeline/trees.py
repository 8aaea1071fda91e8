"""Boosted trees that order candidates; needs LightGBM.

Ke et al., "LightGBM", NeurIPS 2017; the loss is LambdaRank: Burges, "From RankNet to LambdaRank to
LambdaMART", 2010, section 4, with the gain of NDCG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.pipeline.candidates import Candidates
from recsys.features.requests.ranked import RankedRequests
from recsys.pipeline.config import Trees

NO_LIGHTGBM = "the package lightgbm is not installed (pip install 'recsys-engine[lightgbm]')"
_STOPPING = 0.2
_PATIENCE = 30
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankingTrees:
    """Fitted trees; text: as LightGBM writes them, UTF-8 in (T,) uint8."""

    text: NDArray[np.uint8]

    @classmethod
    def fit(
        cls, settings: Trees, inputs: Floats, hit: Floats, lengths: NDArray[np.int64], seed: int
    ) -> "RankingTrees":
        """Fit on candidates of requests, a fifth of which say when to stop.

        Args:
            settings: sizes.
            inputs: (C, F) of candidates, request after request.
            hit: (C,) 1 where a candidate was right, else 0.
            lengths: (B,) candidates of each request.
            seed: of which requests are held out.

        Raises:
            ConfigError: LightGBM is not installed, or nothing was ever right.
        """
        lightgbm = library()
        owner = np.repeat(np.arange(len(lengths)), lengths)
        useful = np.bincount(owner, weights=hit, minlength=len(lengths)) > 0
        held = stopping(len(lengths), seed)
        check_right(useful, held)
        parts = [useful & ~held, useful & held]
        learn, check = (
            lightgbm.Dataset(inputs[part[owner]], label=hit[part[owner]], group=lengths[part])
            for part in parts
        )
        model = lightgbm.train(
            {
                "objective": "lambdarank",
                "metric": "ndcg",
                "eval_at": [20],
                "learning_rate": settings.learning_rate,
                "num_leaves": settings.leaves,
                "min_data_in_leaf": settings.least_rows,
                "num_threads": 1,
                "deterministic": True,
                "verbose": -1,
                "seed": seed,
            },
            learn,
            num_boost_round=settings.trees,
            valid_sets=[check],
            callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
        )
        text = model.model_to_string(num_iteration=model.best_iteration)
        return cls(np.frombuffer(text.encode(), np.uint8).copy())

    def score(
        self, _candidates: Candidates, inputs: Floats, _users: RankedRequests | None = None
    ) -> Floats:
        """Return the scores of candidates, (C,).

        Raises:
            ConfigError: LightGBM is not installed.
        """
        if not len(inputs):
            return np.zeros(0)
        found: Floats = self._model.predict(inputs, num_threads=1)
        return found

    def parts(
        self,
        _candidates: Candidates,
        inputs: Floats,
        _users: RankedRequests | None,
        groups: Sequence[Sequence[int]],
    ) -> Floats:
        """Return what groups of columns add to the scores, (C, len(groups)).

        By TreeSHAP (Lundberg et al., 2020); with a constant of the trees they sum to the score.
        """
        shares: Floats = self._model.predict(inputs, num_threads=1, pred_contrib=True)
        return np.column_stack([shares[:, list(group)].sum(1) for group in groups])

    def gains(self, names: list[str]) -> dict[str, float]:
        """Return how much of what the trees gain each input brings, by name, the most first."""
        gain = self._model.feature_importance("gain")
        total = max(float(gain.sum()), 1e-12)
        shares = {name: float(one) / total for name, one in zip(names, gain, strict=True)}
        return dict(sorted(shares.items(), key=lambda pair: -pair[1]))

    @cached_property
    def _model(self) -> Any:
        return library().Booster(model_str=self.text.tobytes().decode())


def stopping(count: int, seed: int) -> NDArray[np.bool_]:
    """Return which of so many requests, (B,), say when to stop."""
    return np.random.default_rng(seed).random(count) < _STOPPING


def check_right(right: NDArray[np.bool_], held: NDArray[np.bool_]) -> None:
    """Refuse too few requests, (B,), with a right candidate; held: (B,) which say when to stop.

    Raises:
        ConfigError: none of those that are learnt from has one, or none of the others.
    """
    if not ((right & held).any() and (right & ~held).any()):
        raise ConfigError(
            "model.rank: gbdt: too few validation requests have a right item among the "
            "candidates to learn from: take more candidates, or set model.rank: none"
        )


def library() -> Any:
    """Return LightGBM.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import lightgbm
    except ImportError:
        raise ConfigError(f"model.rank: gbdt: {NO_LIGHTGBM}") from None
    return lightgbm
