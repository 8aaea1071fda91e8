"""Whether lists leave out what a user took already: as the model was judged, if not as asked.

A report measures lists with or without such items (`evaluation.filter_seen`); what is served by
default is what was measured.
"""

import yaml

from recsys.bundle.directory import Bundle

CONFIG_FILE = "config.yaml"


def judged_without_seen(bundle: Bundle) -> bool:
    """Return `evaluation.filter_seen` of the bundle's configuration; True where it has none."""
    if not bundle.has(CONFIG_FILE):
        return True
    evaluation = yaml.safe_load(bundle.text(CONFIG_FILE)).get("evaluation") or {}
    return bool(evaluation.get("filter_seen", True))


def seen_in_words(filter_seen: bool, judged: bool) -> str:
    """Return what becomes of seen items, and why.

    judged: `evaluation.filter_seen` of the model.
    """
    what = "left out" if filter_seen else "kept"
    if filter_seen == judged:
        setting = f"evaluation.filter_seen: {str(judged).lower()}"
        return f"{what}, as when the model was evaluated ({setting})"
    return f"{what}, as asked; the model was evaluated with them {'left out' if judged else 'kept'}"
