"""The settings of the rules that make a list of ranked candidates; applied in their order.

    rules:
      - {boost: {where: "margin > 0.3", by: 1.2}}
      - {at_most: 3, of: brand}
      - {diversify: {by: category, lambda: 0.3}}
      - {pin: {position: 1, where: "campaign == 'x'"}}
      - {reserve: 2, of: new_items}

An entry is recognised by its key. To add a rule: its settings here, an entry in `RULES`, its class
in `Rule`; how it is applied, and an entry for that, in `features/pipeline/rules.py`.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator

from recsys.core.strict import StrictModel, listed, nearest

Column = Annotated[str, Field(min_length=1)]
Predicate = Annotated[str, Field(min_length=1)]

VECTORS = "vectors"
"""What `diversify.by` says to compare the vectors of items, and no column."""


class AtMost(StrictModel):
    """No more than so many items of one value of a column in a list."""

    at_most: Annotated[int, Field(ge=1)]
    """Most items of one value of the column `of` in a list; further ones are left out, and nothing
    takes their place."""
    of: Column
    """The column of the items: of text, whole numbers, true and false, or lists of them. An item
    with a list counts for each of its values, an item without a value for none."""


class Diversity(StrictModel):
    """How relevance is weighed against similarity."""

    by: Column
    """What makes items similar: a column of text, whole numbers, true and false (1 where equal) or
    lists of them (shared values / all values); or `vectors`, the cosine of the items' vectors."""
    weight: Annotated[float, Field(alias="lambda", ge=0, le=1)]
    """Weight of the similarity to the items above, 0 to 1; 0 changes nothing. The rest is the
    weight of the score, scaled to 0 to 1 over the candidates of a request."""


class Diversify(StrictModel):
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998)."""

    diversify: Diversity
    """Each next item has a high score and is unlike the items above it (maximal marginal
    relevance)."""


class Boosting(StrictModel):
    """Which scores are multiplied, and by what."""

    where: Predicate
    """Which items: a condition on their columns, as in `where` of filters."""
    by: Annotated[float, Field(gt=0)]
    """What their scores are multiplied by, above 0; scores below 0 are divided by it, so that more
    than 1 is always up. Then the candidates are sorted by score."""


class Boost(StrictModel):
    """Scores of some items are multiplied."""

    boost: Boosting
    """The items of which `where` is true go up (`by` above 1) or down (below 1)."""


class Pinning(StrictModel):
    """Which item has a place of its own."""

    position: Annotated[int, Field(ge=1)]
    """The place in the list, from 1; the next free one where an earlier pin has it."""
    where: Predicate
    """Which items: a condition on their columns, as in `where` of filters."""


class Pin(StrictModel):
    """An item at a fixed place."""

    pin: Pinning
    """The best candidate of which `where` is true comes to `position`; without one, the first such
    item of the catalogue that may be recommended. No later rule moves it."""


class Reserve(StrictModel):
    """Places for what a source names."""

    reserve: Annotated[int, Field(ge=1)]
    """Items of the source `of` in a list, or more: where the list holds fewer, the best others that
    the source names come to its end, in place of the last items of others."""
    of: Column
    """The name of a source: `new_items`, or what it is called."""


RULES: dict[str, type[StrictModel]] = {
    "at_most": AtMost,
    "boost": Boost,
    "diversify": Diversify,
    "pin": Pin,
    "reserve": Reserve,
}
"""The key that an entry is recognised by -> its settings."""


def kind_of(rule: StrictModel) -> str:
    """Return the key of a rule's settings in `RULES`."""
    return next(kind for kind, settings in RULES.items() if isinstance(rule, settings))


def doubts(rules: Sequence[StrictModel]) -> Iterator[str]:
    """Yield what of some rules, in their order, is unlikely to be meant."""
    diversified = 0
    for number, rule in enumerate(rules, 1):
        if isinstance(rule, Diversify) and rule.diversify.weight > 0:
            diversified = number
        elif isinstance(rule, Boost) and diversified:
            yield (
                f"model.rules: rule {number} (boost) sorts by score, which undoes rule "
                f"{diversified} (diversify): write boosts first"
            )


def _by_key(value: Any, otherwise: ValidatorFunctionWrapHandler) -> Any:
    """Validate an entry as the rule that one of its keys names, so that errors are of this one."""
    if isinstance(value, StrictModel):
        return otherwise(value)
    if not isinstance(value, dict):
        raise ValueError("a rule is expected, as in {at_most: 3, of: brand}")
    found = [kind for kind in RULES if kind in value]
    if len(found) > 1:
        raise ValueError(f"{listed(found, 'and')} are {len(found)} rules: write an entry for each")
    if not found:
        hints = (nearest(key, list(RULES), least=0.6) for key in value)
        hint = next(filter(None, hints), "")
        raise ValueError(f"the key of a rule is missing{hint}: {listed(list(RULES), 'or')}")
    return RULES[found[0]].model_validate_json(json.dumps(value))


Rule = Annotated[AtMost | Boost | Diversify | Pin | Reserve, WrapValidator(_by_key)]
