"""Databases of RelBench (Robinson et al., NeurIPS 2024): Parquet files, one a table."""

from recsys.features.public_data.data_set import BY_TIME, DataSet, Protocol, Table
from recsys.features.public_data.raw import Parquet

RELATIONAL = {
    "rel-hm": DataSet(
        "RelBench's H&M",
        "an article bought a row; the folder db with transactions.parquet",
        [
            Table("transactions", {"transactions.parquet": Parquet()}),
            Table("article", {"article.parquet": Parquet()}, needed=False),
            Table("customer", {"customer.parquet": Parquet()}, needed=False),
        ],
        {
            "relbench": Protocol(
                "validation from 2020-09-07, test from 2020-09-14, as RelBench has it",
                split=("kind: time", 'validation_from: "2020-09-07"', 'test_from: "2020-09-14"'),
            ),
            "time": BY_TIME,
        },
    ),
    "rel-amazon": DataSet(
        "RelBench's Amazon",
        "a review a row; the folder db with review.parquet",
        [
            Table("review", {"review.parquet": Parquet()}),
            Table("product", {"product.parquet": Parquet()}, needed=False),
            Table("customer", {"customer.parquet": Parquet()}, needed=False),
        ],
        {
            "relbench": Protocol(
                "validation from 2015-10-01, test from 2016-01-01, as RelBench has it",
                split=("kind: time", 'validation_from: "2015-10-01"', 'test_from: "2016-01-01"'),
            ),
            "time": BY_TIME,
        },
    ),
}
