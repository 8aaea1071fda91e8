"""The report of a made-up evaluation: what it says, and that it needs nothing but itself."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.metrics.intervals import bootstrap_interval
from recsys.metrics.ranking import (
    coverage_at_k,
    hit_rate_at_k,
    hits,
    mrr_at_k,
    ndcg_at_k,
    novelty_at_k,
    recall_at_k,
)
from recsys.training.evaluation.results import ColdItems, Evaluation, Example, RankerResult
from recsys.training.reports.map import MAX_ITEMS, embedding_map
from recsys.training.reports.plots import METRICS, _apart, colour_variables, popularity
from recsys.training.reports.retrieval import verdict, write_report

KS = (10, 20, 50, 100)
FUNCTIONS = {
    "recall": recall_at_k,
    "hit_rate": hit_rate_at_k,
    "ndcg": ndcg_at_k,
    "mrr": mrr_at_k,
}
EVIL = "<script>alert('x')</script>"


def ranker(
    name: str, scores: NDArray[np.float64], taken: NDArray[np.int64], counts: NDArray[np.int64]
) -> RankerResult:
    top = np.argsort(-scores, axis=1)[:, : KS[-1]].astype(np.int32)
    offsets = np.arange(len(top) + 1) * taken.shape[1]
    hit, num_relevant = hits(top, taken.ravel(), offsets), np.full(len(top), taken.shape[1])
    per_query = {f"{m}_at_{k}": f(hit, num_relevant, k) for k in KS for m, f in FUNCTIONS.items()}
    metrics = {key: float(values.mean()) for key, values in per_query.items()}
    for k in KS:
        metrics[f"coverage_at_{k}"] = coverage_at_k(top, len(counts), k)
        metrics[f"novelty_at_{k}"] = novelty_at_k(top, counts, k)
    mean = metrics["recall_at_20"]
    shares = {"items: head": 1.4, "items: torso": 0.9, "items: tail": 0.4, "items: cold": 0.1}
    shares |= {"users: 1-4 events": 0.8, "users: 5-19 events": 1.0, "users: 20+ events": 1.2}
    slices = {s: {"recall_at_20": mean * f, "queries": 300 * f} for s, f in shares.items()}
    intervals = {m: bootstrap_interval(values, 200) for m, values in per_query.items()}
    return RankerResult(name, top, per_query, metrics, intervals, slices)


def made_up(num_users: int = 400, num_items: int = 300) -> Evaluation:
    """Users with a taste, items with a popularity; rankers that know more or less of either."""
    rng = np.random.default_rng(0)
    appeal = 1.2 * np.log(1 / np.arange(1, num_items + 1))[rng.permutation(num_items)]
    taste = rng.normal(size=(num_users, 8)) @ rng.normal(size=(8, num_items)) / 1.5
    truth = appeal + taste
    taken = np.argsort(-(truth + rng.gumbel(size=truth.shape)), axis=1)[:, :5]
    counts = rng.poisson(2000 * np.exp(appeal) / np.exp(appeal).sum())
    scores = {
        "two_tower": truth + rng.normal(size=truth.shape),
        "popularity": np.tile(appeal, (num_users, 1)),
        "item_knn": appeal + 0.5 * taste + rng.normal(size=truth.shape),
        "best_reachable": truth,
    }
    return Evaluation(
        protocol={"split": "global time split", "queries": f"{num_users} users"},
        ks=KS,
        query_users=np.arange(num_users, dtype=np.int32),
        relevant_values=taken.ravel(),
        relevant_offsets=np.arange(num_users + 1) * 5,
        results={name: ranker(name, s, taken, counts) for name, s in scores.items()},
        train_counts=counts,
        representation={"rankme": 41.2},
    )


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return made_up()


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation as it is: drawn once, read by many."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write(path, evaluation)
    return path


@pytest.fixture(scope="module")
def small(evaluation: Evaluation) -> Evaluation:
    """The evaluation with two rankers and without slices: few charts to draw, and small ones."""
    kept = ("two_tower", "item_knn")
    return replace(
        evaluation, results={name: replace(evaluation.results[name], slices={}) for name in kept}
    )


def write_small(path: Path, evaluation: Evaluation, **changes: object) -> str:
    """Write a page with few curves, for what is not about them."""
    return write(path, evaluation, **{"history": [], "examples": [], **changes})


def write(path: Path, evaluation: Evaluation, **changes: object) -> str:
    num_items = len(evaluation.train_counts)
    rng = np.random.default_rng(1)
    group = rng.integers(0, 12, num_items)
    centres = rng.normal(size=(12, 32))
    names = ["Lamp", "Chair", "Desk", "Mug", "Tent", "Scarf"]
    names += ["Boots", "Radio", "Novel", "Puzzle", "Kettle", "Bicycle"]
    titles = [f"{names[g]} no. {row}" for row, g in enumerate(group)]
    history: list[dict[str, float]] = []
    for step in range(20, 1200, 20):
        point = {"step": float(step), "epoch": float(step // 200)}
        history.append({**point, "loss": 4 + 4 * np.exp(-step / 300) + rng.normal() * 0.05})
        if step % 200 == 0:
            rise = 1 - np.exp(-step / 400)
            top = {"recall": 0.3, "hit_rate": 0.6, "ndcg": 0.2, "mrr": 0.25}
            history.append({**point, **{f"validation/{m}_at_20": v * rise for m, v in top.items()}})
    examples = [
        Example("u", ["old", "old", "new"], ["a"], [("a", 0.5, True), ("b", float("nan"), False)])
    ]
    examples += [
        Example(
            user=f"user {number}",
            history=titles[number : number + number % 9],
            relevant=titles[40 + number : 43 + number],
            recommended=[(titles[36 + number + i], 0.9 - i / 20, i in (4, 6)) for i in range(10)],
        )
        for number in range(20)
    ]
    arguments: dict[str, object] = {
        "title": "Two-tower retrieval",
        "config_text": "model:\n  dim: 64\n",
        "evaluation": evaluation,
        "history": history,
        "item_titles": titles,
        "item_groups": [names[g] for g in group],
        "item_vectors": (centres[group] + rng.normal(size=(num_items, 32))).astype(np.float32),
        "examples": examples,
        "facts": {"interactions": "60,000", "items.price: infinite": "3 rows (null)"},
    }
    write_report(path, **{**arguments, **changes})  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects tags and attributes, and insists that every tag is closed."""

    VOID = frozenset(["meta", "br", "img", "input", "link", "hr"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_needs_nothing_but_itself(page: Path) -> None:
    read = Page(page.read_text(encoding="utf-8"))
    for tag, attributes in read.seen:
        assert tag not in ("script", "link", "iframe", "img")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert len([tag for tag, _ in read.seen if tag == "figure"]) == 7
    text = " ".join(read.text)
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]
    for metric in METRICS.values():
        for k in KS:
            assert f"{metric}@{k}" in text
    for words in ("global time split", "60,000", "3 rows (null)", "dim: 64", "41.200", "user 19"):
        assert words in text


def test_charts_take_their_colours_from_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    charts = re.findall(r"<svg .*?</svg>", text, flags=re.S)
    colours = set(re.findall(r"#[0-9a-f]{6}\b", " ".join(charts)))
    assert colours == set()
    ids = re.findall(r' id="([^"]+)"', text)
    referred = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert referred <= set(ids)


def test_titles_users_and_configuration_are_escaped(small: Evaluation, tmp_path: Path) -> None:
    evil = Example(user=EVIL, history=[EVIL], relevant=[EVIL], recommended=[(EVIL, 0.5, True)])
    text = write_small(
        tmp_path / "report.html",
        replace(small, protocol={EVIL: EVIL}),
        title=EVIL,
        config_text=EVIL,
        item_titles=[EVIL] * len(small.train_counts),
        item_groups=[EVIL, "b"] * (len(small.train_counts) // 2),
        examples=[evil],
        facts={EVIL: EVIL},
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 10


def test_hits_are_marked_and_history_runs_backwards(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r'<li class="hit">&#10003; a <small>0\.500</small></li>', text)
    assert "<li>b</li>" in text
    assert text.index("<li>new</li>") < text.index("<li>old <small>2 times</small></li>")
    assert "1 of 1 found" in text


def test_the_verdict_is_no_better_than_the_numbers(evaluation: Evaluation) -> None:
    names = ("two_tower", "item_knn", "popularity")
    model, knn, _ = (evaluation.results[name] for name in names)
    ahead = verdict(evaluation, 20)
    assert (
        f"finds {model.metrics['recall_at_20']:.1%} of the items users interacted with next"
        in ahead
    )
    assert "the best baseline, item kNN" in ahead
    assert "points ahead (95 %" in ahead
    turned = {"item_knn": knn, "two_tower": model}
    assert "points behind (95 %" in verdict(replace(evaluation, results=turned), 20)
    same = {"two_tower": model, "popularity": replace(model, name="popularity")}
    assert "within the error" in verdict(replace(evaluation, results=same), 20)


def test_half_of_the_places_is_where_it_is_by_hand(evaluation: Evaluation) -> None:
    top = np.array([[3, 0], [3, 1], [3, -1]], np.int32)
    model = replace(evaluation.results["two_tower"], top=top)
    small = replace(
        evaluation,
        results={"two_tower": model},
        train_counts=np.array([5, 1, 9, 7]),
        relevant_values=np.array([2, 2, 0]),
    )
    text = popularity(small, 2)
    assert "two-tower: half within 2<" in text  # item 3 is the second most popular: 3 of 5
    assert "actual next items: half within 1<" in text


def test_edges_a_small_run_without_curves_groups_or_vectors(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    model = replace(evaluation.results["two_tower"], slices={})
    bare = replace(evaluation, results={"two_tower": model}, representation={})
    vectors = np.full((len(evaluation.train_counts), 4), np.nan, np.float32)
    page = Page(
        write(
            tmp_path / "r.html",
            bare,
            history=[],
            examples=[],
            item_vectors=vectors,
            item_groups=None,
        )
    )
    assert len([tag for tag, _ in page.seen if tag == "figure"]) == 3


def test_the_map_keeps_neighbours_together_and_names_each_dot() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 500)
    vectors = (3 * rng.normal(size=(4, 16))[group] + rng.normal(size=(2000, 16))).astype(np.float32)
    found = embedding_map(
        vectors, [f"t{i}" for i in range(2000)], [f"g{g}" for g in group], np.ones(2000, np.int64)
    )
    assert found is not None
    circles = re.findall(
        r'class="(group-\d)" cx="([\d.]+)" cy="([\d.]+)" r="4"><title>(t\d+) \(g', found.html
    )
    assert len(circles) == MAX_ITEMS
    assert len({title for *_, title in circles}) == MAX_ITEMS
    style = np.array([circle[0] for circle in circles])
    places = np.array([circle[1:3] for circle in circles], float)
    near = ((places[:, None] - places) ** 2).sum(2)
    np.fill_diagonal(near, np.inf)
    assert (style[near.argmin(1)] == style).mean() > 0.9
    assert sum(size for _, _, size in found.legend) == MAX_ITEMS


def test_labels_are_pushed_apart_in_order() -> None:
    placed = _apart(np.array([0.5, 0.51, 0.1, 0.52]), 0.1)
    assert np.diff(np.sort(placed)).min() > 0.099
    assert list(np.argsort(placed)) == [2, 0, 1, 3]


def test_a_collapse_and_what_was_left_out_are_said_on_the_page(
    small: Evaluation, page: Path, tmp_path: Path
) -> None:
    good = page.read_text(encoding="utf-8")
    assert "Alarm." not in good
    assert "Fell back" not in good
    bad = replace(
        small,
        representation={"rankme": 1.7, "uniformity": -0.1},
        left_out={"ease": "a matrix of 9 x 9 <items>"},
        fell_back={"item_knn": 3},
        fallback="recent popularity",
    )
    text = write_small(tmp_path / "r.html", bad)
    assert "The representation has collapsed: the item vectors use 1.7 of 32" in text
    assert "Left out: EASE: a matrix of 9 x 9 &lt;items&gt;." in text
    assert "Used recent popularity, without a known history: item kNN for 3 of" in text
    flat = np.repeat(np.eye(4, 32, dtype=np.float32), 75, 0)  # a place a group
    bad = replace(small, representation={"rankme": 3.0})
    groups = [str(row // 75) for row in range(300)]
    text = write_small(tmp_path / "r.html", bad, item_vectors=flat, item_groups=groups)
    assert "Items of one category are 0% as far apart as any two" in text


def test_the_space_has_curves_where_validations_measured_it(
    small: Evaluation, tmp_path: Path
) -> None:
    names = ("rankme", "alignment", "uniformity")
    history = [
        {"step": 10.0 * n, "epoch": n, "loss": 1.0, **{f"validation/{m}": 30.0 - n for m in names}}
        for n in range(3)
    ]
    text = write_small(tmp_path / "r.html", small, history=history)
    for title in ("Effective rank of the items", ">Alignment<", ">Uniformity<"):
        assert title in text
    without = [{k: v for k, v in p.items() if k != "validation/alignment"} for p in history]
    text = write_small(tmp_path / "r.html", small, history=without)
    assert ">Uniformity<" in text
    assert ">Alignment<" not in text
    ranks = [30.0, 2.0]
    dropped = [{"step": 10.0 * n, "epoch": n, "validation/rankme": r} for n, r in enumerate(ranks)]
    text = write_small(tmp_path / "r.html", replace(small, representation={}), history=dropped)
    assert "It was 30.0 before and fell during training" in text


def test_slices_have_a_chart_each_and_queries_their_name(
    evaluation: Evaluation, page: Path, tmp_path: Path
) -> None:
    assert "Items by training rows" not in page.read_text(encoding="utf-8")
    more = {"item counts: 1-9 rows": {"recall_at_20": 0.1, "queries": 30.0}}
    more |= {"sessions: 1 step": {"recall_at_20": 0.2, "queries": 40.0}}
    results = {
        name: replace(result, slices={**result.slices, **more})
        for name, result in evaluation.results.items()
    }
    text = write(tmp_path / "r.html", replace(evaluation, results=results, asked="events"))
    assert len([tag for tag, _ in Page(text).seen if tag == "figure"]) == 9
    assert "Items by training rows" in text
    assert "Sessions by their length so far" in text
    for words in ("1-9 rows  (n=30)", "1 step  (n=40)", "n: events with such an item", "n: events"):
        assert f"{words}<" in text
    assert "Mean over the same events for every ranker" in text
    assert "(95 % interval, same events)" in text
    assert "intervals over users" not in text


def test_cold_items_have_a_section_that_says_what_chance_gives(
    small: Evaluation, page: Path, tmp_path: Path
) -> None:
    assert "Cold items" not in page.read_text(encoding="utf-8")
    cold = {f"cold_recall_at_{k}": 0.0123 for k in KS}
    cold |= {f"cold_alone_recall_at_{k}": 0.4567 for k in KS}
    bounds = dict.fromkeys(cold, (0.0, 0.5))
    results = {
        name: replace(
            result, metrics={**result.metrics, **cold}, intervals={**result.intervals, **bounds}
        )
        for name, result in small.results.items()
    }
    with_cold = replace(small, results=results, cold=ColdItems(60, 123, trained=False))
    text = write_small(tmp_path / "r.html", with_cold)
    said = " ".join(" ".join(Page(text).text).split())
    assert "60 of the 300 items are cold" in said
    assert "123 users interacted with one" in said
    assert "by chance that would be 33.3%" in said  # 20 of 60
    assert "no training row is about them" in said
    assert "Recall@20, among all 300 items" in said
    assert "Recall@20, among the 60 cold items alone" in said
    assert "recall of cold items@20" in said
    assert "recall of cold items, they alone ranked@20" in said
    few = replace(with_cold, cold=ColdItems(7, 123, trained=True))
    said = " ".join(" ".join(Page(write_small(tmp_path / "r.html", few)).text).split())
    assert "by chance that would be 100.0%" in said
    assert "though some have training rows" in said


def test_ten_rankers_have_ten_colours(small: Evaluation, tmp_path: Path) -> None:
    model = small.results["two_tower"]
    names = ["session", *(f"other_{number}" for number in range(9)), "best_reachable"]
    many = replace(small, results={name: replace(model, name=name) for name in names})
    colours = colour_variables(many)
    assert len(set(colours.values())) == 11
    text = write_small(tmp_path / "r.html", many)
    for colour in colours.values():
        name = colour.removeprefix("var(").removesuffix(")")
        assert text.count(f"{name}: #") == 2  # by day and by night
