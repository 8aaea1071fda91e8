"""What was found in a piece of a table, told as plain values and joined to the whole.

A reader of the whole that is told of every piece in order ends with what it would have found by
itself: counts, findings, the types of columns, and what only a whole column of times shows.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from recsys.features.tables.ledger import Finding, Ledger, Tally
from recsys.features.tables.rows import RowReader
from recsys.features.tables.sources import Rule


def told_of(reader: RowReader, ledger: Ledger) -> dict[str, Any]:
    """Return what `reader` found in a piece, with what it noted in `ledger`, ready for JSON."""
    time, ids = reader.checks
    firsts = {role: one.first for role, one in ids.items() if one.first is not None}
    return {
        "rows": reader.num_read,
        "findings": [[*key, asdict(one)] for key, one in ledger.found().items()],
        "types": [[name, _text(a), _text(b), row] for name, (a, b, row) in reader.types.items()],
        "times": None if time is None else time.told(),
        "ids": {role: [_text(kind), row] for role, (kind, row) in firsts.items()},
    }


def join_told(reader: RowReader, ledger: Ledger, told: Mapping[str, Any]) -> None:
    """Add what `told_of` told of the next piece; `reader` and `ledger` are of the whole table.

    Raises:
        DataError: a column, or ids, are of another type than in earlier pieces.
    """
    time, ids = reader.checks
    reader.num_read += told["rows"]
    ledger.join({(column, reason): _finding(one) for column, reason, one in told["findings"]})
    for role, check in ids.items():
        if role in told["ids"]:
            kind, row = told["ids"][role]
            check.check_type(_type(kind), row)
    for name, read, given, row in told["types"]:
        reader.check_type(name, _type(read), _type(given), row)
    if time is not None:
        time.join(told["times"])


def _finding(told: Mapping[str, Any]) -> Finding:
    return Finding(told["remedy"], Rule(**told["rule"]), Tally(**told["tally"]))


def _text(kind: pa.DataType) -> str:
    return pa.schema([("", kind)]).serialize().to_pybytes().hex()


def _type(text: str) -> pa.DataType:
    return pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(text))).field(0).type
