"""How lists were searched, in words: what an approximate index may have missed is told."""

from recsys.features.bundle.files import index_files
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.retrieval.index.build import read_facts
from recsys.retrieval.index.registry import EXACT

_OF_SOURCES = "by the indexes of the sources, each as far as its own recall goes"


def searched_in_words(model: ModelBundle, approximate: bool) -> str:
    """Return how items are found for a job.

    approximate: whether the index of the bundle is used; else all vectors are searched.
    """
    about = model.description
    if not approximate or (about.space_id is None and not about.has_sources):
        return EXACT
    if about.has_sources:
        return _OF_SOURCES
    facts = read_facts(index_files(model.bundle))
    if facts["recall_at_10"] == 1:
        return EXACT
    return f"by the {facts['kind']} index, recall@10 {facts['recall_at_10']:.4f} when it was built"
