"""What `recsys tune` says of a pipeline: its sources are tuned one by one."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from recsys.core.errors import ConfigError
from recsys.training.families.pipeline.config import TAKEN, PipelineExperiment

_NO_FILE = "CONFIG"


class TunedApartError(ConfigError):
    """A pipeline is not tuned as a whole.

    Attributes:
        sources: name -> the keys that make the pipeline's configuration that of the source alone,
            as in `model.kind=ease`. New items have nothing to tune and are not there.
    """

    def __init__(self, sources: Mapping[str, tuple[str, ...]], path: str = _NO_FILE) -> None:
        """Make the message; path: of the pipeline's configuration."""
        self.sources = dict(sources)
        lines = [
            "model.kind: a pipeline is not tuned as a whole. Tune its sources one by one, each as "
            "it is here, and name the file that is written as the source (model: NAME.yaml):"
        ]
        lines += [f"  {_command(path, name, keys)}" for name, keys in self.sources.items()]
        super().__init__("\n".join(lines))

    def of_file(self, path: object) -> "TunedApartError":
        """Return the error for a configuration that is in a file."""
        return TunedApartError(self.sources, str(path))

    def fields(self) -> dict[str, Any]:
        """Return what is known of the error as plain data."""
        return super().fields() | {"sources": {name: [*one] for name, one in self.sources.items()}}


def refuse_to_search(config: PipelineExperiment) -> NoReturn:
    """Say how the sources are tuned.

    Raises:
        TunedApartError: always.
    """
    found = {}
    for name, source in zip(config.model.names, config.model.sources, strict=True):
        if isinstance(source.model, dict):
            sections = {one: getattr(source, one) for one in TAKEN}
            keys = [leaf for one, keys in sections.items() for leaf in _leaves(keys, one)]
            keys.sort(key=lambda key: not key.startswith("model.kind="))
            if not keys or not keys[0].startswith("model.kind="):
                keys.insert(0, "model.kind=two_tower")
            found[name] = tuple(keys)
    raise TunedApartError(found)


def _leaves(value: Any, place: str) -> Iterator[str]:
    """Yield `key=value`, as `--set` takes it, for each key of a section."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from _leaves(one, f"{place}.{key}")
    elif value is not None or place not in TAKEN:
        yield f"{place}={value if isinstance(value, str) else json.dumps(value)}"


def _command(path: str, name: str, keys: tuple[str, ...]) -> str:
    chosen = [part for key in keys for part in ("--set", key)]
    ends = ["--trials", "20", "--name", name, "--out", f"{name}.yaml"]
    return shlex.join(["recsys", "tune", path, *chosen, *ends])
