"""Makes and keeps: every cloak once, with what was measured of it, so that a stopped run goes on where it was.

A result's key holds the system's settings, the networks' names and all pixels of the subject; what the program computes
is not in it, so a folder made by another version of the program has to go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.systems.equal import scaled
from bench.systems.measure import Measure
from bench.systems.subject import Levels, Subject
from bench.systems.system import System
from glaze_trt import models
from glaze_trt.cloak import Cloaker
from glaze_trt.evaluate import ssimulacra2
from glaze_trt.measure import handling
from glaze_trt.network import Network

Row = dict[str, Any]


class Ledger:
    """JSON lines, a key and a result each; a line that was cut off is made again."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self._path, self._rows = path, dict[str, Row]()
        text = path.read_text() if path.exists() else ""
        self._torn = not text.endswith("\n") and bool(text)
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            self._rows[entry["key"]] = entry["row"]

    def kept(self, key: str, make: Callable[[], Row]) -> Row:
        """The row of a key, made and appended if it is not there."""
        if key not in self._rows:
            row = make()
            with self._path.open("a") as file:
                file.write("\n" * self._torn + json.dumps({"key": key, "row": row}) + "\n")
            self._torn = False
            self._rows[key] = row
        return self._rows[key]


@dataclass(frozen=True)
class Networks:
    """How networks are chosen and run: the perceptual net's name, the engine and the step's precision."""

    perceptual: str
    engine: str = "auto"
    precision: str = "auto"


class Work:
    """Cloaks subjects by systems in a folder."""

    def __init__(self, folder: Path, networks: Networks, say: Callable[[str], None]) -> None:
        """Go on in `folder`, or begin there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._networks, self._say = folder, networks, say
        self.ledger = Ledger(folder / "results.jsonl")
        self._cloaker: Cloaker | None = None
        self._models: tuple[str, ...] = ()
        self._encoders: dict[str, Network] = {}

    def cloaked(self, system: System, subject: Subject) -> Row:
        """What a system made of a subject, measured on the 8-bit picture; `seconds` are of the loop alone."""
        return self.ledger.kept(self._key(system, subject), lambda: self._make(system, subject))

    def handled(self, system: System, subject: Subject) -> Row:
        """The progress that each of `handling.NAMES` leaves of it."""
        self.cloaked(system, subject)

        def make() -> Row:
            return handling.left(self._picture(system, subject), self._measure(system, subject).progress)

        return self.ledger.kept(f"{self._key(system, subject)} handled", make)

    def seen(self, system: System, subject: Subject, encoders: Sequence[str]) -> Row:
        """The progress that encoders see in it, the system's own or others."""
        self.cloaked(system, subject)

        def make() -> Row:
            return self._measure(system, subject, encoders).progresses(self._picture(system, subject))

        return self.ledger.kept(f"{self._key(system, subject)} seen by {', '.join(encoders)}", make)

    def around(self, score: float, system: System, subject: Subject) -> list[Row]:
        """The same with its change scaled to just above and just below a SSIMULACRA2; none if out of reach."""
        self.cloaked(system, subject)

        def make() -> Row:
            before, after = subject.picture, self._picture(system, subject)
            found = scaled(before, after, lambda levels: ssimulacra2(before, levels) >= score)
            measure = self._measure(system, subject)
            return {"around": [measure(levels) for levels in found]}

        return list(self.ledger.kept(f"{self._key(system, subject)} around {score:g}", make)["around"])

    def encoder(self, name: str) -> Network:
        """An encoder in fp32, loaded once."""
        if name not in self._encoders:
            self._encoders[name] = Network(models.find(name, "encoder"), self._networks.engine)
        return self._encoders[name]

    @cached_property
    def _lpips(self) -> Network:
        return Network(models.find(self._networks.perceptual, "perceptual"), self._networks.engine)

    def _make(self, system: System, subject: Subject) -> Row:
        cloaker = self._cloaker
        if cloaker is None or (self._models, cloaker.objective) != (system.models, system.objective):
            cloaker = Cloaker(
                system.models,
                self._networks.perceptual,
                system.objective,
                engine_name=self._networks.engine,
                precision=self._networks.precision,
            )
            self._cloaker, self._models = cloaker, system.models
        result = cloaker(subject.picture, target=subject.targets(system.toward) or None)
        Image.fromarray(result.rgb).save(self._file(system, subject))
        report = result.report
        row = {
            "system": system.name,
            "subject": subject.name,
            "steps": report.steps,
            "seconds": report.seconds["optimize"],
            "compile": report.seconds["compile"],
            "engine": report.engine,
            "precision": report.precision,
            "notes": list(report.notes),
            **self._measure(system, subject)(self._picture(system, subject)),
        }
        self._say(
            f"{subject.name}: {system.name}, {row['seconds']:.1f} s, progress {row['progress']:.3f}, "
            f"SSIMULACRA2 {row['ssimulacra2']:.1f}"
        )
        return row

    def _measure(self, system: System, subject: Subject, encoders: Sequence[str] = ()) -> Measure:
        nets = [self.encoder(name) for name in encoders or system.models]
        return Measure(system, subject, nets, self._lpips)

    def _picture(self, system: System, subject: Subject) -> Levels:
        with Image.open(self._file(system, subject)) as opened:
            return np.asarray(opened.convert("RGB"), np.uint8)

    def _file(self, system: System, subject: Subject) -> Path:
        return self._folder / f"{self._key(system, subject)}.png"

    def _key(self, system: System, subject: Subject) -> str:
        settings = (system.objective, system.models, system.toward, self._networks, subject.digest)
        return f"{subject.name}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}"
