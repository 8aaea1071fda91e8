"""What is shown steers no terminal and hides nothing."""

import yaml
from click.testing import CliRunner

from recsys.app.cli import main
from recsys.core.errors import ConfigError, DataError
from recsys.core.visible import on_one_line, visible
from recsys.features.propose.yaml_text import flow

ODD = "a\x1b[31m\x9bb\u202e\u200b\ufeff\u2028\x7f\U000e0041\udcff\0é\n\t'\"日"


def test_control_and_invisible_characters_are_escaped() -> None:
    shown = r"a\x1b[31m\x9bb\u202e\u200b\ufeff\u2028\x7f\U000e0041\udcff\x00é"
    assert visible(ODD) == shown + "\n\t'\"日"
    assert on_one_line(ODD) == shown + r"\n\t" + "'\"日"
    assert visible(visible(ODD)) == visible(ODD)


def test_errors_show_them_so_and_keep_what_they_are() -> None:
    error = DataError("bad", file="a\n.csv", column="c\x1b[2J")
    assert str(error) == r"a\n.csv, column 'c\x1b[2J': bad"
    assert (error.file, error.column) == ("a\n.csv", "c\x1b[2J")
    assert str(ConfigError("one\ntwo\x1b")) == "one\ntwo\\x1b"


def test_a_name_comes_back_from_the_configuration() -> None:
    name = ODD.replace("\udcff", "")
    written = flow({"column": name})
    assert visible(written) == written
    assert yaml.safe_load(written) == {"column": name}


def test_the_command_line_shows_them_so() -> None:
    said = CliRunner().invoke(main, ["init", "no\x1bfile.csv"])
    assert said.exit_code == 4
    assert r"no\x1bfile.csv: it does not exist" in said.output
