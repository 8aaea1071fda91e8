"""The script of docs/production.md: its commands have these options, and 6 does not end it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Reads the arguments as the command line does, writes them down, and does no work.
PARSER = f"""#!{sys.executable}
import json, sys
from recsys.app.cli import main
name, *arguments = sys.argv[1:]
main.commands[name].make_context(name, list(arguments))
with open("asked", "a") as file:
    file.write(json.dumps([name, *arguments]) + "\\n")
if name == "train":
    print(json.dumps({{"version": 7}}))
sys.exit({{"promote": 6}}.get(name, 0))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with the script, the rows of three days, and a command that only parses."""
    page = (ROOT / "docs" / "production.md").read_text()
    found = re.search(r"```bash\n(#!.*?)```", page, re.DOTALL)
    assert found is not None
    (tmp_path / "daily.sh").write_text(found[1])
    (tmp_path / "log").mkdir()
    for day in ("2026-11-28", "2026-11-29", "2026-11-30"):
        (tmp_path / "log" / f"{day}.parquet").touch()
    for name in ("recsys.yaml", "items.parquet", "users.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "recsys").write_text(PARSER)
    (tmp_path / "bin" / "recsys").chmod(0o755)
    return tmp_path


def asked(shop: Path, *arguments: str) -> list[str]:
    """Run the script; return what it asked for."""
    path = f"{shop / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    (shop / "asked").unlink(missing_ok=True)
    subprocess.run(["bash", shop / "daily.sh", *arguments], check=True, env=environment)
    return (shop / "asked").read_text().splitlines()


def test_the_first_day_trains_anew_and_the_next_goes_on(shop: Path) -> None:
    train, promote, score = asked(shop, "2026-11-29")
    assert "--warm-start" not in train
    assert '"split.validation_from=2026-11-28", "--set", "split.test_from=2026-11-29"' in train
    assert '["promote", "shop", "7", "--if-better"' in promote
    assert '"--output", "lists/2026-11-29"' in score
    train, *rest = asked(shop, "2026-11-30")
    assert '"--warm-start", "models:/shop/latest"' in train
    days = re.findall(r"log/([0-9-]+)\.parquet", train)
    assert days == ["2026-11-28", "2026-11-29", "2026-11-30"]
    assert len(rest) == 2


def test_one_step_by_itself(shop: Path) -> None:
    (only,) = asked(shop, "2026-11-30", "score")
    assert only.startswith('["score", "models:/shop@champion"')
