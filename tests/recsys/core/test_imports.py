"""What is imported leaves the program's logging and its garbage collection alone."""

import gc
import subprocess
import sys

import pytest

from recsys.core.imports import uncollected

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
