"""What a session costs when one more event comes: a step of its state, or the whole session anew.

A model of `session_ml1m.yaml`'s size (128 wide, two blocks, 200 steps), untrained, one thread, one
session. `append` goes on from the kept state; `anew` encodes all events. `full` is an event of a
session longer than the model sees, which moves all its steps by a place.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from _harness import Benchmark, alternated, peak_memory_mib

from recsys.data.batch import FeatureBlock, FeatureLayout, History, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.transformer import TransformerConfig
from recsys.models.session import SessionTransformer, SessionTransformerConfig
from recsys.models.session_state import SessionState

LIMIT = 200
LENGTHS = (10, 50, 199, LIMIT)
"""Events before the one that comes."""
NUM_ITEMS = 1000


def untrained() -> SessionTransformer:
    layouts = (FeatureLayout((("item", 2),), (), ()), *(FeatureLayout((), (), ()),) * 2)
    table = TableConfig(num_rows=4096, dim=64, backend="torch")
    config = SessionTransformerConfig(
        dim=128, history_length=LIMIT, transformer=TransformerConfig(num_blocks=2, num_heads=4)
    )
    plan = EmbeddingPlan(num_rows=table.num_rows, dim=table.dim, layouts=layouts)
    embedding = UnifiedEmbedding(plan, build_table(table, device=torch.device("cpu"), seed=0))
    return SessionTransformer(config, embedding).eval()


def nothing(rows: int) -> FeatureBlock:
    return FeatureBlock(torch.zeros(rows, 0, dtype=torch.int64), (), torch.zeros(rows, 0))


def history_of(length: int) -> History:
    items = torch.randint(NUM_ITEMS, (length,), generator=torch.Generator().manual_seed(0))
    row = Jagged(items, torch.tensor([0, length]))
    return History(row, nothing(length), torch.zeros(length))


def main() -> None:
    bench = Benchmark("session_append", __doc__ or "")
    torch.set_num_threads(1)
    model, user, figures = untrained(), nothing(1), {}
    ids = torch.arange(NUM_ITEMS)[:, None]
    with torch.inference_mode():
        vectors = model.encode_items(FeatureBlock(ids, (), torch.zeros(NUM_ITEMS, 0)))
        for length in LENGTHS:
            state = SessionState.empty(model, user).extend(vectors, history_of(length))
            whole = history_of(min(length + 1, LIMIT))
            found = alternated(
                {
                    "append": lambda: state.append(vectors, 3, nothing(1), 1.0).query(),  # noqa: B023
                    "anew": lambda: model.encode_queries(user, vectors, whole),  # noqa: B023
                },
                bench.sized(200, 20, 1),
            )
            name = "full" if length == LIMIT else str(length)
            for what, timing in found.items():
                figures[f"{what}_us_{name}"] = round(timing.cpu * 1e6)
            cells = ", ".join(f"{what} {timing.cpu * 1e6:.0f} us" for what, timing in found.items())
            bench.row(f"after {length} events", cells)
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib(), "seed": 0})


if __name__ == "__main__":
    main()
