"""The paths of the tables, and what to do with rows that are not as they should be."""

import codecs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from recsys.core.errors import ConfigError
from recsys.core.strict import StrictModel, nearest, parse
from recsys.data.feature_options import Name

ERROR = "error"
"""The choice of a policy that allows nothing."""
KEEP = "keep"
"""The choice of a policy that leaves rows in as they are."""


_MEANT = dict.fromkeys(("sep", "separator", "delim"), "delimiter") | {"charset": "encoding"}
"""What other tools call the keys of a source."""


Place = Annotated[str, Field(min_length=1)]


class TableSource(StrictModel):
    """A table whose files are not read as they are recognised, but as they are declared."""

    path: Place
    """A file, a glob, or a folder (hive-partitioned or flat); Parquet or CSV."""
    encoding: str | None = None
    """Encoding of CSV files, as utf-8, utf-16 or cp1252; recognised where not given."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """The sign between two fields of CSV files; recognised where not given."""

    @model_validator(mode="before")
    @classmethod
    def _by_its_name(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if name in _MEANT:
                raise ValueError(f"'{name}' is called '{_MEANT[name]}' here: write that")
        return given

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                codecs.lookup(name)
            except LookupError:
                raise ValueError(
                    f"'{name}' is no encoding; write it as Python does: utf-8, utf-16, cp1252"
                ) from None
        return name

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, sign: str | None) -> str | None:
        if sign is not None and (sign in '\r\n"\\' or not sign.isascii()):
            raise ValueError("a delimiter is one ASCII sign, and no quote, backslash or line end")
        return sign

    @model_serializer
    def _declared(self) -> dict[str, Any]:
        """Only what is declared is written back: the rest is recognised anew."""
        return {name: one for name, one in self if one is not None}

    def __str__(self) -> str:
        return self.path

    def at(self, path: str) -> "TableSource":
        """Return the same declarations for another path."""
        return self.model_copy(update={"path": path})


class LogSource(TableSource):
    """A log, or one of several that are read as one, whose columns have names of their own."""

    columns: dict[Name, Name] = Field(default_factory=dict)
    """Name of a column in the configuration -> its name in these files: `{time: ordered_at}`."""
    set_: dict[Name, str | int | None] = Field(default_factory=dict, alias="set")
    """Columns that these files lack, with their one value: `{event: purchase}`; null: not known."""

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        for name in self.columns:
            if name in self.set_:
                raise ValueError(f"'{name}' is in columns and in set: it is read, or it is set")
        return self

    @model_serializer
    def _with_names(self) -> dict[str, Any]:
        """Only what is declared is written back."""
        given = {name: one for name, one in self if name not in ("columns", "set_")}
        found = {name: one for name, one in given.items() if one is not None}
        more: dict[str, dict[str, Any]] = {"columns": self.columns, "set": self.set_}
        return found | {name: dict(one) for name, one in more.items() if one}


def _is_mapping(given: Any) -> str:
    if isinstance(given, list | tuple):
        return "list"
    return "mapping" if isinstance(given, dict | TableSource) else "text"


Source = Annotated[
    Annotated[Place, Tag("text")] | Annotated[TableSource, Tag("mapping")],
    Discriminator(_is_mapping),
]
"""The path of a table, or a mapping of it and how its files are to be read."""


OneLog = Annotated[
    Annotated[Place, Tag("text")] | Annotated[LogSource, Tag("mapping")],
    Discriminator(_is_mapping),
]
"""The path of a log, or a mapping that also says what its columns are called."""
Logs = Annotated[
    Annotated[Place, Tag("text")]
    | Annotated[LogSource, Tag("mapping")]
    | Annotated[tuple[OneLog, ...], Tag("list"), Field(min_length=1)],
    Discriminator(_is_mapping),
]
"""A log, or several that are read one after the other as one."""


def sources_of(given: Source | Logs | Path) -> tuple[TableSource, ...]:
    """Return what is read one after the other as one table."""
    each = given if isinstance(given, tuple) else (given,)
    return tuple(
        one if isinstance(one, TableSource) else TableSource(path=str(one)) for one in each
    )


def path_words(given: Source | Logs) -> str:
    """Return the paths of a table, for people."""
    return ", ".join(source.path for source in sources_of(given))


def relocated(source: Any, place: Callable[[str], str]) -> Any:
    """Return a source, or several, whose path is what `place` makes of it."""
    if isinstance(source, tuple):
        return tuple(relocated(one, place) for one in source)
    return source.at(place(source.path)) if isinstance(source, TableSource) else place(source)


class Sources(StrictModel):
    """One source a table: a file, a glob, or a folder (hive-partitioned or flat); Parquet or CSV.

    A log may be several: a list of paths, or of mappings that also say what its columns are called.

    Where the encoding or the delimiter of CSV files is not what is recognised, a mapping of `path`,
    `encoding` and `delimiter`.
    """

    interactions: Logs
    """The log: who interacted with which item, and when."""
    items: Source | None = None
    """Table of items, a row an item."""
    users: Source | None = None
    """Table of users, a row a user."""
    others: dict[str, Source] = Field(default_factory=dict)
    """Side tables of items or users, by the names that `schema.others` gives them."""

    def relocated(self, place: Callable[[str], str]) -> dict[str, Any]:
        """Return every source with what `place` makes of its path, by the names of the fields."""

        def moved(source: Any) -> Any:
            return None if source is None else relocated(source, place)

        return {
            "interactions": moved(self.interactions),
            "items": moved(self.items),
            "users": moved(self.users),
            "others": {name: moved(source) for name, source in self.others.items()},
        }


def log_name(source: Logs | Mapping[str, Any] | Sequence[Any]) -> str:
    """Return what people call the log at a source: its file without the ending, or its folder."""
    if isinstance(source, list | tuple):
        return "+".join(log_name(one) for one in source)
    path = str(source["path"] if isinstance(source, Mapping) else source)
    named = [part for part in Path(path).parts if not set(part) & set("*?[")]
    return Path(named[-1]).stem if named else "log"


class LabelledSources(Sources):
    """The tables of a log with labels, which may be larger than memory."""

    stream: bool = False
    """A click log larger than memory: encoded to disk once, in pieces, and trained on from there.
    All features are columns of the interactions."""


@dataclass(frozen=True)
class Rule:
    """What is done with rows that are not as they should be, and which setting decides.

    key: the setting, as in "policies.bad_ids"; "" where no setting allows them. choice: what it
    is set to; "" where there is nothing to choose. option: what to set instead, as text.
    """

    key: str = ""
    choice: str = ERROR
    option: str = ""

    @property
    def forgives(self) -> bool:
        """Whether the rows are changed or left out, and counted; else they are an error."""
        return self.choice != ERROR

    def __str__(self) -> str:
        name = self.key.removeprefix("policies.")
        return f"{name}: {self.choice}" if self.choice else name


class Policies(StrictModel):
    """What to do with rows that break a rule. Every row dropped is counted and reported."""

    bad_ids: Literal["error", "drop"] = "error"
    """Ids that are null, NaN, empty or padded with white space."""
    float_ids: Literal["error", "integer"] = "error"
    """Ids that came as floats (whole numbers spoilt by a null); `integer` casts whole ones."""
    duplicate_keys: Literal["error", "first", "last"] = "error"
    """Two rows of one item or one user."""
    duplicate_events: Literal["keep", "drop", "error"] = "keep"
    """The same user, item and time twice."""
    unknown_items: Literal["error", "drop", "keep"] = "error"
    """Interactions with an item that the catalogue lacks; `keep` adds it without attributes."""
    unknown_users: Literal["error", "drop", "keep"] = "keep"
    """Interactions of a user that the users table lacks."""
    unknown_events: Literal["error", "drop"] = "error"
    """Rows whose type `schema.interactions.events` does not name."""
    bad_times: Literal["error", "drop"] = "error"
    """Times that are null, negative, or after `latest_time`."""
    latest_time: str = "now"
    """ISO date; later times are in the future. `now` is the clock at reading."""
    infinite_numbers: Literal["error", "null"] = "error"
    """Infinities in numeric features, vectors and weights."""

    def rule(self, name: str, option: str = "") -> Rule:
        """Return the rule of policy `name`; `option`: what else to set it to, and what that does.

        As in `rule("bad_ids", "drop to leave such rows out")`.
        """
        key = f"policies.{name}"
        return Rule(key, getattr(self, name), f"set {key}: {option}" if option else "")


def policies_with(policies: Policies, settings: Mapping[str, Any]) -> Policies:
    """Return policies with other values, given by full key ("policies.float_ids").

    Raises:
        ConfigError: a key is no policy's, or its value is wrong.
    """
    raw = policies.model_dump(mode="json")
    known = [f"policies.{name}" for name in raw]
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"{key}: the model is trained{nearest(key, known)}; what can be set for the tables "
                f"it is given is {', '.join(known)}"
            )
    changed = {key.removeprefix("policies."): value for key, value in settings.items()}
    return parse(Policies, raw | changed, source="policies")
