"""The one reader of YAML: what a file could mean in two ways, or hides, is refused with its line.

Keys are texts and each stands once; a date is a text; `1e-3` is a number. Aliases are followed, but
not around in a circle, nor to more values than a configuration can have.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from recsys.core.errors import ConfigError

_MOST_BYTES = 10_000_000
_MOST_VALUES = 200_000
_MOST_LEVELS = 100
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
_DATES = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for text, where people mean the number, and makes dates of texts."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != _DATES]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(text: str | bytes, *, source: object) -> Any:
    """Return what `text`, as bytes in UTF-8, holds.

    Raises:
        ConfigError: it is not YAML, or not as strict as this reader; `source` is named.
    """
    _refuse_size(len(text), source)
    if isinstance(text, bytes):
        text = _decoded(text, source)
    _refuse_invisible(text, source)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, source)
        return loader.construct_document(node)
    except RecursionError:
        raise ConfigError(f"{source}: more than {_MOST_LEVELS} levels deep") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{source}: not valid YAML: {error}") from None
    finally:
        loader.dispose()


def read_yaml_file(path: Path) -> Any:
    """Return what a file holds, as `read_yaml` does; one that is too large is not read first."""
    _refuse_size(path.stat().st_size, path)
    return read_yaml(path.read_bytes(), source=path)


def _refuse_size(size: int, source: object) -> None:
    if size > _MOST_BYTES:
        raise ConfigError(f"{source}: {size:,} bytes are too many for a configuration")


def _decoded(data: bytes, source: object) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{source}: line {line} is not UTF-8 at {data[error.start : error.start + 20]!r}: save "
            "the file as UTF-8"
        ) from None


def _refuse_invisible(text: str, source: object) -> None:
    """Refuse signs that no one sees: they would be parts of names and paths."""
    found = _INVISIBLE.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(
            f"{source}: line {line} holds the invisible sign U+{ord(found[0]):04X}: remove it"
        )


def _check(root: yaml.Node, source: object) -> None:
    """Refuse circles, too many values or levels, and keys that are no texts or stand twice."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node, level: int) -> int:
        if id(node) in open_:
            raise _at(node, source, "an alias leads back to where it is used")
        if id(node) in sizes:
            return sizes[id(node)]
        if level > _MOST_LEVELS:
            raise _at(node, source, f"more than {_MOST_LEVELS} levels deep")
        open_.add(id(node))
        count = 1
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, source)
            for _, value in node.value:
                count += 1 + size(value, level + 1)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                count += size(value, level + 1)
        open_.remove(id(node))
        sizes[id(node)] = count
        if count > _MOST_VALUES:
            raise _at(node, source, f"more than {_MOST_VALUES:,} values")
        return count

    size(root, 0)


def _check_keys(node: yaml.MappingNode, source: object) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _at(key, source, "a key that is a list or a mapping")
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.tag != "tag:yaml.org,2002:str":
            raise _at(key, source, f"the key {key.value} is no text: write '{key.value}' in quotes")
        line = key.start_mark.line + 1
        if key.value in seen:
            raise _at(
                key, source, f"the key '{key.value}' stands in line {seen[key.value]} already"
            )
        seen[key.value] = line


def _at(node: yaml.Node, source: object, what: str) -> ConfigError:
    return ConfigError(f"{source}: line {node.start_mark.line + 1}: {what}")
