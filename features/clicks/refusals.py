"""What a streamed log cannot do, said before any of it is read."""

from recsys.core.errors import ConfigError
from recsys.features.dataset.split import SplitConfig
from recsys.features.relations.facts import KEYS_OF
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies, Sources


def check_settings(
    schema: Schema, sources: Sources, policies: Policies, split: SplitConfig
) -> None:
    """Refuse what a log that is never in memory as a whole cannot do.

    Raises:
        ConfigError: a setting is not for it; the message says what to do.
    """
    _check_roles(schema)
    _check_features(schema)
    _check_tables(schema, sources)
    _check_split(split)
    _check_ids(schema)
    _check_policies(policies)


def _check_roles(schema: Schema) -> None:
    if schema.interactions.label is None:
        raise ConfigError("a streamed log is for rankers: give schema.interactions.label")
    if schema.interactions.events is not None and schema.interactions.events.undo:
        raise ConfigError(
            "schema.interactions.events.undo looks for earlier rows, and a streamed log is never "
            "in memory as a whole: leave it out, or set data.stream: false"
        )


def _check_features(schema: Schema) -> None:
    for derived in schema.past_features:
        raise ConfigError(
            f"feature '{derived.name}': a streamed log is never in memory as a whole, so it "
            f"has no kind: {derived.kind}; bring it as a column, or set data.stream: false"
        )
    roles = schema.interactions
    named = {"user": roles.user, "item": roles.item}
    for window in schema.relation_features:
        for key in KEYS_OF[window.owner]:
            if not named[key]:
                raise ConfigError(
                    f"feature '{window.name}' is by {window.owner}, and the log names no {key}: "
                    f"give schema.interactions.{key}"
                )
    for feature in schema.column_features:
        if feature.table != "interactions":
            raise ConfigError(
                f"feature '{feature.name}' is of table '{feature.table}'; all features of a "
                "streamed log are columns of the interactions: join the table to the log in the "
                "source, or set data.stream: false"
            )


def _check_tables(schema: Schema, sources: Sources) -> None:
    tables = [name for name in ("items", "users") if getattr(sources, name)]
    tables += [f"others.{name}" for name in sources.others if name not in schema.relations]
    if tables:
        raise ConfigError(
            f"data.{tables[0]}: a streamed log has no other table; leave it out, or set "
            "data.stream: false"
        )


def _check_policies(policies: Policies) -> None:
    for name in ("duplicate_keys", "unknown_items", "unknown_users"):
        given, usual = getattr(policies, name), Policies.model_fields[name].default
        if given != usual:
            raise ConfigError(
                f"policies.{name}: {given} is about tables of items and users, which a streamed "
                "log does not have; leave it out, or set data.stream: false"
            )
    if policies.duplicate_events != "keep":
        raise ConfigError(
            "policies.duplicate_events: a streamed log keeps repeated rows; set it to keep, or "
            "remove them in the source"
        )


def _check_ids(schema: Schema) -> None:
    for side in ("items", "users"):
        if schema.form_of(side) is not None:
            raise ConfigError(
                f"schema.ids.{side}: the columns of a streamed log are read as they are; correct "
                "the ids in the source, or set data.stream: false"
            )


def _check_split(split: SplitConfig) -> None:
    if split.kind == "leave_one_out":
        raise ConfigError(
            "split.kind: leave_one_out needs every user's rows at once; a streamed log is split "
            "by kind: time (the order of the rows) or kind: column"
        )
    if split.validation_from is not None:
        raise ConfigError(
            "split.test_from and split.validation_from: a streamed log is cut by shares of its "
            "rows; give split.validation and split.test, or kind: column"
        )
