"""The kinds of answer, by what the description of a model says that it gives."""

from recsys.bundle.directory import Bundle
from recsys.core.strict import nearest
from recsys.features.bundle.files import read_description
from recsys.models.kind import Answers
from recsys.serving.answering.lists import Lists
from recsys.serving.answering.protocol import Answering
from recsys.serving.answering.rows import Rows

ANSWERING: dict[Answers, Answering] = {"lists": Lists(), "rows": Rows()}


def answering_of(bundle: Bundle) -> Answering:
    """Return what serving does with the model in `bundle`.

    Raises:
        NotFoundError: the bundle holds no model.
        IntegrityError: it is not described as this engine describes models.
    """
    return ANSWERING[read_description(bundle).answers]


def export_targets() -> list[str]:
    """Return what `recsys export --to` takes, for one model or another."""
    return sorted(target for answering in ANSWERING.values() for target in answering.targets())


def known_target(target: str) -> str:
    """Return `target`.

    Raises:
        ValueError: no model can be exported to it.
    """
    targets = export_targets()
    if target not in targets:
        names = ", ".join(map(repr, targets))
        raise ValueError(f"should be one of {names}{nearest(target, targets)}")
    return target
