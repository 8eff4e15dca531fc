"""`python -m bench.formats`: what of a picture each format keeps, through load, a change, save and load again.

Each cell is a check on real files (`bench.formats_checks`):

    kept       as it was, to the bit where that can be
    nearly     within what the format's encoder loses; the number is the largest error in levels
    told       the format has no place for it, and a note or an error says so
    no         not kept and not told: a fault, and the exit status is 1

Rows are what is written; a picture comes in the same format where that can hold the property, else as PNG or TIFF.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.formats_checks import FORMATS, NO, PROPERTIES


def cells() -> dict[str, dict[str, str]]:
    """What each format does with each property."""
    return {form.name: {name: check(form) for name, check in PROPERTIES.items()} for form in FORMATS}


def markdown(found: Mapping[str, Mapping[str, str]]) -> str:
    """The table for the docs: properties down, formats across."""
    lines = [f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for name in PROPERTIES:
        lines.append(f"| {name} | {' | '.join(row[name].split()[0] for row in found.values())} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.formats", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench/results/formats.json"))
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/pictures.md has it")
    options = parser.parse_args(argv)
    found = cells()
    if options.markdown:
        print(markdown(found))
    else:
        shown = Table(title="What a file keeps: load, change, save, load")
        for column in ("", *found):
            shown.add_column(column)
        for name in PROPERTIES:
            shown.add_row(name, *(row[name] for row in found.values()))
        Console(width=None if sys.stdout.isatty() else 130).print(shown)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(cell.startswith(NO) for row in found.values() for cell in row.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
