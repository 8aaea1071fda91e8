"""Shuffled batches of a click log: each row once, repeatable, the same for any number of ranks."""

import os
import threading
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys.core.errors import IntegrityError
from recsys.data.batch import RankingBatch
from recsys.features.clicks.loader import ClickLoader, _Windows
from recsys.features.clicks.log import ClickLog, encode_click_log
from recsys.features.clicks.store import PartFiles
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION, SplitConfig
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies, Sources

ROWS = 250  # 200 of them for training: blocks of 16 leave a short one
SCHEMA = """{"interactions": {"label": {"column": "click"}, "weight": "row"}, "features": [
  {"name": "id", "table": "interactions", "kind": "categorical"},
  {"name": "tags", "table": "interactions", "kind": "multi_categorical"},
  {"name": "row", "table": "interactions", "kind": "numeric"}]}"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> ClickLog:
    folder = tmp_path_factory.mktemp("clicks")
    rng = np.random.default_rng(3)
    lengths = rng.integers(0, 4, ROWS)
    columns = {
        "click": rng.integers(0, 2, ROWS),
        "id": rng.integers(0, 2**60, ROWS),
        "tags": [rng.integers(0, 50, length).tolist() for length in lengths],
        "row": np.arange(ROWS),
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")
    return encode_click_log(
        Schema.model_validate_json(SCHEMA),
        Sources(interactions=str(folder / "log.parquet")),
        Policies(),
        SplitConfig(validation=0.1, test=0.1),
        folder / "encoded",
    )


def loader_of(
    log: ClickLog, batch_size: int = 24, window_rows: int = 48, block_rows: int = 16, seed: int = 1
) -> ClickLoader:
    return ClickLoader(
        log, batch_size=batch_size, seed=seed, window_rows=window_rows, block_rows=block_rows
    )


def flat(batch: RankingBatch) -> list[list[float]]:
    block = batch.features
    tensors = [block.single, block.dense, block.multi[0].values, block.multi[0].offsets]
    tensors += [batch.label, batch.weight, batch.examples]
    return [tensor.flatten().tolist() for tensor in tensors]


def per_row(batches: list[RankingBatch]) -> dict[int, list[list[float]]]:
    """Return each row's number and content."""
    found = {}
    for batch in batches:
        for at, number in enumerate(batch.examples.tolist()):
            one = batch.features.take(torch.tensor([at]))
            assert number not in found
            tensors = (one.single, one.dense, one.multi[0].values)
            content = [tensor.flatten().tolist() for tensor in tensors]
            found[number] = [*content, [float(batch.label[at]), float(batch.weight[at])]]
    return found


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("batch_size", "window_rows", "block_rows"),
    [(24, 48, 16), (7, 64, 16), (90, 20, 20), (199, 1024, 8), (500, 16, 16), (13, 200, 1)],
)
def test_an_epoch_sees_every_training_row_once(
    log: ClickLog, batch_size: int, window_rows: int, block_rows: int, world: int
) -> None:
    loader = loader_of(log, batch_size, window_rows, block_rows)
    ranks = [list(loader.epoch(2, rank=rank, world=world)) for rank in range(world)]
    assert [len(batches) for batches in ranks] == [loader.num_steps] * world
    sizes = np.array([[len(batch) for batch in batches] for batches in ranks]).sum(0)
    full, rest = divmod(200, batch_size)
    assert sizes.tolist() == [batch_size] * full + [rest] * (rest > 0)
    seen = per_row([batch for batches in ranks for batch in batches])
    assert seen == per_row([log.read(TRAIN, slice(None))])


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_out_the_batch_of_one(log: ClickLog, world: int) -> None:
    loader = loader_of(log, batch_size=33)  # the last global batch has 2 rows
    ranks = [list(loader.epoch(0, rank=rank, world=world)) for rank in range(world)]
    for step, whole in enumerate(loader.epoch(0)):
        together = torch.zeros_like(whole.examples)
        for rank in range(world):
            together[rank::world] = ranks[rank][step].examples
        assert torch.equal(together, whole.examples)
    last = [len(batches[-1]) for batches in ranks]
    assert last == [1, 1] + [0] * (world - 2)
    for batches in ranks[2:]:
        empty = batches[-1]
        assert empty.features.single.shape == (0, 1)
        assert empty.features.dense.shape == (0, 2)
        assert empty.features.multi[0].offsets.tolist() == [0]


@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_an_epoch_goes_on_at_any_step(log: ClickLog, rank: int, world: int) -> None:
    whole = [flat(batch) for batch in loader_of(log).epoch(3, rank=rank, world=world)]
    for step in range(len(whole) + 1):
        later = loader_of(log).epoch(3, first_step=step, rank=rank, world=world)
        assert [flat(batch) for batch in later] == whole[step:]


def test_windows_before_the_first_step_are_not_read(
    log: ClickLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    read = PartFiles.read

    def _counted(files: PartFiles, ranges: list[tuple[int, int]]) -> RankingBatch:
        asked.append(sum(stop - start for start, stop in ranges))
        return read(files, ranges)

    monkeypatch.setattr(PartFiles, "read", _counted)
    assert len(list(loader_of(log).epoch(0))) == 9
    assert sum(asked) == 200
    asked.clear()
    assert len(list(loader_of(log).epoch(0, first_step=6))) == 3
    # Row 144 of the order begins the fourth window, or lies in it if the short block came before.
    assert sum(asked) in (200 - 144, 200 - 136)


def test_at_most_two_windows_are_in_memory(log: ClickLog, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    windows: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    read = _Windows._read

    def _watched(self: _Windows, window: int) -> RankingBatch:
        alive.append(len(windows) + 1)
        batch = read(self, window)
        windows.add(batch.label)
        return batch

    monkeypatch.setattr(_Windows, "_read", _watched)
    for _ in loader_of(log, batch_size=10, window_rows=16).epoch(0):
        pass
    assert len(alive) == 13
    assert max(alive) <= 2


def test_orders_differ_by_seed_and_epoch_alone(log: ClickLog) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = loader_of(log, seed=seed).epoch(epoch)
        return torch.cat([batch.examples for batch in batches]).tolist()

    orders = [order(1, 0), order(1, 1), order(2, 0)]
    assert len({tuple(one) for one in orders}) == 3
    assert order(1, 1) == orders[1]


def test_windows_are_of_random_blocks_in_random_order(log: ClickLog) -> None:
    firsts = set()
    for epoch in range(6):
        seen = torch.cat([batch.examples for batch in loader_of(log).epoch(epoch)]).numpy()
        blocks = frozenset((seen[:40] // 16).tolist())  # the first window has 40 rows or 48
        assert len(blocks) == 3
        firsts.add(blocks)
        assert (np.abs(np.diff(seen)) == 1).mean() < 0.2
    assert len(firsts) > 3


def test_one_window_is_a_uniform_shuffle(log: ClickLog) -> None:
    positions = np.zeros(200)
    epochs = 60
    for epoch in range(epochs):
        loader = loader_of(log, batch_size=200, window_rows=1024)
        (batch,) = loader.epoch(epoch)
        positions[batch.examples.numpy()] += np.arange(200)
        assert (batch.examples.diff().abs() == 1).sum() < 15  # 2 of 199 are expected
    mean = positions / epochs
    # The mean of 60 uniform positions has deviation 200 / sqrt(12 * 60) = 7.5: five of them.
    assert np.abs(mean - 99.5).max() < 5 * 200 / np.sqrt(12 * epochs)


def test_evaluation_reads_a_part_in_order(log: ClickLog) -> None:
    for part, first, stop in ((TRAIN, 0, 200), (VALIDATION, 200, 225), (TEST, 225, 250)):
        batches = list(loader_of(log).ordered(part, 9))
        assert [len(batch) for batch in batches[:-1]] == [9] * (len(batches) - 1)
        rows = torch.cat([batch.examples for batch in batches])
        assert rows.tolist() == list(range(first, stop))
        assert per_row(batches) == per_row([log.read(part, slice(None))])


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_out_evaluation_as_well(log: ClickLog, world: int) -> None:
    ranks = [
        list(loader_of(log).ordered(VALIDATION, 24, rank=r, world=world)) for r in range(world)
    ]
    assert [len(batches) for batches in ranks] == [2] * world  # of 24 rows and of 1
    seen = per_row([batch for batches in ranks for batch in batches])
    assert seen == per_row([log.read(VALIDATION, slice(None))])


def test_leaving_an_epoch_early_ends_its_threads(log: ClickLog) -> None:
    before = threading.active_count()
    batches = loader_of(log, batch_size=2).epoch(0)
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_file_cut_while_training_is_an_error(log: ClickLog) -> None:
    path = log.folder / "train" / "single.bin"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-80])
        with pytest.raises(
            IntegrityError, match=r"single.bin: ends before byte 15\d+ is read; remove its entry"
        ):
            list(loader_of(log).epoch(0))
    finally:
        path.write_bytes(content)


def test_short_reads_are_read_on(log: ClickLog, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = flat(log.read(TRAIN, slice(10, 150)))
    preadv = os.preadv

    def _short(handle: int, buffers: list[memoryview], place: int) -> int:
        return preadv(handle, [buffers[0][:100]], place)

    monkeypatch.setattr(os, "preadv", _short)
    assert flat(log.read(TRAIN, slice(10, 150))) == expected


def test_sizes_and_ranks_are_checked(log: ClickLog) -> None:
    with pytest.raises(ValueError, match="window_rows 8 at least block_rows"):
        loader_of(log, window_rows=8)
    with pytest.raises(ValueError, match="rank 2 of a world of 2"):
        next(loader_of(log).epoch(0, rank=2, world=2))
