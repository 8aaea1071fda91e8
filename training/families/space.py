"""What `recsys tune` searches of every model, around what a configuration has."""

from recsys.training.config.experiment import LearnedExperiment
from recsys.training.config.ranges import Choice, Range, Space, around, choice


def rates_and_batches(config: LearnedExperiment) -> Space:
    """Return what changes no shape, around what `config` has."""
    training, size = config.training, config.training.batch_size
    return {
        "training.learning_rate": around(training.learning_rate),
        "embedding.learning_rate": around(config.embedding.learning_rate),
        "training.weight_decay": Range(1e-5, 0.1, log=True),
        "training.batch_size": choice(size, sorted({max(size // 2, 1), size, size * 2, size * 4})),
    }


def table_width(config: LearnedExperiment) -> Space:
    """Return the widths of the table's rows."""
    return {"embedding.dim": choice(config.embedding.dim, [8, 16, 32])}


def model_sizes(config: LearnedExperiment, known: Space) -> Space:
    """Return those of `known`, by the name of a model's setting, that the model has.

    A choice also has what the configuration says.
    """
    model = config.model.model_dump(mode="json")
    space: Space = {}
    for name, one in known.items():
        if name in model:
            if isinstance(one, Choice):
                one = choice(model[name], one.to_json())
            space[f"model.{name}"] = one
    return space
