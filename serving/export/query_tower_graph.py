"""The query tower of a retrieval model as one ONNX graph: raw requests in, query vectors out.

    a column        (B,) or (B, L) text, int64, bool, float64 ...: see `query_columns.InputColumn`
    history         (B, L) item ids
    ->
    vector          (B, W) float32, or (B, I, W) of a model of several interests
    repeat_gain     (B,) float32, of a model of sessions that says what items of the session gain

Hashing, scaling, the ids that training knew, the catalogue's rows and what a model sees of a
history are nodes that are written by hand (`query_columns`, `query_steps`); the model over padded
tensors is what torch exports (`recsys.models.padded_queries`). Both become one graph.

Shape letters: B requests, M most steps of a history, W width of a vector, I interests.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.kinds.expression import Expressed
from recsys.features.kinds.feature import Feature
from recsys.layers.geometry import points_of
from recsys.models.padded_queries import PADDED
from recsys.models.retrieval import RetrievalModel
from recsys.models.retrieval_kinds import RETRIEVAL
from recsys.serving.export.graph_symbols import FLOAT, GraphWriter, Symbol
from recsys.serving.export.onnx_graph import traced
from recsys.serving.export.padded_embedding import PaddedEmbedding, input_names
from recsys.serving.export.query_columns import Columns, Inputs, Steps
from recsys.serving.export.query_steps import Clock, SeenSteps, seen_steps
from recsys.serving.export.query_vectors import GAIN, VECTOR
from recsys.serving.recommend.scorer import Scorer

COLUMNS = "columns"
"""Metadata of the graph: its inputs as JSON."""
_REQUEST, _STEPS = 1, 2
"""Sides of the embedding's plan: what is known of a request, and of each step of its history."""
_PREFIX = "history_"


class PaddedTower(nn.Module):
    """A query tower over encoded requests whose histories are padded.

    Its inputs are those of the embedding of the request, then of each step where the model reads
    steps, then rows of the catalogue (B, M), for steps gaps (B, M), and lengths (B,).
    """

    def __init__(self, model: RetrievalModel, vectors: Tensor) -> None:
        super().__init__()
        self.reads = RETRIEVAL[model.config.kind].reads
        self.of_steps = RETRIEVAL[model.config.kind].of_steps
        layouts = model.embedding.plan.layouts
        self.layouts = layouts[_REQUEST : _STEPS + 1] if self.of_steps else layouts[_REQUEST:_STEPS]
        self.sides = nn.ModuleList(
            PaddedEmbedding(model.embedding, layout) for layout in self.layouts
        )
        self.model = model.eval()
        self.register_buffer("points", points_of(vectors, model.config.geometry).contiguous())

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return vectors, and gains where the model gives some."""
        left = list(given)
        rows_BM = left[-3] if self.of_steps else left[-2]
        embedded = []
        for number, (side, layout) in enumerate(zip(self.sides, self.layouts, strict=True)):
            count = len(input_names(layout))
            taken, left = left[:count], left[count:]
            if not count:
                shape = (*rows_BM.shape[: 1 + number], 0)
                embedded.append(self.get_buffer("points").new_zeros(shape))
            elif number:
                flat = side(*(one.flatten(0, 1) for one in taken))
                embedded.append(flat.view(*rows_BM.shape, flat.shape[1]))
            else:
                embedded.append(side(*taken))
        points_BME = self.get_buffer("points")[rows_BM]
        queries = PADDED[self.reads](self.model, *embedded, points_BME, *left[1:])
        vectors, gain = self.model.without_gain(queries.float())
        return (vectors,) if gain is None or not gives_gain(self.model) else (vectors, gain)


def gives_gain(model: RetrievalModel) -> bool:
    """Whether a query says what the items of its session gain."""
    return model.config.repeats is True


def write_query_tower(path: Path, scorer: Scorer) -> list[dict[str, Any]]:
    """Write the graph of a model's query tower; return its input columns.

    Weights of 2 GB and more go to a second file next to `path`.

    Raises:
        ConfigError: a feature cannot be written as a graph; it is named.
    """
    tower = PaddedTower(scorer.model, scorer.vectors)
    inputs = Inputs(GraphWriter())
    made = _encoded(inputs, scorer, tower)
    names, example, shapes = _example(tower)
    outputs = (VECTOR, GAIN) if gives_gain(scorer.model) else (VECTOR,)
    program = traced(tower, names, example, shapes, outputs)
    _join(program.model, inputs, dict(zip(names, made, strict=True)))
    program.save(path)
    return inputs.to_json()


def _encoded(inputs: Inputs, scorer: Scorer, tower: PaddedTower) -> list[Symbol]:
    """Return the inputs of `tower` as symbols over raw columns."""
    schema, encoder = scorer.schema, scorer.encoder
    seen = _steps_of(inputs, scorer)
    of_request = list(schema.features_of("users"))
    of_steps = list(schema.features_of("interactions"))
    if not tower.of_steps:
        of_request, of_steps = of_request + of_steps, []
    columns = Columns(inputs)
    made = _side(columns, of_request, encoder)
    if tower.of_steps:
        steps = Columns(inputs, Steps(seen.order, _PREFIX))
        shape = [seen.rows.size(0), seen.rows.size(1)]
        flat = _side(steps, of_steps, encoder)
        made += [one.shaped(*shape, one.size(1)) for one in flat]
    made.append(seen.rows)
    if tower.of_steps:
        made.append(_gap(inputs.graph, seen))
    return [*made, seen.length]


def _steps_of(inputs: Inputs, scorer: Scorer) -> SeenSteps:
    """Return what the model sees of histories, with times where it or the sessions need them."""
    config: Any = scorer.model.config
    time, sessions = scorer.schema.interactions.time, scorer.sessions
    pause = None if sessions is None else sessions.inactivity_minutes
    clock = None
    if sessions is not None and time is not None and (config.time_gaps or pause is not None):
        clock = Clock(time.unit, pause)
    return seen_steps(inputs, scorer.item_ids, config.history_length, clock)


def _gap(graph: GraphWriter, seen: SeenSteps) -> Symbol:
    if seen.gap is not None:
        return seen.gap
    return (seen.rows.cast(FLOAT) * 0.0) + float("nan")


def _side(columns: Columns, features: list[Feature], encoder: FeatureEncoder) -> list[Symbol]:
    """Return single, values and weights of lists, and dense of one side: `input_names`."""
    graph, whole = columns.graph, Expressed()
    for feature in features:
        try:
            one = feature.express(columns, encoder)
        except NotImplementedError as error:
            raise ConfigError(
                f"feature '{feature.name}': {error}; export vectors with --queries, or train "
                "without it"
            ) from None
        whole.single += one.single
        whole.multi += one.multi
        whole.dense += [part.shaped(part.size(0), -1) for part in one.dense]
    found = []
    if whole.single:
        found.append(graph.joined([one.widened(1) for one in whole.single], 1))
    for lists in whole.multi:
        found += [lists.values, lists.weights]
    if whole.dense:
        found.append(graph.joined(whole.dense, 1))
    return found


def _example(
    tower: PaddedTower,
) -> tuple[tuple[str, ...], tuple[Tensor, ...], tuple[dict[int, Any], ...]]:
    """Return names, tensors and free dimensions that torch follows the model with."""
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("seen_steps")
    names: list[str] = []
    example: list[Tensor] = []
    shapes: list[dict[int, Any]] = []

    def add(name: str, shape: tuple[int, ...], free: tuple[Any, ...], kind: torch.dtype) -> None:
        names.append(name)
        example.append(torch.zeros(shape, dtype=kind))
        shapes.append(dict(enumerate(free)))

    for number, layout in enumerate(tower.layouts):
        outer, free = ((2, 3), (batch, steps)) if number else ((2,), (batch,))
        if layout.single:
            add(f"{number}.single", (*outer, len(layout.single)), free, torch.int64)
        for place, (name, _) in enumerate(layout.multi):
            longest = torch.export.Dim(f"longest_{number}_{place}")
            for part, kind in (("values", torch.int64), ("weights", torch.float32)):
                add(f"{number}.{part}.{name}", (*outer, 5), (*free, longest), kind)
        if layout.dense:
            add(f"{number}.dense", (*outer, len(layout.dense)), free, torch.float32)
    add("rows", (2, 3), (batch, steps), torch.int64)
    if tower.of_steps:
        add("gap", (2, 3), (batch, steps), torch.float32)
    add("length", (2,), (batch,), torch.int64)
    return tuple(names), tuple(example), tuple(shapes)


def _join(model: Any, inputs: Inputs, made: dict[str, Symbol]) -> None:
    """Put the nodes of raw columns in front of the model's own, in place."""
    graph, writer = model.graph, inputs.graph
    old = {value.name: value for value in graph.inputs}
    for name, value in old.items():
        value.replace_all_uses_with(made[name].value)
    del graph.inputs[:]
    graph.inputs.extend(writer.inputs)
    first = next(iter(graph))
    graph.insert_before(first, writer.tape.nodes)
    for value in (*writer.tape.initializers, *writer.defaults):
        graph.initializers[value.name] = value
    graph.opset_imports["com.microsoft"] = 1
    model.metadata_props[COLUMNS] = json.dumps(inputs.to_json())
