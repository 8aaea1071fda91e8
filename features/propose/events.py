"""What `recsys init` proposes for a column of the types of events: views, carts, purchases.

Every type that the column holds is named, so that `check` accepts the log. Words decide what a type
is; one that no word is known for counts as a view, which is said.

What is proposed was chosen by the validation NDCG@20 of two made shops (each 2,000 customers, 1,200
items, 110,000 events, of them 11,000 purchases; split by time, purchases alone asked for; a
two-tower, one seed of training): every type counts 1, all rows are learnt from, and a history
leaves out the hour before the row to find. On both shops it was the best of the 8 combinations of
weights (1, 3 and 10, or alike), `training.towards` and `training.history_gap_minutes` (0 or 60):
0.189 and 0.234. docs/data.md has the others, and the test part.
"""

import re
from dataclasses import dataclass, field

from recsys.features.propose.draft import Draft
from recsys.features.propose.profile import ColumnProfile
from recsys.features.propose.roles import has_word, tokens
from recsys.features.propose.yaml_text import flow, section

GAP_MINUTES = 60
"""What a two-tower's history leaves out before the row to find: about one visit."""
_NAMES = {"event", "events", "action", "activity", "behavior", "behaviour", "interaction", "type"}
_MOST_TYPES = 20
_VIEW, _WISH, _CART, PURCHASE = "view", "wish", "cart", "purchase"
_KINDS = (_VIEW, _WISH, _CART, PURCHASE)
_WORDS = {
    _VIEW: {
        "view", "views", "viewed", "pageview", "click", "clicks", "clicked", "pv", "detail",
        "visit", "open", "read", "watch", "play", "browse", "see", "seen",
    },
    _WISH: {"fav", "favorite", "favourite", "wishlist", "wish", "like", "save", "bookmark"},
    _CART: {"cart", "addtocart", "basket", "add", "atc", "bag"},
    PURCHASE: {
        "purchase", "purchased", "buy", "bought", "order", "ordered", "transaction", "sale", "sold",
        "checkout", "conversion", "paid", "payment",
    },
}  # fmt: skip
_UNDOESPURCHASE = {"return", "returned", "refund", "refunded", "cancel", "cancelled", "canceled",
                    "cancellation", "chargeback"}  # fmt: skip
_UNDOES = {"remove", "removed", "delete", "deleted", "removefromcart", "unlike", "undo"}


@dataclass
class Types:
    """What the values are: kinds: value -> view, wish, cart or purchase. undo: value -> value."""

    kinds: dict[str, str] = field(default_factory=dict)
    undo: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Return the values of one kind."""
        return tuple(value for value, one in self.kinds.items() if one == kind)


def event_lines(draft: Draft, used: set[str]) -> list[str]:
    """Return the lines `events` and `targets` of `schema.interactions`; none without types.

    The column stays among those that may be features.
    """
    found = event_column(draft, used)
    if found is None:
        return []
    column, types = found
    if draft.more_log is not None:
        types.kinds |= dict.fromkeys(draft.more_log.types, PURCHASE)
    weights = dict.fromkeys((*types.kinds, *types.unknown), 1)
    role: dict[str, object] = {"column": column.name, "weights": weights}
    if types.undo:
        role["undo"] = types.undo
    bought = types.of_kind(PURCHASE)
    if bought:
        role["seen"] = bought
    wanted = bought or types.of_kind(_CART)
    lines = [f"events: {flow(role)}   # each type, and how much it counts"]
    if len(wanted) < len(weights) and wanted:
        target = {"column": column.name, "one_of": wanted}
        lines.append(f"targets: {flow(target)}   # what lists are to hold; the rest is history")
    _say(draft, column, types, wanted)
    return lines


def gap_lines(log: list[str]) -> list[str]:
    """Return a section `training` that keeps the visit of a row out of its history."""
    has = {line.split(":")[0] for line in log}
    if not {"targets", "time"} <= has:
        return []
    comment = "a two-tower's alone: remove it where the model is another one"
    lines = [
        f"history_gap_minutes: {GAP_MINUTES}   # what came just before a row is no history of it",
        "towards: rows   # all rows are learnt from; only targets are evaluated",
    ]
    return [section("training", lines, comment)]


def _say(draft: Draft, column: ColumnProfile, types: Types, wanted: tuple[str, ...]) -> None:
    asked = f"{', '.join(wanted)} are asked for" if wanted else "all are asked for"
    draft.unsure.append(
        f"'{column.name}' holds the types of events ({', '.join((*types.kinds, *types.unknown))}): "
        f"{asked}, and all rows count alike (interactions.events.weights)"
    )
    for undoing, undone in types.undo.items():
        draft.unsure.append(
            f"a row '{undoing}' takes back the last '{undone}' of its user and item"
        )
    if types.unknown:
        draft.unsure.append(
            f"what '{', '.join(types.unknown)}' in '{column.name}' means is not known: it counts "
            "as a view; leave such rows out with interactions.where, or change its weight"
        )
    log = draft.roles.log
    if column.nulls or not log.complete:
        words = f"{log.given}: '{column.name}' may hold other types than those looked at"
        if column.nulls:
            words = f"{log.given}: '{column.name}' is null in {column.nulls:,} rows"
        draft.policy("unknown_events", "drop", words)


def names_purchases(name: str) -> bool:
    """Whether a table's name says that its rows are purchases: "orders", "sales_2024"."""
    return any(word.removesuffix("s") in _WORDS[PURCHASE] for word in tokens(name))


def kind_named(name: str) -> str | None:
    """Return what a table's name says that its rows are: "view", "wish", "cart", "purchase"."""
    words = {form for word in tokens(name) for form in (word, word.removesuffix("s"))}
    found = [kind for kind in _KINDS if words & _WORDS[kind]]
    return found[0] if len(found) == 1 else None


def event_column(draft: Draft, used: set[str]) -> tuple[ColumnProfile, Types] | None:
    """Return the column of types, and what its values are; named ones first."""
    log = draft.roles.log.columns
    names = sorted((name for name in log if name not in used), key=lambda name: not _is_named(name))
    for name in names:
        column = log[name]
        if column.type != "string" or not 2 <= column.distinct <= _MOST_TYPES:
            continue
        types = _typed([str(one) for one in column.words.to_pylist()])
        known = len(types.kinds) + len(types.undo)
        if (
            len(types.kinds)
            and known >= (1 if _is_named(name) else 2)
            and known * 2 >= column.distinct
        ):
            return column, types
    return None


def _is_named(name: str) -> bool:
    return has_word(name, _NAMES)


def _typed(values: list[str]) -> Types:
    types, undoing = Types(), dict[str, str]()
    for value in values:
        words = set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", value).lower()))
        if words & _UNDOESPURCHASE or words & _UNDOES:
            undoing[value] = PURCHASE if words & _UNDOESPURCHASE else _CART
            continue
        kind = next((one for one in (PURCHASE, _CART, _WISH, _VIEW) if words & _WORDS[one]), None)
        if kind is None:
            types.unknown.append(value)
        else:
            types.kinds[value] = kind
    for value, kind in undoing.items():
        undone = types.of_kind(kind)
        if len(undone) == 1:
            types.undo[value] = undone[0]
        else:
            types.unknown.append(value)
    types.kinds = dict(sorted(types.kinds.items(), key=lambda one: _KINDS.index(one[1])))
    return types
