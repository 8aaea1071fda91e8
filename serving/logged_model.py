"""The MLflow model that a bundle is registered as: its files, signature, example, requirements."""

import re
import tempfile
import threading
import warnings
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from recsys.bundle.directory import Bundle
from recsys.serving.wheel import write_wheel

_REQUIRED = (
    "recsys-engine mlflow torch numpy pandas pyarrow pydantic safetensors scikit-learn faiss-cpu "
    "pyparsing"
)
_WHEELS = "wheels"
"""Folder of the package's own wheel in the model, as MLflow names it for models with wheels."""
# MLflow hands the model that a file of code sets through a global of its module.
_saving = threading.Lock()


def save_model(bundle: Bundle, folder: Path) -> None:
    """Write the MLflow model: bundle, code (`recsys.serving.pyfunc`), signature, example.

    The package comes with it as a wheel: an environment that MLflow makes for the model installs
    that, so no index needs to have the package.
    """
    # Warnings are silenced for the whole process at once, so one thread at a time.
    with _saving, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, on import and on every save
        import mlflow.pyfunc

        from recsys.serving import pyfunc
        from recsys.serving.answering.registry import answering_of
        from recsys.serving.frames import to_frame

        answering = answering_of(bundle)
        example, signature, columns = answering.described(bundle)
        needed = [*_REQUIRED.split(), *answering.requirements(bundle)]
        mlflow.pyfunc.save_model(
            folder,
            python_model=pyfunc.__file__,
            artifacts={"bundle": str(bundle.path.absolute())},
            signature=signature,
            metadata={"columns": columns},
            input_example=None if example is None else to_frame(example),
            pip_requirements=[_pinned(name) for name in dict.fromkeys(needed)],
        )
    _ship_package(folder)


def _pinned(name: str) -> str:
    """Return the requirement of what is installed; no index has the local part of a version."""
    return f"{name}=={installed_version(name).partition('+')[0]}"


def _ship_package(model: Path) -> None:
    """Put the package's wheel into a saved model, and require it in place of a version.

    Paths in a model's requirements are relative to its folder, where MLflow runs the installer.
    """
    (model / _WHEELS).mkdir()
    wheel = write_wheel(model / _WHEELS)
    for name in ("requirements.txt", "conda.yaml"):
        path = model / name
        pinned = re.compile(r"recsys-engine==\S+")
        text, times = pinned.subn(f"{_WHEELS}/{wheel.name}", path.read_text())
        assert times == 1, path
        path.write_text(text)


def log_model(
    client: Any,
    bundle: Bundle,
    name: str,
    experiment: str,
    run_id: str | None,
    tags: dict[str, str],
) -> Any:
    """Log the bundle inside an MLflow model and return that, READY once it is all there.

    run_id: the run that trained it, whose output it becomes.
    """
    from mlflow.entities import LoggedModelOutput

    logged = client.create_logged_model(
        experiment, name, source_run_id=run_id, tags=tags, model_type="recsys bundle"
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            save_model(bundle, model)
            client.log_model_artifacts(logged.model_id, str(model))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    if run_id is not None:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")
