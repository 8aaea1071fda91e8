"""Public data sets from small files in the genuine formats, written here with made-up values."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.core.errors import ConfigError, DataError, NotFoundError
from recsys.features.public_data.open import tables_of
from recsys.features.public_data.registry import DATA_SETS

USERS, ITEMS, ROWS = 20, 12, 8
Write = Callable[[Path], None]


def pairs() -> list[tuple[int, int, int]]:
    """User, item and the second of it, `ROWS` of each user, items of five rows or more."""
    rng = np.random.default_rng(0)
    return [
        (user, int(item), 1_400_000_000 + int(rng.integers(0, 10_000_000)))
        for user in range(1, USERS + 1)
        for item in rng.permutation(ITEMS)[:ROWS] + 1
    ]


def lines(folder: Path, name: str, rows: list[str], encoding: str = "utf-8") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{row}\n" for row in rows).encode(encoding)
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def when(second: int, form: str) -> str:
    return datetime.fromtimestamp(second, UTC).strftime(form)


def movielens_100k(to: Path) -> None:
    lines(to, "u.data", [f"{u}\t{i}\t{1 + (u + i) % 5}\t{t}" for u, i, t in pairs()])
    genres = "|".join(["0"] * 18 + ["1"])
    lines(
        to,
        "u.item",
        [f"{i}|Amélie {i} (2001)|01-Jan-2001||http://x/{i}|{genres}" for i in range(1, ITEMS + 1)],
        "latin-1",
    )
    lines(to, "u.user", [f"{u}|{20 + u}|F|writer|0{u:04d}" for u in range(1, USERS + 1)])


def movielens_old(to: Path) -> None:
    lines(to, "ratings.dat", [f"{u}::{i}::{1 + (u + i) % 5}::{t}" for u, i, t in pairs()])
    movies = [f"{i}::Star: The {i}th (1999)::Drama|War" for i in range(1, ITEMS + 1)]
    lines(to, "movies.dat", movies, "latin-1")
    lines(to, "users.dat", [f"{u}::M::25::{u % 7}::0{u:04d}" for u in range(1, USERS + 1)])


def movielens_new(to: Path) -> None:
    rows = [f"{u},{i},{(u + i) % 9 / 2 + 0.5},{t}" for u, i, t in pairs()]
    lines(to, "ratings.csv", ["userId,movieId,rating,timestamp", *rows])
    movies = [f'{i},"Good, Bad {i}",Drama|War' for i in range(1, ITEMS + 1)]
    lines(to, "movies.csv", ["movieId,title,genres", *movies])


def amazon_2014(to: Path) -> None:
    rows = [
        {"reviewerID": f"A{u}", "asin": f"00{i:08d}", "overall": 5.0, "unixReviewTime": t}
        for u, i, t in pairs()
    ]
    lines(to, "reviews_Toys_5.json.gz", [json.dumps(one) for one in rows])
    items = [
        {
            "asin": f"00{i:08d}",
            "title": f"It's {i}",
            "price": 3.5,
            "categories": [["Toys", "Dolls"]],
        }
        for i in range(1, ITEMS + 1)
    ]
    lines(to, "meta_Toys.json.gz", [repr(one) for one in items])


def amazon_2018(to: Path) -> None:
    rows = [
        {"reviewerID": f"A{u}", "asin": f"B{i:09d}", "overall": 5.0, "unixReviewTime": t}
        for u, i, t in pairs()
    ]
    lines(to, "Toys_5.json.gz", [json.dumps(one) for one in rows])
    items = [
        {"asin": f"B{i:09d}", "title": "", "price": "$1,012.99", "category": ["Toys"], "brand": "B"}
        for i in range(1, ITEMS + 1)
    ]
    lines(to, "meta_Toys.json.gz", [json.dumps(one) for one in items])


def amazon_2023(to: Path) -> None:
    rows = [
        {
            "user_id": f"A{u}",
            "parent_asin": f"B{i}",
            "asin": "x",
            "rating": 4,
            "timestamp": t * 1000,
        }
        for u, i, t in pairs()
    ]
    lines(to, "Toys.jsonl.gz", [json.dumps(one) for one in rows])
    items = [
        {"parent_asin": f"B{i}", "title": f"T{i}", "price": None, "categories": [], "store": "S"}
        for i in range(1, ITEMS + 1)
    ]
    lines(to, "meta_Toys.jsonl.gz", [json.dumps(one) for one in items])


def criteo(to: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [
        "\t".join(
            [
                str(n % 3 // 2),
                *("" if v > 90 else str(v) for v in rng.integers(-1, 99, 13)),
                *("" if v > 90 else f"{v:08x}" for v in rng.integers(0, 99, 26)),
            ]
        )
        for n in range(300)
    ]
    lines(to, "train.txt", rows)


def avazu(to: Path) -> None:
    names = "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,"
    names += "app_category,device_id,device_ip,device_model,device_type,device_conn_type,"
    names += ",".join(f"C{n}" for n in range(14, 22))
    rows = [
        f"{n}e18,{n % 4 // 3},1410{21 + n // 100:02d}{n % 24:02d},1005,0,"
        + ",".join(f"{n % 7:08x}" for _ in range(9))
        + ",1,0,"
        + ",".join("1" for _ in range(8))
        for n in range(300)
    ]
    lines(to, "train.gz", [names, *rows])


def frappe(to: Path) -> None:
    for part, count in (("train", 200), ("validation", 40), ("test", 40)):
        rows = [
            f"{1 if n % 3 == 0 else -1} "
            + " ".join(f"{at * 50 + n % (at + 3)}:1" for at in range(10))
            for n in range(count)
        ]
        lines(to, f"frappe.{part}.libfm", rows)


def yoochoose(to: Path) -> None:
    start = datetime(2014, 9, 26, tzinfo=UTC)
    rows = [
        f"{u},{(start + timedelta(hours=6 * u, seconds=i)).isoformat()[:19]}.123Z,{i},0"
        for u, i, _ in pairs()
    ]
    lines(to, "yoochoose-clicks.dat", rows)


def diginetica(to: Path) -> None:
    start = datetime(2016, 5, 14, tzinfo=UTC)
    rows = [f"{u};NA;{i};{i * 1000};{(start + timedelta(days=u)).date()}" for u, i, _ in pairs()]
    lines(to, "train-item-views.csv", ["sessionId;userId;itemId;timeframe;eventdate", *rows])
    items = [f"{i};{i % 3}" for i in range(1, ITEMS + 1)]
    lines(to, "product-categories.csv", ["itemId;categoryId", *items])


def retailrocket(to: Path) -> None:
    rows = [f"{t}000,{u},{('view', 'addtocart')[i % 2]},{i}," for u, i, t in pairs()]
    lines(to, "events.csv", ["timestamp,visitorid,event,itemid,transactionid", *rows])
    properties = [f"{t},{i},categoryid,{i * t}" for i in range(1, ITEMS + 1) for t in (1, 2)]
    properties += [f"3,{i},790,n{i}.000" for i in range(1, ITEMS + 1)]
    lines(to, "item_properties_part1.csv", ["timestamp,itemid,property,value", *properties])


def yelp(to: Path) -> None:
    rows = [
        {"user_id": f"u{u}", "business_id": f"b{i}", "stars": 4.0, "date": when(t, "%F %T")}
        for u, i, t in pairs()
    ]
    lines(to, "yelp_academic_dataset_review.json", [json.dumps(one) for one in rows])
    places = [
        {"business_id": f"b{i}", "name": f"N{i}", "city": "Bonn", "categories": "Bars, Food"}
        for i in range(1, ITEMS + 1)
    ]
    lines(to, "yelp_academic_dataset_business.json", [json.dumps(one) for one in places])


def gowalla(to: Path) -> None:
    rows = [f"{u}\t{when(t, '%FT%TZ')}\t30.2\t-97.7\t{i}" for u, i, t in pairs()]
    lines(to, "loc-gowalla_totalCheckins.txt", rows)


def gowalla_lightgcn(to: Path) -> None:
    of_user: dict[int, list[int]] = {}
    for user, item, _ in pairs():
        of_user.setdefault(user, []).append(item)
    for part, cut in (("train", slice(2, None)), ("test", slice(0, 2))):
        rows = [" ".join(map(str, [user, *items[cut]])) for user, items in of_user.items()]
        lines(to, f"{part}.txt", rows)


def lastfm_360k(to: Path) -> None:
    rows = [f'{u:040x}\t{i:08x}-aa\tThe "{i}"\t{1 + u * i}' for u, i, _ in pairs()]
    lines(to, "usersha1-artmbid-artname-plays.tsv", rows)


def lastfm_2k(to: Path) -> None:
    rows = [f"{u}\t{i}\t{1 + u * i}" for u, i, _ in pairs()]
    lines(to, "user_artists.dat", ["userID\tartistID\tweight", *rows])
    artists = [f'{i}\tThe "{i}\thttp://x\thttp://y' for i in range(1, ITEMS + 1)]
    lines(to, "artists.dat", ["id\tname\turl\tpictureURL", *artists])


def steam(to: Path) -> None:
    rows = [
        {"username": f"it's {u}", "product_id": str(i), "date": when(t, "%F"), "hours": 1.5}
        for u, i, t in pairs()
    ]
    lines(to, "steam_reviews.json.gz", [repr(one) for one in rows])
    games = [{"id": str(i), "app_name": f"G{i}", "price": "Free To Play"} for i in range(1, 13)]
    lines(to, "steam_games.json.gz", [repr(one) for one in games])


def hm(to: Path) -> None:
    start = datetime(2020, 8, 20, tzinfo=UTC)
    rows = [
        f"{(start + timedelta(days=(u * 3 + i) % 34)).date()},{u:064x},0{i:09d},0.0{i},2"
        for u, i, _ in pairs()
    ]
    lines(
        to, "transactions_train.csv", ["t_dat,customer_id,article_id,price,sales_channel_id", *rows]
    )
    names = "article_id,product_code,prod_name,product_type_name,product_group_name,"
    names += "graphical_appearance_name,colour_group_name,department_name,index_name,"
    names += "section_name,garment_group_name,detail_desc"
    articles = [
        f'0{i:09d},1,Tee,T-shirt,Top,Solid,Red,Jersey,Ladies,W,Basic,"A, tee"' for i in range(1, 13)
    ]
    lines(to, "articles.csv", [names, *articles])
    customers = [f"{u:064x},,,ACTIVE,NONE,{20 + u}.0,z" for u in range(1, USERS + 1)]
    head = "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code"
    lines(to, "customers.csv", [head, *customers])


def kuairec(to: Path) -> None:
    names = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio"
    rows = [f"{u},{i},9,9,x,20200705,{t}.123,{(u + i) % 5 / 2}" for u, i, t in pairs()]
    lines(to / "data", "big_matrix.csv", [names, *rows])
    tags = [f'{i},"[{i}, 27]"' for i in range(1, ITEMS + 1)]
    lines(to / "data", "item_categories.csv", ["video_id,feat", *tags])


def rel_hm(to: Path) -> None:
    rows = pairs()
    start = datetime(2020, 8, 20)
    table = {
        "customer_id": [u for u, _, _ in rows],
        "article_id": [i for _, i, _ in rows],
        "t_dat": [start + timedelta(days=(u * 3 + i) % 34) for u, i, _ in rows],
        "price": [0.1] * len(rows),
    }
    (to / "db").mkdir(parents=True)
    pq.write_table(pa.table(table), to / "db" / "transactions.parquet")
    articles = {"article_id": list(range(1, 13)), "colour": ["red", "blue"] * 6}
    pq.write_table(pa.table(articles), to / "db" / "article.parquet")


def rel_amazon(to: Path) -> None:
    rows = pairs()
    start = datetime(2015, 8, 1)
    table = {
        "customer_id": [u for u, _, _ in rows],
        "product_id": [i for _, i, _ in rows],
        "review_time": [start + timedelta(days=(u * 9 + i) % 200) for u, i, _ in rows],
        "rating": [5.0] * len(rows),
    }
    to.mkdir(parents=True)
    pq.write_table(pa.table(table), to / "review.parquet")


def recbole(to: Path) -> None:
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    lines(to, "toy.inter", [head, *(f"{u}\t0{i}\t3\t{t}" for u, i, t in pairs())])
    items = [f'0{i}\tThe "{i}\tDrama War' for i in range(1, ITEMS + 1)]
    lines(to, "toy.item", ["item_id:token\ttitle:token_seq\tgenre:token_seq", *items])


WRITERS: dict[str, Write] = {
    "movielens-100k": movielens_100k,
    "movielens-1m": movielens_old,
    "movielens-10m": movielens_old,
    "movielens-20m": movielens_new,
    "movielens-25m": movielens_new,
    "movielens-32m": movielens_new,
    "amazon-2014": amazon_2014,
    "amazon-2014-ratings": lambda to: lines(
        to, "ratings_Toys.csv", [f"A{u},00{i},5.0,{t}" for u, i, t in pairs()]
    ),
    "amazon-2018": amazon_2018,
    "amazon-2018-ratings": lambda to: lines(
        to, "Toys.csv", [f"00{i},A{u},5.0,{t}" for u, i, t in pairs()]
    ),
    "amazon-2023": amazon_2023,
    "amazon-2023-ratings": lambda to: lines(
        to,
        "Toys.csv.gz",
        ["user_id,parent_asin,rating,timestamp", *(f"A{u},0{i},5.0,{t}000" for u, i, t in pairs())],
    ),
    "criteo": criteo,
    "avazu": avazu,
    "frappe": frappe,
    "yoochoose": yoochoose,
    "diginetica": diginetica,
    "retailrocket": retailrocket,
    "yelp": yelp,
    "gowalla": gowalla,
    "gowalla-lightgcn": gowalla_lightgcn,
    "lastfm-360k": lastfm_360k,
    "lastfm-2k": lastfm_2k,
    "steam": steam,
    "hm": hm,
    "kuairec": kuairec,
    "rel-hm": rel_hm,
    "rel-amazon": rel_amazon,
    "recbole": recbole,
}
CASES = [(name, protocol) for name, one in DATA_SETS.items() for protocol in one.protocols]


def test_every_data_set_is_tried_here() -> None:
    assert set(WRITERS) == set(DATA_SETS)


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_what_init_proposes_is_what_check_accepts(
    tmp_path: Path, name: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if protocol == "10-core":
        monkeypatch.setitem(globals(), "ROWS", ITEMS)
    monkeypatch.chdir(tmp_path)  # where a streamed log is encoded to
    WRITERS[name](tmp_path / "raw" / "deep")
    config = recsys.init(
        str(tmp_path / "raw"), dataset=name, protocol=protocol, out=tmp_path / "recsys.yaml"
    )
    assert DATA_SETS[name].protocols[protocol].about in config.unsure[0]
    report = recsys.check(config)
    assert "ok: fingerprint" in str(report) or "readable: fingerprint" in str(report)


EXPECTED = {
    "movielens-100k": ("movies", {"movie_id": 3, "title": "Amélie 3 (2001)", "western": True}),
    "movielens-1m": ("movies", {"movie_id": 3, "title": "Star: The 3th (1999)"}),
    "movielens-25m": ("movies", {"movie_id": 3, "title": "Good, Bad 3", "genres": "Drama|War"}),
    "amazon-2014": (
        "items",
        {"item_id": "0000000003", "title": "It's 3", "categories": ["Toys", "Dolls"]},
    ),
    "amazon-2018": ("items", {"title": None, "price": 1012.989990234375, "categories": ["Toys"]}),
    "amazon-2023": ("items", {"item_id": "B3", "price": None, "categories": None, "brand": "S"}),
    "retailrocket": ("items", {"item_id": 3, "category": "6"}),
    "yelp": ("businesses", {"name": "N3", "categories": ["Bars", "Food"]}),
    "lastfm-2k": ("artists", {"artist_id": 3, "name": 'The "3'}),
    "steam": ("games", {"product_id": "3", "title": "G3", "price": None}),
    "hm": ("articles", {"article_id": "0000000003", "colour_group_name": "Red"}),
    "kuairec": ("videos", {"video_id": 3, "tags": ["3", "27"]}),
    "recbole": ("items", {"item_id": "03", "title": ["The", '"3'], "genre": ["Drama", "War"]}),
}
"""A table, and what is known of its third row."""


@pytest.mark.parametrize("name", EXPECTED)
def test_values_are_those_of_the_files(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / "raw")
    written = tables_of(name, tmp_path / "raw", tmp_path / "out")
    table, expected = EXPECTED[name]
    (path,) = [one for one in written.paths if one.stem == table]
    row = pq.read_table(path).to_pylist()[2]
    assert {key: row[key] for key in expected} == expected
    log = pq.read_table(written.paths[0])
    user, item = [column for column in log.column_names if column.endswith("_id")][:2]
    assert len(set(log.column(user).to_pylist())) == USERS
    assert len(set(log.column(item).to_pylist())) == ITEMS
    assert log.num_rows == USERS * ROWS


def test_times_are_those_of_the_files(tmp_path: Path) -> None:
    expected = [second for _, _, second in pairs()]
    for name in ("yelp", "gowalla"):
        WRITERS[name](tmp_path / name)
        written = tables_of(name, tmp_path / name, tmp_path / "out", "time")
        times = pq.read_table(written.paths[0]).column("timestamp").cast(pa.timestamp("s"))
        assert times.cast(pa.int64()).to_pylist() == expected
    diginetica(tmp_path / "diginetica")
    written = tables_of("diginetica", tmp_path / "diginetica", tmp_path / "out", "time")
    row = pq.read_table(written.paths[0]).to_pylist()[0]
    session, item, _ = pairs()[0]
    assert (row["session_id"], row["item_id"]) == (session, item)
    day = datetime(2016, 5, 14, tzinfo=UTC) + timedelta(days=session, seconds=item)
    assert row["timestamp"] == day


def test_rows_are_thinned_out_until_all_have_enough(tmp_path: Path) -> None:
    rows = [(u, i) for u in range(5) for i in range(5)]  # whole
    rows += [(9, 0), (9, 1), (9, 2), (9, 3), (9, 77)]  # too few without the item 77
    rows += [(0, 88)] * 3
    lines(tmp_path, "Toys.csv", [f"i{i},u{u},5,1" for u, i in rows])
    written = tables_of("amazon-2018-ratings", tmp_path, tmp_path / "out")
    kept = pq.read_table(written.paths[0])
    assert kept.num_rows == 25
    assert set(kept.column("user_id").to_pylist()) == {f"u{n}" for n in range(5)}
    assert "25 of 33 rows are left of each 'user_id' with 5 rows or more" in written.said[-1]
    lines(tmp_path, "Toys.csv", ["i1,u1,5,1"])
    with pytest.raises(DataError, match="no row is of a 'user_id' with 5 rows"):
        tables_of("amazon-2018-ratings", tmp_path, tmp_path / "out")


def test_what_the_command_writes_is_trained_on(tmp_path: Path) -> None:
    movielens_old(tmp_path / "ml-1m")
    out = tmp_path / "recsys.yaml"
    asked = ["init", "--dataset", "movielens-1m", str(tmp_path / "ml-1m"), "--out", str(out)]
    result = CliRunner().invoke(main, [*asked, "--protocol", "liked"])
    assert result.exit_code == 0, result.output
    assert "ratings: 160 rows, where the whole data set has 1,000,209" in result.output
    raw = yaml.safe_load(out.read_text())
    assert raw["split"] == {"kind": "time", "validation": 0.1, "test": 0.1}
    assert raw["schema"]["interactions"]["where"] == [{"column": "rating", "at_least": 4}]
    assert raw["data"]["items"] == "movielens-1m/movies.parquet"
    settings = ("training.epochs=1", "training.batch_size=32", "tracking.enabled=false")
    trained = CliRunner().invoke(
        main,
        ["train", str(out), *(f"--set={one}" for one in settings), f"--set=output={tmp_path}"],
    )
    assert trained.exit_code == 0, trained.output


def test_all_names_are_listed() -> None:
    result = CliRunner().invoke(main, ["init", "--dataset", "list"])
    assert result.exit_code == 0
    assert all(f"\n{name}   " in f"\n{result.output}" for name in DATA_SETS)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    movielens_new(tmp_path / "raw")
    with pytest.raises(
        ConfigError, match=r"no data set is called 'movielens1m'.*mean 'movielens-1m'"
    ):
        recsys.init(str(tmp_path), dataset="movielens1m")
    with pytest.raises(
        ConfigError, match=r"has no protocol 'loo'; it has leave-one-out, time, lik"
    ):
        recsys.init(str(tmp_path), dataset="movielens-1m", protocol="loo")
    with pytest.raises(ConfigError, match="a protocol is of a public data set"):
        recsys.init(str(tmp_path), protocol="time")
    with pytest.raises(
        NotFoundError, match=r"needs ratings\.dat; there is movies\.csv, ratings\.csv"
    ):
        recsys.init(str(tmp_path), dataset="movielens-1m")
    with pytest.raises(NotFoundError, match="nowhere does not exist; name the folder with ratings"):
        recsys.init(str(tmp_path / "nowhere"), dataset="movielens-1m")
    lines(tmp_path / "bad", "ratings.dat", ["1::2::five::9"])
    lines(tmp_path / "bad", "movies.dat", ["1::a::b"])
    with pytest.raises(DataError, match=r"ratings\.dat: not as this data set has it .*five"):
        recsys.init(str(tmp_path / "bad"), dataset="movielens-10m", folder=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.parquet"))
    lines(tmp_path / "lines", "Toys_5.json.gz", [json.dumps({"asin": "a"}), "{"])
    with pytest.raises(DataError, match=r"Toys_5\.json\.gz row 2: not a line of JSON"):
        recsys.init(str(tmp_path / "lines"), dataset="amazon-2018", folder=tmp_path / "out")
    lines(tmp_path / "atoms", "a.inter", ["user_id\titem_id:token"])
    with pytest.raises(DataError, match="'user_id' in the first line is not name:type"):
        recsys.init(str(tmp_path / "atoms"), dataset="recbole", folder=tmp_path / "out")
