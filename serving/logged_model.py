"""The MLflow model that a bundle is registered as: its files, signature, example, requirements."""

import threading
import warnings
from importlib.metadata import version as installed_version
from pathlib import Path

from recsys.bundle.directory import Bundle

_REQUIRED = (
    "recsys-engine mlflow torch numpy pandas pyarrow pydantic safetensors scikit-learn faiss-cpu "
    "pyparsing"
)
# MLflow hands the model that a file of code sets through a global of its module.
_saving = threading.Lock()


def save_model(bundle: Bundle, folder: Path) -> None:
    """Write the MLflow model: bundle, code (`recsys.serving.pyfunc`), signature, example."""
    # Warnings are silenced for the whole process at once, so one thread at a time.
    with _saving, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, on import and on every save
        import mlflow.pyfunc

        from recsys.serving import pyfunc
        from recsys.serving.answering.registry import answering_of
        from recsys.serving.frames import to_frame

        answering = answering_of(bundle)
        example, signature = answering.described(bundle)
        needed = [*_REQUIRED.split(), *answering.requirements(bundle)]
        mlflow.pyfunc.save_model(
            folder,
            python_model=pyfunc.__file__,
            artifacts={"bundle": str(bundle.path.absolute())},
            signature=signature,
            input_example=None if example is None else to_frame(example),
            pip_requirements=[
                f"{name}=={installed_version(name)}" for name in dict.fromkeys(needed)
            ],
        )
