"""Imports: put off until they are used, and without effects on the rest of the program."""

import builtins
import decimal
import gc
import importlib
import statistics
import subprocess
import sys
import types
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recsys.core.imports import Later, on_first_use, uncollected

PROGRAM = """
import logging
{imports}
assert logging.root.handlers == [], logging.root.handlers
logging.basicConfig(format="mine: %(message)s")
logging.getLogger("recsys").warning("said")
"""


@pytest.mark.parametrize(
    "imports",
    [
        "from recsys.embeddings.fbgemm_table import imports; assert imports()",
        "from recsys.embeddings.sharded import check_shards\n"
        "from recsys.embeddings.table import TableConfig; check_shards(TableConfig(), 2)",
    ],
)
def test_no_library_sets_up_logging_for_the_program(imports: str) -> None:
    pytest.importorskip("fbgemm_gpu")
    command = [sys.executable, "-c", PROGRAM.format(imports=imports)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "mine: said"


def test_garbage_is_collected_after_imports_if_it_was_before() -> None:
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


LATER = """
from recsys.core.imports import on_first_use

with on_first_use():
    import decimal
    from fractions import Fraction
    from fractions import Fraction as Share
    from statistics import mean


def total(*parts: Fraction | None) -> Fraction:
    return sum(parts, Fraction(0))


def middle():
    return mean([Fraction(1, 2), Fraction(3, 2)])


def digits():
    return decimal.Decimal("1.50")
"""


@pytest.fixture
def later(tmp_path: Path) -> Iterator[ModuleType]:
    (tmp_path / "named_later.py").write_text(LATER)
    sys.path.insert(0, str(tmp_path))
    try:
        yield importlib.import_module("named_later")
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["named_later"]


def test_a_name_is_imported_when_it_is_first_used_and_bound_from_then_on(later: ModuleType) -> None:
    assert type(later.Fraction) is type(later.mean) is type(later.decimal) is Later
    assert later.Fraction is later.Share, "one object stands for a name, whatever it is called"
    assert later.middle() == 1
    assert later.mean is statistics.mean
    assert later.Fraction is Fraction
    assert later.total(Fraction(1, 2), Fraction(1, 3)) == Fraction(5, 6)
    assert later.digits() == decimal.Decimal("1.5")
    assert later.decimal is decimal


def test_what_is_held_elsewhere_still_answers_after_it_was_bound(later: ModuleType) -> None:
    held, shared = later.Fraction, later.Share
    assert isinstance(Fraction(1), held)
    assert not isinstance(1, shared)
    assert held(1, 2) == shared.from_float(0.5) == Fraction(1, 2)
    assert types.new_class("Own", (held,)).__mro__[1] is Fraction


def test_the_usual_import_is_back_after_a_block_that_fails() -> None:
    before = builtins.__import__
    names = {"on_first_use": on_first_use, "__name__": "x"}
    with pytest.raises(ImportError, match=r"import os\.path on first use by `from`"):
        exec("with on_first_use():\n    import os.path", names)
    assert builtins.__import__ is before


def test_a_name_that_is_not_there_is_missing_when_it_is_used() -> None:
    names: dict[str, Any] = {"on_first_use": on_first_use, "__name__": "x"}
    exec("with on_first_use():\n    from statistics import no_such_thing", names)
    with pytest.raises(ImportError, match="no_such_thing"):
        names["no_such_thing"]()
