"""What jobs write is a folder: what is named as a file is refused."""

from pathlib import Path

import pytest

from recsys.core.errors import ConfigError
from recsys.serving.engines.parts import write_parts
from recsys.serving.export.onnx_export import export_onnx
from recsys.serving.export.retrieval import export_index


def test_a_job_goes_on_in_a_folder_of_its_own_of_any_name(tmp_path: Path) -> None:
    """Folders that jobs made before names were looked at can be finished."""
    write_parts(tmp_path / "out", {"k": 1}, {})
    (tmp_path / "out").rename(tmp_path / "out.csv")
    assert write_parts(tmp_path / "out.csv", {"k": 1}, {}) == 0
    with pytest.raises(ConfigError, match=r"a folder of Parquet parts, not a \.csv"):
        write_parts(tmp_path / "new.csv", {"k": 1}, {})


def test_exports_are_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"folder of model.onnx and onnx.json, not a .onnx file"):
        export_onnx(tmp_path, tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=r"folder of item vectors .*, not a .parquet file"):
        export_index(tmp_path, "parquet", tmp_path / "vectors.parquet", min_recall=0)
