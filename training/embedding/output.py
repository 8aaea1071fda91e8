"""What a study of the embedding leaves: a table to read, a configuration, a run in MLflow."""

from datetime import datetime

from recsys.core.atomic import write_whole
from recsys.core.remote.path import path_at
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.config.file import dump_config
from recsys.training.embedding.study import Study, study
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.tracking.run import start_run

PLAN_FILE = "recommended.yaml"


def tracked_study(
    config: RankerExperiment,
    *,
    lookups: int | None,
    epochs: int,
    max_lookups: int,
) -> Study:
    """Run the study as an MLflow run: trials and gates as metrics, the plan as an artifact.

    Raises:
        ConfigError: as `recsys.training.embedding.study.study` does; nothing is left behind.
    """
    found = study(config, lookups=lookups, epochs=epochs, max_lookups=max_lookups)
    run_dir = path_at(config.output) / f"embedding-study-{datetime.now():%Y%m%d-%H%M%S-%f}"
    run_dir.mkdir(parents=True)
    write_whole(run_dir / PLAN_FILE, tuned_config(config, found))
    tracker = start_run(
        config.tracking,
        run_dir=run_dir,
        name=run_dir.name,
        params={"lookups": found.lookups, "epochs": epochs, "max_lookups": max_lookups},
        tags={"kind": "embedding_study", "best": found.best},
    )
    values: dict[str, float] = {}
    for name, trial in found.trials.items():
        key = name.replace(" ", "_")
        values |= {f"study/{key}/auc": trial.auc, f"study/{key}/log_loss": trial.log_loss}
    for one in found.selected:
        values[f"gates/{one.feature}"] = one.gate_mass
        values[f"worth/{one.feature}"] = one.score
    values |= {"study/gain_auc": found.gain.value, "study/gain_auc_low": found.gain.low}
    tracker.metrics(values, 0)
    tracker.artifact(run_dir / PLAN_FILE)
    tracker.finish("FINISHED")
    return found


def tuned_config(config: ExperimentConfig, found: Study) -> str:
    """Return the whole configuration with the recommended plan, explained at its head."""
    text = dump_config(planned(config, found))
    return "".join(f"# {line}\n" for line in lines(config, found)) + text


def planned(config: ExperimentConfig, found: Study) -> ExperimentConfig:
    """Return the configuration with the recommended plan."""
    schema = config.schema_.with_multiplicities(found.plan)
    changes: dict[str, object] = {"schema_": schema}
    if not any(one.asked_multiplicity == "auto" for one in schema.features):
        # No feature is left that lookups could be shared out among.
        assert isinstance(config, LearnedExperiment), "rankers alone are studied"
        changes["embedding"] = config.embedding.model_copy(update={"lookups": None})
    return config.model_copy(update=changes)


def lines(config: ExperimentConfig, found: Study) -> list[str]:
    """Return the study as text: a line a feature, a line a plan, the verdict."""
    before = {one.name: one.asked_multiplicity for one in config.schema_.features}
    width = max(len(one.feature) for one in found.selected)
    shown = [
        f"{'feature':<{width}}  {'values':>10}  {'lookups':>9}  {'searched':>8}  {'gates':>5}  "
        f"{'kept':>4}  worth",
    ]
    for one in found.selected:
        change = f"{before[one.feature]} -> {found.plan[one.feature]}"
        shown.append(
            f"{one.feature:<{width}}  {found.cardinalities[one.feature]:>10,}  {change:>9}  "
            f"{one.multiplicity:>8}  {one.gate_mass:>5.1f}  {one.kept_dims:>4}  {one.score:+.5f}"
            + ("" if one.score > 0 else "  (worth nothing here: try without it)")
        )
    shown += [
        "lookups: before -> recommended; searched: what the search alone gives; gates: their sum,",
        "in dimensions; kept: dimensions above the threshold that the budget sets;",
        "worth: what the validation log loss rises by when a lookup is closed, summed over them",
        "",
        f"the other half of the validation rows, {found.lookups} lookups in all:",
    ]
    for name, trial in found.trials.items():
        used = sum(trial.plan.values())
        mark = "" if used == found.lookups else f"  ({used} lookups: more would not help)"
        mark += "  <- recommended" if name == found.best else ""
        shown.append(f"  {name:<15} AUC {trial.auc:.4f}  log loss {trial.log_loss:.4f}{mark}")
    return [*shown, found.verdict()]
