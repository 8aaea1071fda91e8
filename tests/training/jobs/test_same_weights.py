"""The same command twice: the same weights, byte for byte, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.families.load import load_config

PROGRAM = """
import logging
import sys
from pathlib import Path

import torch

from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

torch.set_num_threads(1)
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
print(train(load_config(Path(sys.argv[1]))).bundle)
"""


def test_a_training_in_another_process_gives_the_same_weights(
    config: ExperimentConfig, trained: Path, tmp_path: Path
) -> None:
    quiet = config.tracking.model_copy(update={"enabled": False})
    again = config.model_copy(update={"output": str(tmp_path / "runs"), "tracking": quiet})
    path = tmp_path / "again.yaml"
    path.write_text(dump_config(again))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    bundle = Path(done.stdout.splitlines()[-1])
    weights = "weights.safetensors"
    assert (bundle / weights).read_bytes() == (trained / weights).read_bytes()
    (kernel,) = (line for line in done.stdout.splitlines() if line.startswith("table kernel: "))
    settled = load_config(bundle.parents[1] / "config.yaml").embedding.backend
    assert kernel.startswith(f"table kernel: {settled} (")
