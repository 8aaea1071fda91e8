"""Built-in data for a first look, and the main job on it from end to end."""

from pathlib import Path
from typing import TYPE_CHECKING

from recsys.app.arguments import checked
from recsys.app.run import Run
from recsys.core.atomic import write_whole
from recsys.core.folders import check_folder
from recsys.core.remote.path import here

if TYPE_CHECKING:
    import pandas as pd

NAME = "demo"
"""Of the registered model."""


@checked
def demo_tables(
    *,
    users: int = 2_000,
    items: int = 1_000,
    events: int = 60_000,
    seed: int = 0,
    noise: bool = False,
) -> "tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]":
    """Return the log, the items and the users of the built-in retail world as data frames.

    Args:
        users: how many users there are.
        items: how many items.
        events: interactions to draw.
        seed: of everything that is drawn.
        noise: the twin world in which nothing can be learnt.

    Example:
        >>> log, items, users = recsys.demo_tables(users=50, items=40, events=500)
        >>> list(log.columns)
        ['user_id', 'item_id', 'timestamp', 'device', 'session_id']
    """
    from recsys.features.world.world import RetailWorld

    world = RetailWorld.create(seed=seed, users=users, items=items, events=events, noise=noise)
    return world.interactions.to_pandas(), world.items.to_pandas(), world.users.to_pandas()


@checked
def demo(
    out: str | Path = "demo",
    *,
    users: int = 2_000,
    items: int = 1_000,
    events: int = 60_000,
    seed: int = 0,
    noise: bool = False,
    overrides: tuple[str, ...] = (),
    quiet: bool = False,
) -> Run:
    """Run the main job on the built-in world: train, evaluate, register, promote, score.

    Args:
        out: folder for data, runs, the MLflow store and the recommendations.
        users: how many users the world has.
        items: how many items.
        events: interactions to draw.
        seed: of the world.
        noise: the twin world in which nothing can be learnt.
        overrides: configuration keys, as in "training.epochs=5".
        quiet: print no progress.

    Returns:
        The run; the recommendations are in `out`/recommendations/<model id>.
    """
    from recsys.app.scoring import score_model
    from recsys.app.training import train_once
    from recsys.features.world.world import RetailWorld
    from recsys.serving.registry import promote
    from recsys.training.evaluation.oracle import best_reachable
    from recsys.training.families.load import load_config

    out = here(out, "out", "the demo keeps a database there")
    out = check_folder(out, "data, runs and recommendations")
    out.mkdir(parents=True, exist_ok=True)
    world = RetailWorld.create(seed=seed, users=users, items=items, events=events, noise=noise)
    files = world.write(out / "data")
    path = files.folder / "recsys.yaml"
    write_whole(path, world.config_text(files))
    store = f"tracking.uri=sqlite:///{(out / 'mlflow.db').resolve()}"
    keys = (f"output={out / 'runs'}", store, f"tracking.model_name={NAME}")
    config = load_config(path, (*keys, *overrides))
    oracle = best_reachable(world)
    run = train_once(config, None, quiet=quiet, extra_rankers=oracle)
    assert run is not None, "the demo trains in one process"
    if run.version is not None:
        promote(NAME, run.version, "champion", uri=config.tracking.uri)
    tables = {"interactions": config.data.interactions, "users": config.data.users}
    score_model(run.bundle, out / "recommendations" / run.bundle.name, tables)
    return run
