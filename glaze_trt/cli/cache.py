"""`glaze-trt cache`: what compiled engines are kept on this machine, and how to be rid of them."""

from __future__ import annotations

import time

import typer

from engine.cache import Cache, default_folder
from glaze_trt.terminal import console
from glaze_trt.terminal.console import Debug, Json, failing_clearly

app = typer.Typer(help="Compiled engines that are kept on this machine.", no_args_is_help=True)


@app.command(name="list")
def show(as_json: Json = False, debug: Debug = False) -> None:
    """List the engines, the last used first."""
    with failing_clearly(as_json=as_json, debug=debug):
        folder = default_folder()
        entries = Cache(folder).entries()
        total = sum(entry.bytes for entry in entries)
        if as_json:
            rows = [
                {"file": entry.file.name, "bytes": entry.bytes, "used": entry.used, "key": entry.key}
                for entry in entries
            ]
            console.document({"folder": str(folder), "bytes": total, "engines": rows})
            return
        if entries:
            console.table(
                [
                    {
                        "engine": entry.file.stem[:12],
                        **{name: entry.key.get(name) for name in ("backend", "version", "device", "precision")},
                        "size": f"{entry.bytes / 1e6:.1f} MB",
                        "last used": time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)),
                    }
                    for entry in entries
                ]
            )
        typer.echo(f"{_count(len(entries))}, {total / 1e6:.1f} MB in {folder}")


@app.command()
def clear(as_json: Json = False, debug: Debug = False) -> None:
    """Remove every engine that is not being built."""
    with failing_clearly(as_json=as_json, debug=debug):
        folder = default_folder()
        cache = Cache(folder)
        freed = cache.clear()
        left = len(cache.entries())
        if as_json:
            console.document({"folder": str(folder), "freed": freed, "left": left})
            return
        typer.echo(f"{freed / 1e6:.1f} MB freed in {folder}")
        if left:
            typer.echo(f"{_count(left)} left: being built, or not ours to remove")


def _count(number: int) -> str:
    return f"{number} engine{'' if number == 1 else 's'}"
