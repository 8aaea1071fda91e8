"""What colours the map of the items: the coarsest category that says something of most of them."""

from dataclasses import replace

import pytest

from recsys.features.dataset.dataset import Dataset
from recsys.training.reports.showcase import coarsest, item_groups

FOUR = list("abcd" * 10)
TWO = list("xy" * 20)
SAME = ["x"] * 40


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ([FOUR, TWO], TWO),
        ([TWO, FOUR], TWO),
        ([FOUR, TWO, list("zw" * 20)], TWO),  # the first of equals
        ([SAME, FOUR], FOUR),  # one value groups nothing
        ([["x"] * 37 + ["y"] * 3, FOUR], FOUR),  # nearly all items have the same
        ([["x"] * 36 + ["y"] * 4, FOUR], ["x"] * 36 + ["y"] * 4),
        ([[None] * 9 + list("xy" * 20)[9:], FOUR], FOUR),  # 31 of 40 have a value
        ([[None] * 8 + list("xy" * 20)[8:], FOUR], [None] * 8 + list("xy" * 20)[8:]),
        ([list(range(40)), [n % 11 for n in range(40)]], None),  # too fine to see
        ([[n % 10 for n in range(40)]], [n % 10 for n in range(40)]),
        ([], None),
    ],
)
def test_the_column_with_the_fewest_values_is_chosen(
    columns: list[list[object]], chosen: list[object] | None
) -> None:
    assert coarsest(columns) == chosen


def test_the_world_is_coloured_by_department_not_by_brand(dataset: Dataset) -> None:
    """Of department, category, subcategory and brand the department has the fewest values."""
    schema = dataset.schema
    turned = schema.model_copy(update={"features": tuple(reversed(schema.features))})
    for one in (dataset, replace(dataset, schema=turned)):
        assert item_groups(one) == dataset.tables.items.column("department").to_pylist()
