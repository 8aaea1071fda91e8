"""Whether lists leave out the user's earlier items: as in the model's evaluation, if not as asked.

A report measures lists with or without such items (`evaluation.filter_seen`); what is served by
default is what was measured.
"""


def seen_in_words(filter_seen: bool, evaluated: bool) -> str:
    """Describe what is done with seen items, and why.

    evaluated: `evaluation.filter_seen` of the model.
    """
    what = "left out" if filter_seen else "kept"
    if filter_seen == evaluated:
        setting = f"evaluation.filter_seen: {str(evaluated).lower()}"
        return f"{what}, as when the model was evaluated ({setting})"
    return (
        f"{what}, as asked; the model was evaluated with them {'left out' if evaluated else 'kept'}"
    )
