"""The Python API of `recsys check`: what training would trip over, without training."""

from pathlib import Path

from recsys.app.arguments import checked
from recsys.app.configuration import Given, config_given
from recsys.app.starting import located
from recsys.core.imports import on_first_use
from recsys.core.remote.path import path_at
from recsys.training.config.file import dump_config
from recsys.training.families.family import Findings
from recsys.training.jobs.check import preflight

with on_first_use():
    from recsys.training.reports.data_page import write_data_page


@checked
def check(config: Given, *, html: str | Path | None = None) -> Findings:
    """Read and check everything that training would read, without training.

    Args:
        config: what would be trained.
        html: page to write, with charts of the data.

    Returns:
        What was found: print it; `warnings`, `lines()`, `to_json()`.

    Raises:
        UserError: what training would raise on the same configuration and data.

    Example:
        >>> recsys.check(config).rows["interactions"]
        4000
    """
    given = located(config_given(config))
    found = preflight(given)
    if html is not None:
        text = dump_config(given)
        write_data_page(path_at(html), found, title="The data", config_text=text)
    return found
