"""Whether the queries of a model may search an export of item vectors."""

from pathlib import Path

from recsys.core.errors import ConfigError, NotFoundError
from recsys.features.bundle.lists import ListModel
from recsys.serving.export.manifest import EXPORT_FILE, open_export


def check_searches(model: ListModel, folder: Path) -> None:
    """Refuse an export whose items are not where the queries of `model` look for them.

    Raises:
        NotFoundError: there is no export in `folder`.
        ConfigError: it holds no items, is of another space, with which the model does not claim to
            be compatible, or of encodings.
    """
    path = folder / EXPORT_FILE
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file; `recsys export --out {folder}` writes one")
    facts = open_export(folder).facts
    if "item_ids_sha256" not in facts:
        raise ConfigError(
            f"{folder} holds no item vectors (it was exported --to {facts['target']}): name the "
            "folder of an index, of a store or of --to parquet"
        )
    about, source = model.description, model.bundle.path
    spaces = [about.space_id, *(one.space_id for one in about.compatible_since)]
    if facts["space_id"] not in spaces:
        since = ", ".join(one.model_id for one in about.compatible_since)
        also = f"and in that of model {since}" if since else "and claims no other"
        raise ConfigError(
            f"{folder} holds vectors of space {facts['space_id']}, model {facts['model_id']}; "
            f"{source} answers in space {about.space_id} {also}: export the items of this model, "
            f"or train it --compatible-with {facts['model_id']}"
        )
    if facts.get("encoding") is not None:
        raise ConfigError(
            f"{folder} holds encodings: recsys.serving.export.query_encoding.query_encodings "
            "makes what they are searched with"
        )
