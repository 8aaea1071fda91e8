"""The command line: quick help, frozen options, errors that say what to do without a traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from recsys.app.cli import main
from recsys.app.options import Finite

OPTIONS = {
    "demo": {"--out", "--users", "--items", "--events", "--seed", "--noise", "--set"},
    "init": {"tables", "--dataset", "--protocol", "--out", "--force"},
    "check": {"config", "--set", "--html", "--json"},
    "prepare": {"config", "--output", "--engine", "--master", "--set", "--json"},
    "train": {
        "config",
        "--resume",
        "--workers",
        "--warm-start",
        "--compatible-with",
        "--final",
        "--from",
        "--report",
        "--tracking-uri",
        "--set",
        "--json",
    },
    "evaluate": {"model", "--out", "--keep-seen", "--set", "--tracking-uri", "--json"},
    "export": {
        "model",
        "--to",
        "--other",
        "--out",
        "--queries",
        "--min-recall",
        "--encoding",
        "--fde-bits",
        "--fde-repetitions",
        "--columns",
        "--reduce",
        "--tune",
        "--memory",
        "--delta-from",
        "--tracking-uri",
        "--json",
        "--users",
    },
    "patch": {"model", "delta", "--output", "--tracking-uri", "--json"},
    "verify": {"folder", "--json"},
    "score": {
        "model",
        "--approximate",
        "--output",
        "--input",
        "--interactions",
        "--users",
        "--items",
        "--other",
        "--k",
        "--probability",
        "--new-items",
        "--top-customers",
        "--where",
        "--exclude",
        "--allow",
        "--block",
        "--keep-seen",
        "--cut-lists",
        "--rows-per-part",
        "--engine",
        "--master",
        "--workers",
        "--since",
        "--set",
        "--tracking-uri",
        "--json",
    },
    "explain": {
        "--allow",
        "--exclude",
        "--where",
        "model",
        "--user",
        "--item",
        "--row",
        "--rows",
        "--out",
        "--tracking-uri",
        "--json",
    },
    "similar": {"model", "--item", "--k", "--tracking-uri", "--json"},
    "tune search": {
        "config",
        "--trials",
        "--minutes",
        "--metric",
        "--space",
        "--show-space",
        "--out",
        "--force",
        "--storage",
        "--name",
        "--seed",
        "--set",
        "--json",
    },
    "tune embedding": {
        "config",
        "--lookups",
        "--epochs",
        "--max-lookups",
        "--out",
        "--force",
        "--set",
        "--json",
    },
    "register": {"model", "--name", "--alias", "--tracking-uri", "--json"},
    "compare": {"models", "--on", "--metric", "--report", "--tracking-uri", "--json"},
    "promote": {
        "name",
        "version",
        "--alias",
        "--if-better",
        "--margin",
        "--on",
        "--tracking-uri",
        "--json",
    },
    "recount": {
        "model",
        "--interactions",
        "--output",
        "--rows",
        "--set",
        "--tracking-uri",
        "--json",
    },
    "sync": {"run_dir", "--tracking-uri"},
    "plan": {
        "--rows",
        "--users",
        "--items",
        "--kind",
        "--table",
        "--dim",
        "--epochs",
        "--scored",
        "--cores",
        "--memory",
        "--price",
        "--hours",
        "--json",
    },
}


def test_no_option_comes_or_goes_unseen() -> None:
    found = {}
    for name, command in commands(main):
        found[name] = {
            parameter.opts[0] if parameter.param_type_name == "option" else parameter.name
            for parameter in command.params
        }
    assert found == OPTIONS


def commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, those of groups within the group too."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", one) for below, one in commands(command))
        else:
            yield name, command


@pytest.mark.parametrize("command", OPTIONS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(main, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: recsys {command}" in " ".join(result.output.split())


def test_every_number_has_a_range() -> None:
    """But for a version, which the registry knows: it names those that there are."""
    for name, command in commands(main):
        for parameter in command.params:
            kind = parameter.type
            if not isinstance(kind, type(click.INT) | type(click.FLOAT)) or name == "promote":
                continue
            place = f"recsys {name}, {parameter.opts[0]}"
            assert isinstance(kind, click.IntRange | Finite), place
            assert kind.min is not None, place
            with pytest.raises(click.BadParameter, match="not in the range"):
                kind.convert(str(kind.min - 1), None, None)


def test_a_project_with_modules_of_the_same_names_breaks_nothing(
    world_config: Path, tmp_path: Path
) -> None:
    """Applications have a `features.py` and a `serving` package of their own on their path."""
    (tmp_path / "features.py").write_text("raise RuntimeError('the wrong features')\n")
    (tmp_path / "training.py").write_text("raise RuntimeError('the wrong training')\n")
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").write_text("raise RuntimeError('the wrong serving')\n")
    command = [sys.executable, "-m", "recsys.app.cli", "check", str(world_config)]
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_check_imports_nothing_that_trains_or_draws(world_config: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from recsys.app.cli import main;"
        "assert CliRunner().invoke(main, ['check', sys.argv[1]]).exit_code == 0;"
        "heavy = {'sklearn', 'matplotlib', 'mlflow', 'jinja2', 'lightgbm', 'torchrec', 'rich',"
        "'fbgemm_gpu', 'faiss', 'implicit', 'optuna', 'scipy.special', 'scipy.linalg',"
        "'scipy.sparse.linalg', 'threadpoolctl', 'torch', 'onnx'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    command = [sys.executable, "-c", code, str(world_config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from recsys.app.cli import main;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        "heavy = {'torch', 'mlflow', 'pandas', 'sklearn', 'pyarrow', 'numpy'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "none.yaml"], 4, "none.yaml: no such configuration"),
        (["train"], 2, "give a configuration, --resume RUN_DIR, or --final --from MODEL, one of"),
        (["train", "x.yaml", "--from", "m"], 2, "--from goes with --final"),
        (["train", "--resume", "r", "--final", "--from", "m"], 2, "--from do not go with --resume"),
        (["train", "--resume", "r", "--tracking-uri", "sqlite:///x"], 2, "`recsys sync r --track"),
        (["train", "--resume", "nowhere"], 4, "no run to resume"),
        (["train", "x.yaml", "--set"], 2, "requires an argument"),
        (["score", ".", "--output", "o"], 2, "give --input or --interactions"),
        (["score", ".", "--output", "o", "--interactions", "x"], 4, "manifest"),
        (["score", ".", "--output", "o", "--interactions", "x", "--other", "y"], 2, "NAME=PATH"),
        (["score", ".", "--output", "o.csv", "--interactions", "x"], 2, "is a folder of Parquet"),
        (["demo", "--out", "demo.zip"], 2, "a folder of data, runs and recommendations, not a .z"),
        (["evaluate", "no-such-thing"], 4, "no-such-thing"),
        (["evaluate", ".", "--set", "evaluation.ks"], 2, "expected key=value"),
        (["promote", "shop", "one"], 2, "not a valid integer"),
        (["score", ".", "--output", "o", "--rows-per-part", "-5"], 2, "-5 is not in the range"),
        (["score", ".", "--output", "o", "--k", "0"], 2, "0 is not in the range"),
        (["score", ".", "--output", "o", "--workers", "0"], 2, "0 is not in the range"),
        (["score", ".", "--output", "o", "--workers", "all"], 2, "'all' is not a valid integer"),
        (["tune", "x.yaml", "--minutes", "nan"], 2, "nan is not a finite number"),
        (["tune", "x.yaml", "--minutes", "inf"], 2, "inf is not a finite number"),
        (["export", ".", "--to", "faiss", "--out", "o", "--min-recall", "nan"], 2, "not a finite"),
    ],
)
def test_mistakes_exit_with_their_code_and_a_way_out(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_an_error_is_told_as_json_where_json_was_asked_for(tmp_path: Path) -> None:
    """Its fields are one object on the output; the message for people is on the error stream."""
    (tmp_path / "shop.yaml").write_text("data: {interactions: log.csv}\nspllit: {}\n")
    plain = CliRunner().invoke(main, ["check", str(tmp_path / "shop.yaml")])
    asked = CliRunner().invoke(main, ["check", str(tmp_path / "shop.yaml"), "--json"])
    assert (plain.exit_code, asked.exit_code) == (2, 2)
    assert plain.stdout == ""
    assert asked.stderr == plain.stderr
    told = json.loads(asked.stdout)
    assert told["error"] == "ConfigError"
    assert "spllit" in {one["key"] for one in told["problems"]}


def test_a_file_that_init_does_not_find_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "ratings.parquet").touch()
    path = tmp_path / "ratngs.parquet"
    found = CliRunner().invoke(main, ["init", str(path), "--out", str(tmp_path / "out.yaml")])
    assert found.exit_code == 4
    wanted = f"Error: {path}: it does not exist (did you mean 'ratings.parquet'?)\n"
    assert found.stderr == wanted
