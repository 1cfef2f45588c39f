"""`kompress --help` is where most users begin."""

import pytest
import typer
from typer.testing import CliRunner

from kompress_operator.cli.app import app

COMMANDS = sorted(typer.main.get_group(app).commands)


def shown(*arguments: str) -> str:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*arguments, "--help"])
    assert done.exit_code == 0
    return done.output


def test_each_command_is_told_in_one_line_that_is_not_cut() -> None:
    listed = shown().partition("Commands:\n")[2].splitlines()
    assert sorted(line.split()[0] for line in listed) == COMMANDS
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_and_option_of_a_command_is_explained(command: str) -> None:
    told = [parameter for parameter in typer.main.get_group(app).commands[command].params if parameter.name != "help"]
    assert [parameter.name for parameter in told if not getattr(parameter, "help", "")] == []
    assert f" {command} [OPTIONS] " in shown(command).splitlines()[0]
