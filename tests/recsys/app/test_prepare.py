"""`recsys prepare` and `recsys.prepare`: what they say, and what a training is to be told."""

import json
from pathlib import Path

from click.testing import CliRunner

import recsys
from recsys.app.cli import main


def test_prepare_says_rows_bytes_seconds_and_how_to_train(
    world_config: Path, tmp_path: Path
) -> None:
    command = ["prepare", str(world_config), "--output", str(tmp_path / "encoded")]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    rows, size, where, then = first.stdout.splitlines()
    (entry,) = (tmp_path / "encoded").iterdir()
    num_bytes = sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
    assert rows == "4,000 rows: 3,200 training, 400 validation, 400 test"
    assert size.startswith(f"{num_bytes / 1e6:,.1f} MB, encoded in ")
    assert where == f"encoded: {entry}"
    assert then.endswith(f"recsys train {world_config} --set cache={tmp_path / 'encoded'}")
    again = CliRunner().invoke(main, [*command, "--json"])
    told = json.loads(again.stdout)
    assert (told["was_there"], told["paths"], told["bytes"]) == (True, [str(entry)], num_bytes)


def test_settings_of_the_command_line_are_those_of_the_training(
    world_config: Path, tmp_path: Path
) -> None:
    asked = ["--set", f"cache={tmp_path / 'cache'}"]
    done = CliRunner().invoke(main, ["prepare", str(world_config), *asked])
    assert done.stdout.splitlines()[-1].endswith(f"train {world_config} {' '.join(asked)}")
    found = recsys.prepare(recsys.Config.open(world_config).with_(cache=str(tmp_path / "cache")))
    assert found.was_there
    assert found.folder == tmp_path / "cache"
    assert found.rows == {"training": 3200, "validation": 400, "test": 400}


def test_without_a_folder_it_says_how_to_name_one(world_config: Path) -> None:
    done = CliRunner().invoke(main, ["prepare", str(world_config)])
    assert done.exit_code == 2
    assert "set it, or give --output FOLDER" in done.stderr
