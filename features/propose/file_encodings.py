"""In which encoding the CSV files of a table are, where that is not plain from how they begin."""

from recsys.features.tables.encodings import UTF_8, whole_file_encoding
from recsys.features.tables.file_formats import FORMATS
from recsys.features.tables.reading import TableFiles

_PLAIN = {"ascii", UTF_8, "utf-16", "utf-32"}
"""What is recognised without a doubt."""


def assumed_encoding(files: TableFiles) -> str:
    """Return the encoding to declare for a table; "" where none is assumed. Reads all of it.

    Raises:
        DataError: a file is in no encoding that is known.
    """
    if not FORMATS[files.format].untyped:
        return ""
    found = {whole_file_encoding(path) for path in files.paths}
    assumed = found - _PLAIN
    # ASCII is the same in all of them but UTF-16; files of several are each recognised.
    alone = len(assumed) == 1 and found - assumed <= {"ascii"}
    (encoding,) = assumed if alone else ("",)
    return encoding
