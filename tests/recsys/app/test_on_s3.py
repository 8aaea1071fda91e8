"""From raw tables to scores on an object store: a real S3 server, by command and in Python."""

import importlib.util
import io
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.fs
import pytest
from click.testing import CliRunner, Result

import recsys
from recsys.app.cli import main
from recsys.bundle.directory import MANIFEST
from recsys.core.errors import ConfigError, IntegrityError, NotFoundError, StoreError
from recsys.core.events import Event, PartDone, StepDone
from recsys.core.remote.path import RemotePath, path_at
from recsys.features.tables.reading import open_table

MISSING = [name for name in ("moto", "boto3") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed: no S3 server")
SMALL = {
    "training.epochs": 2,
    "training.batch_size": 256,
    "evaluation.baselines": ["popularity"],
    "evaluation.bootstrap_samples": 20,
    "output": "s3://shop/runs",
    "tracking.enabled": False,
}
LOG, USERS = "s3://shop/raw/log", "s3://shop/raw/users.parquet"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    """The address of an S3 server that knows the bucket `shop`; stopped at the end."""
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    given = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key"}
    given |= {"AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        try:
            for _ in range(3000):
                with suppress(OSError), urllib.request.urlopen(f"{address}/moto-api/"):
                    break
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            system = pyarrow.fs.S3FileSystem(
                endpoint_override=address, region="us-east-1", allow_bucket_creation=True
            )
            system.create_dir("shop")
            yield address
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def config(server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A configuration in the bucket, beside the raw tables that it was proposed for."""
    log, items, users = recsys.demo_tables(users=100, items=60, events=1500)
    half = len(log) // 2
    put(log[:half], "s3://shop/raw/log/day=1/part.parquet")
    put(log[half:], "s3://shop/raw/log/day=2/part.parquet")
    put(users, USERS)
    path_at("s3://shop/raw/items.csv").write_text(items.to_csv(index=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("init"))
        command("init", LOG, "s3://shop/raw/items.csv", USERS, "--out", "s3://shop/recsys.yaml")
        assert not [*Path().iterdir()], "nothing was written to the working folder"
    return "s3://shop/recsys.yaml"


@pytest.fixture(scope="module")
def run(config: str, tmp_path_factory: pytest.TempPathFactory) -> RemotePath:
    """The folder of a run in the bucket; it was stopped on one machine and ended on another."""

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.epoch == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("one"))
        with pytest.raises(KeyboardInterrupt):
            recsys.train(recsys.Config.open(config).with_(SMALL), quiet=True, listener=stop)
        (found,) = path_at("s3://shop/runs").iterdir()
        assert [name for name in files(found) if name.endswith("/files.json")]
        with pytest.raises(NotFoundError, match="neither a bundle"):
            recsys.load(found)
        patch.chdir(tmp_path_factory.mktemp("two"))
        said = command("train", "--resume", str(found))
        assert not [*Path(".recsys_cache/runs/s3/shop/runs").iterdir()]
    assert f"bundle: {found}/bundle/" in said.output
    assert isinstance(found, RemotePath)
    return found


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which nothing is, as on another machine."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, f"{arguments}: {result.output}"
    return result


def put(frame: pd.DataFrame, address: str) -> None:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    path_at(address).write_bytes(buffer.getvalue())


def files(address: str | Path) -> dict[str, str]:
    """Return the names of all files below an address, each with what it is known by."""
    root = path_at(address)
    assert isinstance(root, RemotePath)
    found = [one.path for one in root.entries(below=True) if one.is_file]
    return {str(path.relative_to(root)): path.version() for path in found}


def test_the_configuration_names_the_tables_where_they_are(config: str, elsewhere: Path) -> None:
    data = recsys.Config.open(config).experiment.data
    assert (data.interactions, data.items, data.users) == (LOG, "s3://shop/raw/items.csv", USERS)
    same = recsys.init(LOG, "s3://shop/raw/items.csv", USERS)
    assert same.experiment.data == data
    said = command("check", config, "--html", "s3://shop/reports/data.html")
    assert "1,500 interactions" in said.output
    assert "<html" in path_at("s3://shop/reports/data.html").read_text()


def test_a_finished_run_is_whole_in_the_bucket(run: RemotePath, elsewhere: Path) -> None:
    names = {str(one.path.relative_to(run)).split("/")[0] for one in run.entries()}
    assert names == {"bundle", "config.yaml", "journal.jsonl", "owner.json", "report.html"}
    with pytest.raises(ConfigError, match=f"{run}: this run is finished; its bundle is {run}/bun"):
        recsys.train(resume=str(run))
    assert recsys.load(run).kind == "two_tower"
    assert "ok: " in command("verify", str(run)).output
    said = command("evaluate", str(run), "--out", "s3://shop/reports/evaluation.html")
    assert "report: s3://shop/reports/evaluation.html" in said.output
    assert path_at("s3://shop/reports/evaluation.html").is_file()


def test_scores_are_parts_in_the_bucket_and_a_stopped_job_continues(
    run: RemotePath, elsewhere: Path
) -> None:
    def stop(event: Event) -> None:
        assert isinstance(event, PartDone)
        if event.done == 2:
            raise KeyboardInterrupt

    out = "s3://shop/scores"
    how: dict[str, Any] = {"history": LOG, "users": USERS, "rows_per_part": 25}
    with pytest.raises(KeyboardInterrupt):
        recsys.score(str(run), out, **how, listener=stop)
    begun = files(out)
    assert sorted(begun) == ["_job.json", *(f"part-0000{n}-of-00004.parquet" for n in (0, 1))]
    log = ("--interactions", LOG, "--users", USERS, "--rows-per-part", "25")
    said = command("score", str(run), *log, "--output", out)
    assert "parts already there: 2" in said.output
    done = files(out)
    assert begun.items() <= done.items(), "parts that were there are not written again"
    assert "_SUCCESS" in done
    scores = open_table(out, "scores")
    read = [batch.table for batch in scores.batches(["user_id", "items"])]
    users = [one for table in read for one in table.column("user_id").to_pylist()]
    assert len(set(users)) == len(users) == 100
    recsys.score(str(run), "here", **how)
    assert open_table("here", "scores").paths[0].read_bytes() == scores.paths[0].read_bytes()
    with pytest.raises(ConfigError, match="s3://shop/scores: holds the scores of another job"):
        recsys.score(str(run), out, **{**how, "rows_per_part": 50})


def test_requests_are_read_in_the_bucket(run: RemotePath, elsewhere: Path) -> None:
    users = pd.read_parquet(io.BytesIO(path_at(USERS).read_bytes()))[:3]
    put(users.assign(history=[["i00001"], [], ["i00002"]]), "s3://shop/raw/requests.parquet")
    found = recsys.score(str(run), "s3://shop/answers", requests="s3://shop/raw/requests.parquet")
    assert (found["users"], found["output"]) == (3, "s3://shop/answers")
    path_at("s3://shop/raw/hidden.txt").write_text("i00003\n")
    with_list = recsys.load(run).recommend(
        requests="s3://shop/raw/requests.parquet", k=5, exclude="s3://shop/raw/hidden.txt"
    )
    assert "i00003" not in set(with_list["item_id"])


def test_an_export_is_written_and_verified_in_the_bucket(run: RemotePath, elsewhere: Path) -> None:
    command("export", str(run), "--to", "parquet", "--out", "s3://shop/vectors")
    assert "export.json" in files("s3://shop/vectors")
    assert "ok: " in command("verify", "s3://shop/vectors").output
    with pytest.raises(ConfigError, match="s3://shop/vectors exists; choose another --out"):
        recsys.export(str(run), "s3://shop/vectors", to="parquet")
    found = recsys.load(run).query_vectors(
        ["u000001"], history=LOG, user_table=USERS, index="s3://shop/vectors"
    )
    assert len(found) == 1
    damage("s3://shop/vectors/vectors.parquet")
    with pytest.raises(IntegrityError, match=r"s3://shop/vectors/vectors.parquet: .* bytes with"):
        recsys.verify("s3://shop/vectors")


def damage(address: str) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path_at(address).read_bytes())
    data[len(data) // 2] ^= 1
    path_at(address).write_bytes(bytes(data))


def test_a_flipped_bit_in_a_bundle_is_named(run: RemotePath, elsewhere: Path) -> None:
    (bundle,) = (run / "bundle").iterdir()
    for path in bundle.rglob("*"):
        if path.is_file():
            copy = path_at("s3://shop/damaged").joinpath(*path.relative_to(bundle).parts)
            copy.write_bytes(path.read_bytes())
    damage("s3://shop/damaged/weights.safetensors")
    with pytest.raises(IntegrityError, match=r"^s3://shop/damaged/weights.safetensors: .*"):
        recsys.load("s3://shop/damaged")
    path_at(f"s3://shop/damaged/{MANIFEST}").unlink()
    with pytest.raises(NotFoundError, match="s3://shop/damaged: neither a bundle"):
        recsys.load("s3://shop/damaged")


def test_what_has_to_be_on_this_machine(config: str, elsewhere: Path) -> None:
    given = recsys.Config.open(config)
    with pytest.raises(ConfigError, match="cache: s3://shop/cache is in a store"):
        given.with_(cache="s3://shop/cache")
    with pytest.raises(ConfigError, match=r"out: s3://shop/demo: the demo keeps a database there"):
        recsys.demo("s3://shop/demo")
    with pytest.raises(ConfigError, match=r"storage: s3://shop/t.db: a database cannot be there"):
        recsys.tune(given, trials=1, storage="s3://shop/t.db")
    with pytest.raises(ConfigError, match="dataset: s3://shop/ml-1m: the files of a public data"):
        recsys.init("s3://shop/ml-1m", dataset="movielens-1m")


def test_what_mlflow_has_of_a_run_is_noted_in_the_bucket(
    run: RemotePath, elsewhere: Path, mlflow_template: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(mlflow_template, elsewhere)}"
    first, again = (recsys.sync(str(run), tracking_uri=uri) for _ in range(2))
    assert first["sent"] > 0 == first["left"]
    assert again == {"sent": 0, "left": 0, "skipped": []}
    assert not [*Path(".recsys_cache/runs/s3/shop/runs").iterdir()]


def test_what_a_store_refuses_is_one_clear_error(
    run: RemotePath, config: str, server: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match=r"^s3://shop/raw/lok: it does not exist .did you mean"):
        recsys.init("s3://shop/raw/lok")
    for use in (
        lambda: recsys.init("s3://shoop/raw/log"),
        lambda: recsys.load("s3://shoop/runs/x"),
        lambda: recsys.score(str(run), "s3://shoop/scores", history=LOG, users=USERS),
        lambda: recsys.export(str(run), "s3://shoop/vectors", to="parquet"),
        lambda: recsys.train(
            recsys.Config.open(config).with_(output="s3://shoop/runs"), quiet=True
        ),
    ):
        with pytest.raises(NotFoundError, match=r"^s3://shoop/.*: there is no bucket 'shoop'"):
            use()
    with Guarded(server):
        for use in (lambda: recsys.init(LOG), lambda: recsys.load(run)):
            with pytest.raises(ConfigError, match=r"^s3://shop/.*: the store does not allow it"):
                use()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"^s3://shop/.*: the store did not answer.*127.0.0.1:9: "):
        recsys.init(LOG)
    result = CliRunner().invoke(main, ["check", "s3://shop/recsys.yaml"])
    assert (result.exit_code, result.stderr.count("\n")) == (69, 1)


class Guarded:
    """The server asks who is asking; it knows nobody."""

    def __init__(self, server: str) -> None:
        self.address = f"{server}/moto-api/reset-auth"

    def __enter__(self) -> None:
        self._after(0)

    def __exit__(self, *_: object) -> None:
        self._after(1 << 40)

    def _after(self, requests: int) -> None:
        asked = urllib.request.Request(
            self.address, str(requests).encode(), {"Content-Type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(asked).close()
