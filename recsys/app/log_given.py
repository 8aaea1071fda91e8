"""The log that a command is given: a path, or a configuration that says how its logs are read."""

from recsys.core.errors import ConfigError
from recsys.core.remote.path import below, path_at
from recsys.core.strict import parse
from recsys.features.tables.paths import literal
from recsys.features.tables.sources import Logs, Sources
from recsys.training.config.file import read_raw

_CONFIGURATIONS = (".yaml", ".yml")


def log_given(given: str) -> Logs:
    """Return what is read as the log: of a configuration (YAML) its `data.interactions`.

    Raises:
        NotFoundError: there is no such configuration.
        ConfigError: it names no log.
    """
    path = path_at(given)
    if path.suffix.lower() not in _CONFIGURATIONS:
        return given
    data = read_raw(path).get("data")
    if not isinstance(data, dict) or "interactions" not in data:
        raise ConfigError(f"{path}: names no log: data.interactions is missing")
    sources = parse(Sources, {"interactions": data["interactions"]}, source=path)
    return sources.model_copy(
        update=sources.relocated(lambda one: str(below(path.parent, literal(one))))
    ).interactions
