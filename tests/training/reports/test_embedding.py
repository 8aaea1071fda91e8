"""The report's section on the table: it says what was found, and nothing that was not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys.data.batch import FeatureLayout
from recsys.embeddings.diagnostics import BUCKETS, Diagnosis, FeatureValues, NormBucket, diagnose
from recsys.embeddings.plan import EmbeddingPlan
from recsys.training.reports.embedding import embedding_section, norms
from tests.training.reports.test_report import EVIL, Page, made_up, write


@pytest.fixture
def found() -> Diagnosis:
    layout = FeatureLayout((("small", 1), ("large", 2), (EVIL, 1)), (), ())
    plan = EmbeddingPlan(num_rows=3000, dim=8, layouts=(layout,))
    features = [
        FeatureValues(name, torch.randint(2**62, (size,)), torch.randint(1, 3000, (size,)))
        for name, size in (("small", 20), ("large", 1200), (EVIL, 4))
    ]
    return diagnose(plan, features, torch.randn(3000, 8))


def cells(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(<td>.*?)</tr>", html, flags=re.S)
    return [re.findall(r"<td.*?>(.*?)</td>", row, flags=re.S) for row in rows]


def test_the_section_stands_in_the_report_if_there_is_one(found: Diagnosis, tmp_path: Path) -> None:
    evaluation = made_up(60, 120)
    without = write(tmp_path / "without.html", evaluation)
    assert "The embedding table" not in without
    page = Page(write(tmp_path / "with.html", evaluation, embedding=found))
    assert "The embedding table" in page.text
    assert "large" in page.text
    charts = [tag for tag, _ in page.seen if tag == "svg"]
    assert len(charts) == len([t for t, _ in Page(without).seen if t == "svg"]) + 1
    text = (tmp_path / "with.html").read_text()
    assert "<script" not in text
    drawn = " ".join(re.findall(r"<svg .*?</svg>", text, flags=re.S))
    assert re.findall(r"#[0-9a-f]{6}\b", drawn) == []


def test_each_feature_has_its_figures_the_largest_first(found: Diagnosis) -> None:
    html = embedding_section(found)
    assert "3,000 rows" in html
    assert f"is {found.load_factor:.2f}" in html
    assert f"overlap by {found.overlap:.2f} on average" in html
    table = cells(html)
    assert [row[0] for row in table][:2] == ["large", "small"]
    one = next(feature for feature in found.features if feature.name == "large")
    assert table[0][1:7] == [
        "1,200",
        "2<small>16</small>",
        f"{one.intra:.1%}<small>{one.expected_intra:.1%}</small>",
        "0.0%<small>&lt; 0.1%</small>",
        f"{one.inter:.1%}<small>{one.expected_inter:.1%}</small>",
        f"{one.effective_rank:.1f}<small>{one.effective_rank / 16:.1%}</small>",
    ]
    assert table[0][7] == f"{one.overlap:.2f}<small>{one.random_overlap:.2f}</small>"


def test_a_lone_feature_has_no_nearest(found: Diagnosis) -> None:
    one = replace(found.features[0], nearest="")
    nan = float("nan")
    html = embedding_section(replace(found, features=(one,), overlap=nan, random_overlap=nan))
    assert cells(html)[0][7:] == ["&ndash;", "none"]
    assert "nan" not in html
    assert "on average" not in html


def test_the_chart_names_every_bucket_that_holds_values(found: Diagnosis) -> None:
    values = (3, 0, 1500, 2, 1)
    buckets = tuple(
        NormBucket(*bounds, count, 9.0, number / 8 if count else float("nan"))
        for number, (bounds, count) in enumerate(zip(BUCKETS, values, strict=True))
    )
    chart = norms(replace(found, norms=buckets))
    assert chart is not None
    texts = [" ".join(text.split()) for text in re.findall(r">([^<>]+)</text>", chart)]
    said = " ".join(texts)
    for label in (
        "seen once (n=3)",
        "seen 10 to 99 times (n=1,500)",
        "seen 100 to 999 times (n=2)",
        "seen 1,000 times or more (n=1)",
    ):
        assert label in said
    assert not any("2 to 9" in text for text in texts)
    assert {"0.000", "0.250", "0.375", "0.500"} <= set(texts)
    empty = tuple(replace(bucket, num_values=0) for bucket in buckets)
    assert norms(replace(found, norms=empty)) is None
