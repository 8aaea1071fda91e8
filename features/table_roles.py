"""What a table is in a schema: which of its columns play which role, and how it is written."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.core.strict import StrictModel, nearest
from recsys.data.feature_options import Name
from recsys.features.relations.facts import Key
from recsys.features.tables.condition import Condition
from recsys.features.tables.number_text import DecimalSign, NumberText, ThousandsSign
from recsys.features.tables.times import TimeForm, TimeUnit, check_form, with_unit


class TimeColumn(StrictModel):
    """When an interaction happened: numbers in `unit` since 1970 (UTC), or `datetime`."""

    column: Name
    """Column of the time."""
    unit: TimeUnit
    """Unit of numbers since 1970 (UTC), or `datetime`; with `format` or `zone` it is `datetime`."""
    format: str | None = None
    """Form of text other than ISO 8601, in the codes of strptime: `"%d.%m.%Y %H:%M"`."""
    zone: str | None = None
    """Zone of times that do not say theirs, as in `Europe/Berlin`; None: UTC."""

    @model_validator(mode="before")
    @classmethod
    def _with_unit(cls, given: Any) -> Any:
        return with_unit(given)

    @model_validator(mode="after")
    def _is_readable(self) -> Self:
        check_form(self.form)
        return self

    @property
    def form(self) -> TimeForm:
        """How the column is read."""
        return TimeForm(self.unit, self.format, self.zone)


def _type_name(given: Any) -> Any:
    """Return a type of events as text, where it is text or a whole number."""
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else given


class LabelColumn(StrictModel):
    """What a ranker learns to predict: 0 or 1, or whether a value is `at_least` or `one_of`."""

    column: Name
    """Column of 0 and 1, of numbers with `at_least`, or of anything with `one_of`."""
    at_least: float | None = None
    """Numbers from here on are positive."""
    one_of: tuple[str | int, ...] | None = None
    """Values that are positive, as types of events: `[purchase]`; all others are negative."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.at_least is not None and self.one_of is not None:
            raise ValueError("a label takes at_least or one_of, not both")
        if self.one_of == ():
            raise ValueError("one_of is empty: no row would be positive")
        return self


class Outcome(LabelColumn):
    """What a ranker of several outcomes predicts of a row beside its label, where it is known."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    """What metrics (`auc_<name>`) and columns of answers (`probability_<name>`) call it."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How much its loss counts; that of the label counts 1."""

    @field_validator("name")
    @classmethod
    def _is_no_metrics_own(cls, name: str) -> str:
        if name == "before":  # calibration_error_before is the label's, before calibration
            raise ValueError("'before' is what metrics call another thing: choose another name")
        return name


class WrittenTable(StrictModel):
    """A table whose text writes numbers in a way of its own, in files and in requests."""

    decimal: DecimalSign = "."
    """The sign before decimals where numbers come as text: "," for 39,47."""
    thousands: ThousandsSign | None = None
    """The sign between thousands where numbers come as text: "." for 1.234,56."""

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both '{self.decimal}'")
        return self

    @property
    def number_text(self) -> NumberText:
        """How numbers are written."""
        return NumberText(self.decimal, self.thousands or "")


class EventTypes(StrictModel):
    """What the types of events of a log mean: views, carts, purchases, returns."""

    column: Name
    """Column of the type."""
    weights: Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]
    """Every type that is read, and how much a row of it counts: `{view: 1, cart: 1, purchase: 1}`.
    It multiplies `weight`, where there is one. Plain models count a pair of user and item by the
    heaviest of its rows, over the largest of these weights. Compare them with weights that are all
    1: on two made shops 1, 3 and 10 were worse, of a two-tower and of EASE."""
    undo: dict[str, str] = Field(default_factory=dict)
    """Types that take an earlier row back, and the type of that row: `{return: purchase}`. Each
    such row removes the last earlier row of the same user and item of that type, once, and is no
    interaction itself."""
    seen: tuple[str, ...] = ()
    """Types whose items a user has had, for `evaluation.filter_seen` and for lists from a log:
    `[purchase]` still recommends what was only looked at. Empty: all types."""

    @field_validator("weights", "undo", "seen", mode="before")
    @classmethod
    def _types_are_text(cls, given: Any) -> Any:
        """Types may be whole numbers in the file; they are compared as text."""
        if isinstance(given, Mapping):
            return {_type_name(key): value for key, value in given.items()}
        if isinstance(given, list | tuple):
            return tuple(_type_name(one) for one in given)
        return given

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        known = ", ".join(self.weights)
        for undoing, undone in self.undo.items():
            if undoing in self.weights:
                raise ValueError(
                    f"'{undoing}' is in weights and in undo: what takes a row back is no "
                    "interaction, so leave it out of weights"
                )
            if undone not in self.weights:
                hint = nearest(undone, list(self.weights))
                raise ValueError(f"undo: '{undone}' is none of the weights, {known}{hint}")
        for one in self.seen:
            if one not in self.weights:
                hint = nearest(one, list(self.weights))
                raise ValueError(f"seen: '{one}' is none of the weights, {known}{hint}")
        if not any(self.weights.values()):
            raise ValueError("all weights are 0: no row would count")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All types, those that take rows back last: `Events.type` is a place among them."""
        return (*self.weights, *self.undo)


class InteractionsTable(WrittenTable):
    """Columns of the log: user, item, time. `time` or `order` says what came first.

    `order` is a whole number that grows with time within a user, where no clock time is known.
    `weight` is a non-negative number, the importance of a row. `where` keeps the rows that
    count as positive (a rating of at least 4). `label` is for rankers, whose log also holds what
    was shown without an interaction; a streamed click log with a label needs neither user nor item.
    `outcomes` are predicted beside it, by rankers that have several outputs.
    """

    user: str = ""
    """Column of the user's id; empty for a streamed log without users."""
    item: str = ""
    """Column of the item's id."""
    label: LabelColumn | None = None
    """What a ranker predicts."""
    outcomes: tuple[Outcome, ...] = ()
    """What else is predicted of a row: a purchase beside the click. An outcome that is null in a
    row is unknown there, and such a row counts neither for its loss nor for its metrics."""
    time: TimeColumn | None = None
    """When the interaction happened."""
    order: Name | None = None
    """Column of whole numbers that grow with time within a user, where no time is known."""
    weight: Name | None = None
    """Column of the importance of a row, a number of at least 0."""
    session: Name | None = None
    """Column that is equal in all rows of one session."""
    where: tuple[Condition, ...] = ()
    """Conditions that a row has to meet to be read at all."""
    events: EventTypes | None = None
    """Types of events, how much each counts, and which take an earlier one back."""
    targets: Condition | None = None
    """Rows that are asked for: `{column: event, one_of: [purchase]}`. Models that retrieve are
    trained towards these and evaluated on them; the others are history. null: all rows."""

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        if self.time is not None and self.order is not None:
            raise ValueError("give 'time' or 'order' for the interactions, not both")
        if bool(self.user) != bool(self.item) or (not self.user and self.label is None):
            raise ValueError("the interactions need the columns 'user' and 'item'")
        return self

    @model_validator(mode="after")
    def _targets_or_a_label(self) -> Self:
        if self.targets is not None and self.label is not None:
            raise ValueError(
                "'targets' are rows that lists are to hold, and 'label' says what came of a row: "
                "keep one of them"
            )
        if self.label is not None and self.events is not None and self.events.seen:
            raise ValueError(
                "'events.seen' is about lists, which leave items out, and a 'label' is for "
                "rankers: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _outcomes_beside_a_label(self) -> Self:
        names = self.outcome_names
        if names and self.label is None:
            raise ValueError("'outcomes' are further ones beside the 'label': give that, too")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two outcomes are named '{name}'")
        return self

    @property
    def outcome_names(self) -> tuple[str, ...]:
        """Names of the outcomes beside the label, in declared order."""
        return tuple(outcome.name for outcome in self.outcomes)


class ItemsTable(WrittenTable):
    """The catalogue: one row an item, known by `key`; `title` is what people read."""

    key: Name
    """Column of the item's id."""
    title: Name | None = None
    """Column that reports show."""


class UsersTable(WrittenTable):
    """User attributes: one row a user, known by `key`."""

    key: Name
    """Column of the user's id."""


class SideTable(WrittenTable):
    """One more table with one row a key, joined to the items or the users (plots, prices)."""

    joins: Literal["items", "users"]
    """Which side its rows describe."""
    key: Name
    """Column of that side's id."""


_KEYS: dict[str, Key] = {"users": "user", "items": "item"}


class RelationTable(WrittenTable):
    """A table of events or facts with many rows a key (orders, visits), for kind: window."""

    keys: Annotated[dict[Name, Name], Field(min_length=1)]
    """Column of a key -> what it leads to: `users`, `items`, or another relation by its `id`, whose
    keys and time its rows have where they have none of their own."""
    time: TimeColumn | None = None
    """When a row happened; null: when that of the relation happened that a key leads to."""
    id: Name | None = None
    """Column that tells its rows apart, where other relations lead to it."""

    @property
    def link(self) -> tuple[str, str] | None:
        """Column and name of the relation that a key leads to; None: none does."""
        found = self.links()
        return found[0] if found else None

    def links(self) -> list[tuple[str, str]]:
        """Return column and name of the relation of each key that leads to one."""
        return [(column, to) for column, to in self.keys.items() if to not in _KEYS]

    def own_keys(self) -> dict[Key, str]:
        """Return key -> column, of those that lead to users and items at once."""
        return {_KEYS[to]: column for column, to in self.keys.items() if to in _KEYS}
