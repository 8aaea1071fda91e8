"""A model as what makes it of an earlier one: written, and applied.

A folder with the files of `recsys.bundle.delta`, a README.md that says how to apply it, and
export.json: the target `delta`, model_id, base, the hashes of the base's files that are read, and
how many rows of each tensor differ.
"""

from pathlib import Path
from typing import Any

from recsys.bundle.delta import apply_delta, write_delta
from recsys.bundle.directory import RUN_BUNDLES, Bundle, bundles_of_run
from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import ConfigError, IntegrityError
from recsys.serving.export.manifest import open_export, write_manifest

DELTA = "delta"
_PAGE = """# What makes model {result} of model {base}

```
recsys verify .
recsys patch MODEL_{base} . --output made
```

`made` then stands for the model, as the folder of a run does. Another model than {base} is
refused. What is made has the same bits as the model that was exported.

`rows/weights.safetensors` holds the rows of the table that differ: `rows.table.weight` (n,) and
`values.table.weight` (n, dim).
"""


def export_delta(base: Path, result: Path, out: Path) -> dict[str, Any]:
    """Write what makes one model of another into the folder `out`; return what was written.

    Raises:
        ConfigError: the two are the same model, or `out` exists.
        NotFoundError, IntegrityError: there is no such bundle, or it is damaged.
    """
    if out.exists():
        raise ConfigError(f"{out} exists: name a new folder")
    before, after = Bundle.open(base), Bundle.open(result)
    if before.model_id == after.model_id:
        raise ConfigError(
            f"{base} and {result} are the same model ({after.model_id}): give the model that this "
            "one was trained on from"
        )
    with staged_folder(out.parent, out.name) as staging:
        found = write_delta(staging, before, after)
        (staging / "README.md").write_text(_PAGE.format(base=found.base, result=found.result))
        size = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
        facts = {
            "model_id": found.result,
            "base": found.base,
            "base_sha256": dict(found.base_sha256),
            "rows_that_differ": {name: list(count) for name, count in found.rows.items()},
            "bytes": size,
            "bytes_of_the_model": sum(entry["bytes"] for entry in after.manifest["files"]),
        }
        write_manifest(staging, DELTA, facts)
        publish(staging, out)
    return {"folder": str(out), "target": DELTA, **facts}


def patch(base: Path, delta: Path, out: Path) -> Path:
    """Make the model that a delta is of, below the folder `out`; return that of its bundle.

    Raises:
        NotFoundError: there is no delta, or no bundle.
        IntegrityError: one is damaged, or the delta is of another base; nothing is left behind.
        ConfigError: the export is no delta, or `out` holds a model.
    """
    export = open_export(delta)
    if export.facts["target"] != DELTA:
        raise ConfigError(
            f"{delta} is an export to {export.facts['target']}, not a delta: write one with recsys "
            "export MODEL --delta-from EARLIER --out FOLDER"
        )
    if bundles_of_run(out):
        raise ConfigError(f"{out} holds a model: name a new folder")
    bundle, wanted = Bundle.open(base), export.facts["base"]
    if bundle.model_id != wanted:
        raise IntegrityError(
            f"{delta} makes model {export.facts['model_id']} of model {wanted}; {base} is model "
            f"{bundle.model_id}: give model {wanted}"
        )
    return apply_delta(export.read, export.names(), bundle, out / RUN_BUNDLES)
