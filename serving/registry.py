"""Versions and aliases in MLflow's registry; bundles in, bundles out.

A version is created after its files were read back from the store and hashed, and the alias
moves last, so a kill at any instant leaves no version without its bundle. What comes out is
checked against the hash in the version's tags. Reading never runs code from the store.

Example:
    version = register(Bundle.open(path), "shop", alias="champion")
    Scorer.open(resolve("models:/shop@champion"))
"""

import json
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from recsys.bundle.directory import MANIFEST, Bundle, bundles_in, bundles_of_run
from recsys.core.atomic import publish, remove_whole, staged_folder
from recsys.core.errors import ConfigError, IntegrityError, NotFoundError
from recsys.core.strict import nearest
from recsys.core.tracking_store import (
    RUN_KEY,
    artifact_root,
    first_use,
    http_limits,
    is_database,
    quieten,
    run_of,
    sqlite_path,
    store_uri,
)
from recsys.serving.logged_model import log_model

CACHE = Path(".recsys_cache") / "bundles"
EXPERIMENT = "recsys"
"""Where bundles of no run are logged."""
MODEL_ID, MANIFEST_SHA256 = "model_id", "manifest_sha256"
_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))?")
_RUN = re.compile(r"(?:runs:/)?(?P<run_id>[0-9a-f]{32})(?:/.*)?")
_RETRIES = 2
"""Of a call that a server does not answer: it fails within seconds, and not MLflow's minutes."""


def register(
    bundle: Bundle,
    name: str,
    *,
    uri: str | None = None,
    alias: str | None = None,
) -> int:
    """Add `bundle` to the registry as a new version of `name` and return its number.

    The version is linked with the run that trained the bundle, where the bundle is in the
    run's folder and the store has that run, and with the logged model that holds its files.

    Args:
        bundle: it is verified again, before and after it is copied.
        name: the registered model; created where it is new.
        uri: the store; default: MLFLOW_TRACKING_URI, else mlflow.db in this folder.
        alias: moved to the new version, last of all.

    Raises:
        IntegrityError: the bundle, or what the store gives back, is not what was written.
        ConfigError: MLflow refuses name or alias, or does not answer.
    """
    from recsys.serving.version_facts import description_of, log_facts, marks_of

    store = store_uri(uri)
    bundle = Bundle.open(bundle.path)
    _check_alias(alias)
    shown = {"tags": _tags(bundle) | marks_of(bundle), "description": description_of(bundle)}
    with _mlflow(store) as client:
        _create_name(client, name)
        run_id = _run_id(client, bundle)
        experiment = (
            _experiment(client, store)
            if run_id is None
            else client.get_run(run_id).info.experiment_id
        )
        logged = log_model(client, bundle, name, experiment, run_id, _tags(bundle))
        _read_back(bundle, logged.artifact_location, store)
        log_facts(client, bundle, logged, run_id)
        created = _create_version(client, name, logged, shown, run_id, store)
        if alias is not None:
            client.set_registered_model_alias(name, alias, created.version)
    return int(created.version)


def promote(name: str, version: int, alias: str, uri: str | None = None) -> None:
    """Point `alias` at a version, after its bundle was fetched and verified.

    Raises:
        NotFoundError: no such model or version; the nearest name is named.
        IntegrityError: the bundle is not the one that was registered.
    """
    _check_alias(alias)
    resolve(f"models:/{name}/{version}", uri)
    with _mlflow(store_uri(uri)) as client:
        client.set_registered_model_alias(name, alias, str(version))


def holder_of(name: str, alias: str, uri: str | None = None) -> int | None:
    """Return the version of a registered model that holds `alias`; None: none does."""
    _check_alias(alias)
    with _mlflow(store_uri(uri)) as client:
        held = client.get_registered_model(name).aliases.get(alias)
    return None if held is None else int(held)


def version_of(model_id: str, uri: str | None = None) -> str | None:
    """Return the newest version that holds a model, as "models:/name/3"; None: none does."""
    with _mlflow(store_uri(uri)) as client:
        found = _versions(client, f"tags.`{MODEL_ID}` = '{model_id}'")
    newest = max(found, key=lambda one: one.creation_timestamp, default=None)
    return None if newest is None else f"models:/{newest.name}/{newest.version}"


def resolve(reference: str, uri: str | None = None, *, cache: Path = CACHE) -> Path:
    """Return the folder of the bundle that `reference` means, fetched and verified.

    Args:
        reference: a bundle folder, a run's folder, `models:/name@alias`, `models:/name/3`,
            `models:/name/latest`, a run id or `runs:/id`.
        uri: the store; default: MLFLOW_TRACKING_URI, else mlflow.db in this folder.
        cache: where bundles are kept, each in a folder named by its model id.

    Raises:
        NotFoundError: there is none; the nearest names, aliases or versions are named.
        IntegrityError: the bundle is not the one that was registered.
    """
    if Path(reference).is_dir():
        return _local_bundle(Path(reference))
    model, run = _REFERENCE.fullmatch(reference), _RUN.fullmatch(reference)
    if model is None and run is None:
        raise NotFoundError(
            f"'{reference}' is no folder here{_near_path(reference)}, no run id and not of the "
            "form models:/name@alias or models:/name/3"
        )
    store = store_uri(uri)
    database = sqlite_path(store)
    if database is not None and not database.exists():
        raise NotFoundError(
            f"'{reference}': there is no MLflow store at {database}; train or register first, or "
            "name another with --tracking-uri"
        )
    with _mlflow(store) as client:
        if model is not None:
            found = _version(client, **model.groupdict())
        else:
            assert run is not None
            found = _version_of_run(client, run["run_id"])
        return _fetch(client, found, store, cache)


def _fetch(client: Any, version: Any, store: str, cache: Path) -> Path:
    """Return the version's bundle from the cache, or download it there."""
    shown = f"models:/{version.name}/{version.version}"
    tags: dict[str, str] = version.tags
    model_id, manifest = tags.get(MODEL_ID, ""), tags.get(MANIFEST_SHA256, "")
    if not all(re.fullmatch(r"[0-9a-f]{16,64}", tag) for tag in (model_id, manifest)):
        raise IntegrityError(
            f"{shown} has no tags '{MODEL_ID}' and '{MANIFEST_SHA256}': it was not registered by "
            "`recsys register`, so it cannot be verified that its files are complete"
        )
    # Two versions may hold one content, written at two times: manifests distinguish them.
    cache = cache / manifest[:16]
    cached = cache / model_id
    if cached.is_dir():
        try:
            return _verified(cached, model_id, manifest, shown)
        except (IntegrityError, NotFoundError):
            remove_whole(cached)
    with staged_folder(cache, model_id) as folder:
        kept = client.get_model_version_download_uri(version.name, str(version.version))
        source = _place_of(kept, store, shown)
        fetched = _verified(_download(source, store, folder), model_id, manifest, shown)
        try:
            publish(fetched, cached)
        except OSError:  # somebody else was quicker
            return _verified(cached, model_id, manifest, shown)
    return cached


def _place_of(kept: str, store: str, shown: str) -> str:
    """Return the path of the files of a version, which MLflow has `kept` when it was registered.

    It keeps whole paths; a project that was moved has its files in mlruns next to the database.
    """
    root, address = artifact_root(store), urlparse(kept)
    path = Path(address.path)
    if root is None or address.scheme not in ("", "file") or path.exists():
        return kept
    name = Path(root).name
    if name in path.parts:
        last = len(path.parts) - path.parts[::-1].index(name)
        moved = Path(root, *path.parts[last:])
        if moved.exists():
            return str(moved)
    raise NotFoundError(
        f"{shown}: its files were at {path} and are gone, and {root} does not hold them: was the "
        f"project moved or copied without {name}? Put that folder back next to the database, or "
        "register the model again"
    )


def _verified(path: Path, model_id: str, manifest: str, shown: str) -> Path:
    bundle = Bundle.open(path)
    if (bundle.model_id, bundle.manifest_sha256()) != (model_id, manifest):
        raise IntegrityError(
            f"{shown} was registered as bundle {model_id}, but its files are bundle "
            f"{bundle.model_id}: register the right one again"
        )
    return path


def _download(model: str, store: str, folder: Path) -> Path:
    """Download the bundle inside a logged model; other files there are kept."""
    import mlflow

    place = mlflow.artifacts.download_artifacts(
        artifact_uri=f"{model}/artifacts", dst_path=str(folder), tracking_uri=store
    )
    found = [path.parent for path in sorted(Path(place).rglob(MANIFEST))]
    if not found:
        raise IntegrityError(f"{model} holds no bundle ({MANIFEST} is missing)")
    return found[0]


def _read_back(bundle: Bundle, model: str, store: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fetched = _download(model, store, Path(folder))
        _verified(fetched, bundle.model_id, bundle.manifest_sha256(), model)


def _tags(bundle: Bundle) -> dict[str, str]:
    return {MODEL_ID: bundle.model_id, MANIFEST_SHA256: bundle.manifest_sha256()}


def _run_id(client: Any, bundle: Bundle) -> str | None:
    """Return the run that trained `bundle`, if the store has it."""
    run = run_of(bundle.path)
    experiment = client.get_experiment_by_name(run[0]) if run else None
    if run is None or experiment is None:
        return None
    wanted = f"tags.`{RUN_KEY}` = '{run[1]}'"
    found = client.search_runs([experiment.experiment_id], wanted, max_results=1)
    return str(found[0].info.run_id) if found else None


def _create_version(
    client: Any, name: str, logged: Any, shown: dict[str, Any], run_id: str | None, store: str
) -> Any:
    """Create a version whose files are those of `logged`, and note it there.

    shown: its tags and its description.

    A server takes a model's files under the model's own name alone, and notes the version by
    itself. A database's registry would look that name up in MLflow's global store, not in its own.
    """
    if not is_database(store):
        return client.create_model_version(
            name, logged.model_uri, run_id, **shown, model_id=logged.model_id
        )
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    created = client.create_model_version(name, logged.artifact_location, run_id, **shown)
    versions = json.dumps([{"name": name, "version": created.version}])
    client.set_logged_model_tags(logged.model_id, {MLFLOW_MODEL_VERSIONS: versions})
    return created


def _version(client: Any, name: str, alias: str | None, version: str | None) -> Any:
    """Return a version of a registered model by number, `latest` or alias."""
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = [found.name for found in client.search_registered_models(max_results=1000)]
        known = nearest(name, names) or (f"; there are {', '.join(names[:10])}" if names else "")
        raise NotFoundError(f"no registered model '{name}'{known}") from None
    if alias is not None:
        if alias not in model.aliases:
            known = ", ".join(f"@{found}" for found in sorted(model.aliases)) or "none"
            hint = nearest(alias, list(model.aliases))
            raise NotFoundError(f"models:/{name} has no alias '{alias}'{hint}; aliases: {known}")
        version = str(model.aliases[alias])
    numbers = sorted(int(found.version) for found in _versions(client, f"name='{name}'"))
    if version == "latest" and numbers:
        version = str(numbers[-1])
    if version is None or not version.isdecimal() or int(version) not in numbers:
        said = "name one" if version is None else f"there is no version '{version}'"
        raise NotFoundError(
            f"models:/{name}: {said}; versions: {', '.join(map(str, numbers[-10:])) or 'none'}, "
            f"aliases: {', '.join(f'@{found}' for found in sorted(model.aliases)) or 'none'}"
        )
    return client.get_model_version(name, version)


def _version_of_run(client: Any, run_id: str) -> Any:
    found = _versions(client, f"run_id='{run_id}'")
    if not found:
        raise NotFoundError(
            f"run {run_id} has no registered version; register its bundle first "
            "(recsys register RUN_FOLDER --name NAME), or name the folder"
        )
    return max(found, key=lambda version: (version.creation_timestamp, int(version.version)))


def _versions(client: Any, wanted: str) -> list[Any]:
    versions, token = [], None
    while True:
        page = client.search_model_versions(wanted, page_token=token)
        versions += page
        token = page.token
        if not token:
            return versions


def _create_name(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _experiment(client: Any, store: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_root(store)))
        except MlflowException:  # somebody else was quicker, or it raises again below
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return str(found.experiment_id)


def _check_alias(alias: str | None) -> None:
    """Refuse what MLflow keeps for itself before any work is done."""
    if alias is None:
        return
    if alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.I):
        raise ConfigError(f"alias '{alias}' is reserved by MLflow; take another, as in 'champion'")
    if not re.fullmatch(r"[\w\-]+", alias):
        raise ConfigError(f"alias '{alias}': only letters, digits, '_' and '-' are allowed")


def _local_bundle(path: Path) -> Path:
    """Return `path`, or the one bundle in it, or of the run's folder `path`."""
    if (path / MANIFEST).is_file():
        return path
    inside = bundles_of_run(path) or bundles_in(path)
    if len(inside) != 1:
        raise NotFoundError(
            f"{path}: neither a bundle ({MANIFEST} is missing) nor a run's folder with one"
        )
    return inside[0]


def _near_path(reference: str) -> str:
    parent = Path(reference).parent
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    return nearest(Path(reference).name, names)


@contextmanager
def _mlflow(store: str) -> Iterator[Any]:
    """Hand out a client of a store whose tables are there; errors of MLflow are explained."""
    quieten()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in ("mlflow.store", "mlflow.pyfunc", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with http_limits(_RETRIES):
            with first_use(store):
                client = MlflowClient(tracking_uri=store, registry_uri=store)
                client.search_registered_models(max_results=1)
            yield client
    except MlflowException as error:
        words = " ".join(str(error).split())[:500]
        raise ConfigError(f"MLflow at {store}: {words}") from error
