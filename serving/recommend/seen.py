"""Whether lists leave out what a user took already: as in the model's evaluation, if not as asked.

A report measures lists with or without such items (`evaluation.filter_seen`); what is served by
default is what was measured.
"""


def seen_in_words(filter_seen: bool, judged: bool) -> str:
    """Return what becomes of seen items, and why.

    judged: `evaluation.filter_seen` of the model.
    """
    what = "left out" if filter_seen else "kept"
    if filter_seen == judged:
        setting = f"evaluation.filter_seen: {str(judged).lower()}"
        return f"{what}, as when the model was evaluated ({setting})"
    return f"{what}, as asked; the model was evaluated with them {'left out' if judged else 'kept'}"
