"""A proposal that `recsys check` accepts: for logs of few rows, whose parts are soon empty."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recsys.core.errors import ConfigError, DataError
from recsys.core.strict_yaml import read_yaml
from recsys.features.propose.tables import Inference
from recsys.features.propose.yaml_text import section
from recsys.training.families.load import config_of
from recsys.training.jobs.check import preflight

FEW_ROWS = 10_000
"""More are parted well by what is proposed, and are not read twice."""
_REPEATS = section(
    "evaluation", ["filter_seen: false   # items that users had before: there are hardly others"]
)
_PLAIN_LOGITS = "calibration: none   # there are no validation rows to fit one on"


@dataclass(frozen=True)
class _Other:
    """Another way to part few rows: lines of `split`, further sections, and words on them."""

    split: Sequence[str]
    words: str
    further: Sequence[str] = ()


def _by_time(share: float, *further: str) -> _Other:
    shares = (f"validation: {share}", f"test: {share}")
    words = f"the log has few rows: {share:.0%} of them are validation and {share:.0%} are test"
    return _Other(("kind: time   # the latest rows", *shares), words, further)


_LAST = ("kind: leave_one_out   # the last row of each user",)
_LAST_WORDS = "the log has few rows: the last ones of each user are validation and test"
_ALL = ("kind: none   # too few rows to hold any out: nothing is measured",)
_ALL_WORDS = "the log has too few rows to hold any out: all are trained on, and nothing is measured"
_LISTS = (
    _by_time(0.2),
    _Other(_LAST, _LAST_WORDS),
    _by_time(0.1, _REPEATS),
    _by_time(0.2, _REPEATS),
    _Other(_LAST, _LAST_WORDS, (_REPEATS,)),
    _by_time(0.3, _REPEATS),
    _Other(_ALL, _ALL_WORDS),
)
_RANKED = (_by_time(0.2), _by_time(0.3), _Other(_ALL, _ALL_WORDS, (_PLAIN_LOGITS,)))


def accepted(propose: Callable[..., Inference], folder: Path) -> Inference:
    """Return what is proposed, parted in another way where `recsys check` refuses it.

    Args:
        propose: returns a proposal; it takes lines of `split` and `further` sections.
        folder: of the configuration.

    Raises:
        ConfigError, DataError: no way to part the rows helps, and it is no matter of single rows,
            which policies and the source settle.
    """
    found = propose()
    if found.rows is None or found.rows > FEW_ROWS:
        return found
    refused = _refused(found, folder)
    if refused is None:
        return found
    for other in _RANKED if found.ranks else _LISTS:
        tried = propose(split=other.split, further=other.further)
        if _refused(tried, folder) is None:
            return replace(tried, unsure=(*tried.unsure, other.words))
    if isinstance(refused, DataError) and refused.rows:
        words = f"as it is, `recsys check` refuses it: {refused}"
        return replace(found, unsure=(*found.unsure, words))
    raise refused


def _refused(found: Inference, folder: Path) -> ConfigError | DataError | None:
    """Return why `recsys check` refuses a proposal; None: it does not."""
    try:
        keys = read_yaml(found.yaml, source="configuration")
        preflight(config_of(keys, source="configuration", folder=folder))
    except (ConfigError, DataError) as error:
        return error
    return None
