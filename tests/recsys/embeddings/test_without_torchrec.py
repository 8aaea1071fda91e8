"""The engine trains where TorchRec and FBGEMM are not installed, and says what needs them.

The extras `cpu` and `gpu` bring them and what TorchRec imports. A process of its own cannot import
any of it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import itertools
import sys
from importlib.machinery import PathFinder

ABSENT = {"torchrec", "fbgemm_gpu", "tensordict", "torchmetrics", "tqdm", "pyre_extensions"}


class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in ABSENT:
            return super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
from pathlib import Path

import recsys
from recsys.app import cli
from recsys.core.errors import ConfigError
from recsys.embeddings.sharded import check_shards
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import VALIDATION
from recsys.training.families.load import load_config
from recsys.training.engine.ranks import ALONE
from recsys.training.families.loading import load_data
from recsys.training.families.two_tower.task import two_tower_task
from recsys.training.jobs import train


def steps(*overrides):
    config = load_config(Path(sys.argv[1]), ("training.batch_size=64", *overrides))
    data = load_data(config)
    queries = build_queries(data, VALIDATION, history_length=1, filter_seen=True, limit=1, seed=0)
    task = two_tower_task(config, data, queries, ALONE)
    batches = task.batches(0, 0)
    for batch in itertools.islice(batches, 2):
        before = task.trained.table.weight.clone()
        task.loss(batch).backward()
        task.trained.optimizer.step()
        assert (task.trained.table.weight != before).any()
    batches.close()
    return config


table = steps().embedding
for refused in (lambda: steps("embedding.backend=fbgemm"), lambda: check_shards(table, 2)):
    try:
        refused()
    except ConfigError as error:
        print(error)
assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
print("trained")
"""


@pytest.fixture(scope="module")
def printed(world_config: Path) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, str(world_config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_trains(printed: list[str]) -> None:
    assert printed[-1] == "trained"


def test_what_needs_them_is_refused_and_says_how_to_get_them(printed: list[str]) -> None:
    kernel, ranks, _ = printed
    assert kernel == (
        "embedding.backend: fbgemm, but FBGEMM is not installed: pip install "
        "'recsys-engine[cpu]' (for a GPU: [gpu]), or set embedding.backend: auto"
    )
    assert ranks == (
        "training in 2 processes needs TorchRec and FBGEMM (No module named 'fbgemm_gpu'): "
        "pip install 'recsys-engine[cpu]' (for a GPU: [gpu]), or train with --workers 1"
    )
