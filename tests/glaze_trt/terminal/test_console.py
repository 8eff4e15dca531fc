"""What goes to a terminal is text in one line, whatever files are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from glaze_trt.cli import app
from glaze_trt.terminal import console


def test_a_name_does_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\r\nb\u2028\x9b31m\udce9.png"
    console.tell(hostile)
    console.say(hostile)
    console.table([{"picture": hostile}])
    out, err = capsys.readouterr()
    text = r"\x1b]0;owned\x07\x1b[2J\r\nb\u2028\x9b31m\udce9.png"
    assert err == f"{text}\n"
    assert out == f"{text}\npicture\n{text}\n"


def test_text_of_any_tongue_stays_as_it_is() -> None:
    for text in ("ünï 猫.png", "می\u200cخواهم", "3.14\u202fPM.png", "👩\u200d🎨", "[bold]x.png"):
        assert console.shown(text) == text


def test_an_error_with_such_a_name(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["cloak", str(tmp_path / "\x1b(Ba\nb.png")], catch_exceptions=False)
    assert "\x1b" not in result.stderr
    assert result.stderr.startswith(f"error: {tmp_path}/\\x1b(Ba b.png: no such file")
    assert len(result.stderr.splitlines()) == 1
