"""Every property on every format: the checks of `python -m bench.formats`, and that the docs' table is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import formats_checks as formats

DOCS = Path(__file__).parents[3] / "docs" / "pictures.md"


def documented() -> dict[tuple[str, str], str]:
    """The docs' table, by format and property."""
    lines = [line.strip("| ").split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("|")]
    names, found = lines[0], {}
    for line in lines[2:]:
        found |= {(name, line[0]): cell for name, cell in zip(names, line[1:], strict=True)}
    return found


@pytest.mark.parametrize("name", formats.PROPERTIES)
@pytest.mark.parametrize("form", formats.FORMATS, ids=lambda form: form.name)
def test_a_property_is_kept_or_told_of_as_the_docs_say(form: formats.Format, name: str) -> None:
    found = formats.PROPERTIES[name](form).split()[0]
    assert found != formats.NO
    assert found == documented()[form.name, name]
