"""The fused interacting layer against its formula in double precision, and where it cannot run."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys.core.native import native_library
from recsys.layers.field_attention import SOURCE, can_fuse, fused_layer
from recsys.models.autoint import InteractingLayer

fused = pytest.mark.skipif(native_library(SOURCE, head_dim=5) is None, reason="no C++ compiler")


def by_formula(x: Tensor, weight: Tensor, heads: int, scale: float) -> Tensor:
    """Equations 5 to 8 in double precision."""
    parts = weight.double().view(4, heads, -1, x.shape[2])
    query, key, value, residual = torch.einsum("bne,phae->pbhna", x.double(), parts)
    attention = torch.softmax(scale * torch.einsum("bhma,bhna->bhmn", query, key), dim=3)
    return torch.relu(attention @ value + residual).transpose(1, 2).flatten(2)


def drawn(rows: int, fields: int, width: int, heads: int, head_dim: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, fields, width, requires_grad=True)
    weight = torch.randn(4 * heads * head_dim, width) / width**0.5
    return x, weight.requires_grad_()


@fused
@pytest.mark.parametrize(
    ("rows", "fields", "width", "heads", "head_dim"),
    [(1, 1, 1, 1, 5), (15, 3, 4, 2, 5), (16, 8, 6, 3, 5), (33, 39, 16, 2, 8), (50, 7, 32, 1, 16)],
)
@pytest.mark.parametrize("scale", [1.0, 0.35])
def test_output_and_gradients_are_those_of_the_formula(
    rows: int, fields: int, width: int, heads: int, head_dim: int, scale: float
) -> None:
    x, weight = drawn(rows, fields, width, heads, head_dim)
    found = fused_layer(x, weight, heads, scale)
    expected = by_formula(x, weight, heads, scale)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad(found, (x, weight), upstream)
    wanted = torch.autograd.grad(expected, (x, weight), upstream.double())
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-4)


@fused
def test_inner_products_of_hundreds_neither_overflow_nor_vanish() -> None:
    x, weight = drawn(20, 6, 8, 2, 8)
    found = fused_layer(x * 30, weight, 2, 1.0)
    assert found.isfinite().all()
    torch.testing.assert_close(
        found.double(), by_formula(x * 30, weight, 2, 1.0), rtol=1e-3, atol=1e-2
    )


@fused
def test_a_value_that_is_not_finite_spoils_its_row_and_no_other() -> None:
    x, weight = drawn(20, 6, 8, 2, 8)
    spoilt = x.detach().clone()
    spoilt[7, 2, 3] = float("nan")
    found = fused_layer(spoilt, weight, 2, 1.0)
    assert found[7].isnan().all()
    others = torch.arange(20) != 7
    assert torch.equal(found[others], fused_layer(x, weight, 2, 1.0)[others])


@fused
def test_threads_share_the_rows() -> None:
    x, weight = drawn(100, 5, 4, 2, 5)
    upstream = torch.randn(100, 5, 10)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            y = fused_layer(x, weight, 2, 1.0)
            results.append((y, *torch.autograd.grad(y, (x, weight), upstream)))
        finally:
            torch.set_num_threads(1)
    torch.testing.assert_close(results[0], results[1])


@fused
def test_what_lies_apart_in_memory_and_what_is_empty_are_taken_as_they_are() -> None:
    x, weight = drawn(6, 20, 4, 2, 5)
    apart = x.transpose(0, 1)
    torch.testing.assert_close(
        fused_layer(apart, weight, 2, 1.0), fused_layer(apart.contiguous(), weight, 2, 1.0)
    )
    assert fused_layer(x[:0], weight, 2, 1.0).shape == (0, 20, 10)


@fused
def test_autocast_changes_no_number() -> None:
    x, weight = drawn(9, 4, 6, 2, 5)
    plain = fused_layer(x, weight, 2, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fused_layer(x, weight, 2, 1.0), plain)
        assert fused_layer(x.bfloat16(), weight, 2, 1.0).dtype == torch.float32


@fused
def test_double_precision_and_dropout_go_another_way() -> None:
    x = torch.randn(4, 3, 6)
    assert can_fuse(x, 5)
    assert not can_fuse(x.double(), 5)
    layer = InteractingLayer(6, 2, 5, scaled=False, dropout=0.5)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RECSYS_NATIVE", raising=False)
    native_library.cache_clear()
    yield tmp_path / "recsys"
    native_library.cache_clear()


@fused
def test_without_the_library_the_numbers_are_the_same(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = InteractingLayer(6, 2, 5, scaled=True, dropout=0.0), torch.randn(7, 3, 6)
    with_library = layer(x)
    assert len(list(own_cache.glob("field_attention-*.so"))) == 1
    monkeypatch.setenv("RECSYS_NATIVE", "0")
    native_library.cache_clear()
    assert not can_fuse(x, 5)
    torch.testing.assert_close(layer(x), with_library)


def test_a_compiler_that_fails_is_told_of_once(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "false")
    with caplog.at_level(logging.WARNING):
        assert native_library(SOURCE, head_dim=5) is None
        assert native_library(SOURCE, head_dim=5) is None
    assert [record.getMessage()[:32] for record in caplog.records] == [
        "field_attention runs on torch, s"
    ]
    assert not list(own_cache.iterdir())
    monkeypatch.setenv("CXX", "no-such-compiler")
    native_library.cache_clear()
    assert native_library(SOURCE, head_dim=5) is None
