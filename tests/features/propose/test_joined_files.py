"""Which of the given files are one table, and what their names say of their rows."""

from pathlib import Path

import pytest

from recsys.features.propose.joined_files import joined_files
from recsys.features.tables.sources import LogSource


def written(folder: Path, *names: str, header: str = "user,item,time") -> list[str]:
    for name in names:
        (folder / name).write_text(f"{header}\nu1,i1,1600000000\n")
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (("views.csv", "orders.csv"), ["view", "purchase"]),
        (("shop_clicks.csv", "shop_carts.csv", "shop_sales.csv"), ["view", "cart", "purchase"]),
    ],
)
def test_names_say_what_the_rows_of_each_log_are(
    tmp_path: Path, names: tuple[str, ...], kinds: list[str]
) -> None:
    paths = written(tmp_path, *names)
    (found,) = joined_files(paths)
    expected = [
        LogSource(path=path, set={"event": one}) for path, one in zip(paths, kinds, strict=True)
    ]
    assert list(found) == expected


@pytest.mark.parametrize(
    "names",
    [
        ("day1.csv", "day2.csv"),
        ("views_1.csv", "views_2.csv"),  # of one kind
        ("views.csv", "rest.csv"),  # one of no kind
        ("viewed_orders.csv", "orders.csv"),  # one of two kinds
    ],
)
def test_other_files_of_one_header_are_one_table(tmp_path: Path, names: tuple[str, ...]) -> None:
    (found,) = joined_files(written(tmp_path, *names))
    assert isinstance(found, str)
    assert "*" in found


def test_a_column_of_types_says_more_than_names(tmp_path: Path) -> None:
    paths = written(tmp_path, "views.csv", "orders.csv", header="user,item,event")
    assert all(isinstance(one, str) for one in joined_files(paths))
