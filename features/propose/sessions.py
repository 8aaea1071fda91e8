"""What `recsys init` proposes for a log of visits: a model of what comes next in one."""

from recsys.features.propose.draft import Draft
from recsys.features.propose.roles import USER_WORDS, comes_in_visits, is_key_of
from recsys.features.propose.yaml_text import flow

_MANY_ITEMS = 50_000


def session_lines(draft: Draft, *, targets: bool = False) -> list[str]:
    """Return a block that makes the model one of sessions, commented out; none without visits.

    targets: whether only some rows are asked for, which their session mostly has announced.
    """
    roles = draft.roles
    visit_is_user = not is_key_of(roles.user, USER_WORDS)
    visit = roles.user if visit_is_user else roles.session
    if not visit or not comes_in_visits(roles.log.columns[visit]):
        return []
    many = roles.log.columns[roles.item].distinct > _MANY_ITEMS
    loss: dict[str, object] = {"loss": "full_softmax"}
    if many:
        loss = {"loss": "sampled_softmax", "uniform_negatives": 6000}
    sections = {
        "model": {"kind": "session"},
        "training": {**loss, "batch_size": 256, "average_epochs": 1},
        "evaluation": {"queries": "events", "filter_seen": False},
    }
    lines = [
        f"# The rows come in sessions ('{visit}'). For a model that says what comes next in one,",
        "# in place of a two-tower, remove the '#' of these three lines; columns of the log",
        "# among the features then describe its steps.",
        *(f"# {name}: {flow(section)}" for name, section in sections.items()),
    ]
    if targets:
        lines += [
            "# What is asked for mostly follows another row of its item in the same session, which",
            "# it learns to repeat. Without interactions.targets it learns what comes next.",
        ]
    if visit_is_user:
        lines.append(f"# Its users are sessions: leave '{visit}' out of the features, too.")
    return ["\n".join(lines)]
