"""Pictures on a cluster, by Ray Data: one actor per GPU, or per few cores where there is none.

Every machine sees the pictures and the output folder under the same paths, and has the models. An actor makes result
files whole beside their places; the manifest and the last move stay with the one process that the command runs in. An
actor that dies is started again and its picture tried again, a few times. Needs the extra `ray`.
"""

from __future__ import annotations

import json
import platform
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine import errors as engine_errors
from glaze_trt import errors
from glaze_trt.errors import GlazeError, UsageError
from glaze_trt.runs import jobs, ray_session
from glaze_trt.runs.handover import Room
from glaze_trt.runs.identity import Identity
from glaze_trt.runs.parts import Part
from glaze_trt.runs.pipeline import MEGAPIXELS, Failure
from glaze_trt.runs.plan import Job
from glaze_trt.runs.settings import Settings
from glaze_trt.runs.shots import Finished
from glaze_trt.runs.stages import Stages
from glaze_trt.terminal.console import one_line

CORES = 4
"""Of an actor on processors, where a machine has as many: more of them help one picture less than the next picture."""

TRIES = 3
"""How often a picture may be begun: one that takes its machine's memory each time must not end the run."""

_AT_ONCE = 3
"""Pictures that an actor has under way, one in each stage."""

Told = Mapping[str, Any]


def run(
    address: str,
    work: Sequence[Job],
    settings: Settings,
    run_id: str,
    deliver: Callable[[Finished | Failure], None],
    stopped: Callable[[], bool],
) -> None:
    """Do all pictures on a cluster, in any order.

    Args:
        address: of a cluster, as `ray.init` takes it; "" for whatever Ray finds or starts.
        work: the pictures.
        settings: what holds for every picture.
        run_id: what files in the making are called after.
        deliver: told of every picture, in this thread.
        stopped: whether no further picture shall be begun.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
        GlazeError, EngineError: one of its machines lacks what the run needs.
    """
    ray = ray_session.find()
    with ray_session.connected(ray, address):
        import ray.data as data

        size, cpus, gpus = _shape(ray, len(work))
        course = ray.remote(num_cpus=0)(_Course).remote(TRIES)
        rows = [{"job": json.dumps(_plain(job))} for job in work]
        # a block a picture: what is done is told of at once, and little is lost with an actor
        done = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            fn_constructor_args=(settings.absolute(), run_id, cpus if not gpus else None, course, version("glaze-trt")),
            batch_size=1,
            compute=data.ActorPoolStrategy(
                size=size,
                max_tasks_in_flight_per_actor=_AT_ONCE,
                max_concurrent_calls_per_actor=_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            num_cpus=cpus,
            num_gpus=gpus or None,
        )
        known = {job.name: job for job in work}
        with ray_session.watched(lambda: ray.get(course.stop.remote()), stopped):
            for row in done.iter_rows():
                told = json.loads(str(row["told"]))
                if "refused" in told:
                    raise _error(told["kind"], told["refused"])
                job = known.pop(told["name"], None)
                if job is not None and not told["skipped"]:
                    deliver(_result(job, told))
        if not stopped():
            for job in known.values():
                deliver(Failure(job, GlazeError("the cluster lost this picture; run again with --resume")))


class _Course:
    """What all actors of a run ask before a picture: whether to begin it."""

    def __init__(self, tries: int) -> None:
        self._tries, self._begun, self._stopped = tries, Counter[str](), False

    def begin(self, name: str) -> str:
        """`go`, `stop`, or `lost` for a picture that was begun too often."""
        if self._stopped:
            return "stop"
        self._begun[name] += 1
        return "go" if self._begun[name] <= self._tries else "lost"

    def end(self, name: str) -> None:
        """A picture was done, or failed by itself."""
        del self._begun[name]

    def stop(self) -> None:
        """No further picture shall be begun."""
        self._stopped = True


class _Worker:
    """An actor: engines that stay, and pictures that pass through their stages, one in each at a time."""

    def __init__(self, settings: Settings, run_id: str, threads: int | None, course: Any, release: str) -> None:
        self._course = course
        self._room = Room(MEGAPIXELS * 1_000_000)
        self._prepare, self._optimise, self._finish = threading.Lock(), threading.Lock(), threading.Lock()
        self._refused: Told | None = None
        try:
            here = version("glaze-trt")
            if here != release:
                raise UsageError(f"glaze-trt {here} is installed, and {release} where the run was begun")
            options = jobs.make_options(settings, threads=threads)
            self._stages = Stages(settings, options, lambda line: None, overlapped=True, identify=True)
            self._stages.run = run_id
        except Exception as error:  # told with the first picture: what is raised here, Ray makes pages of
            line = f"{platform.node()}, a machine of the cluster: {one_line(error)}"
            self._refused = {"kind": type(error).__name__, "refused": line}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        import ray

        (text,) = batch["job"]
        job = _job(json.loads(str(text)))
        if self._refused is not None:
            return {"told": [json.dumps(self._refused)]}
        told: dict[str, Any] = {"name": job.name, "skipped": False}
        self._room.enter(job, self._stages.pixels(job))
        try:
            answer = ray.get(self._course.begin.remote(job.name))
            if answer == "go":
                told |= self._done(job)
                ray.get(self._course.end.remote(job.name))
            elif answer == "lost":
                told |= {"kind": "Lost", "error": f"{job.input}: its process died {TRIES} times, out of memory perhaps"}
            else:
                told["skipped"] = True
        finally:
            self._room.leave(job)
        return {"told": [json.dumps(told)]}

    def _done(self, job: Job) -> Told:
        finished: Finished | None = None
        try:
            shots = self._stages.prepare(job)
            while True:
                with self._prepare:
                    shot = next(shots, None)
                if shot is None:
                    break
                with self._optimise:
                    moved = self._stages.optimise(shot)
                with self._finish:
                    finished = self._stages.finish(moved)
        except Exception as error:  # whatever it is, it must not lose the other pictures
            with self._finish:
                self._stages.drop(job)
            return {"kind": type(error).__name__, "error": one_line(error)}
        assert finished is not None
        assert finished.identity is not None
        files = [asdict(file) | {"path": str(file.path)} for file in finished.files]
        return {"made": finished.made, "files": files, "identity": asdict(finished.identity)}


def _shape(ray: Any, pictures: int) -> tuple[int, int, int]:
    """Actors, and of each the cores and GPUs.

    Raises:
        UsageError: the cluster has no machine.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    if gpus:
        return min(gpus, pictures), 1, 1
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    if not any(cores):
        raise UsageError("the cluster has no machine with a free processor")
    each = min(CORES, max(cores))
    return min(sum(count // each for count in cores), pictures), each, 0


def _plain(job: Job) -> dict[str, Any]:
    """For another process; with whole paths, as its working folder is another."""
    sheet = None if job.sheet is None else str(job.sheet.absolute())
    paths = {"input": str(job.input.absolute()), "output": str(job.output.absolute()), "sheet": sheet}
    return asdict(job) | paths


def _job(told: Told) -> Job:
    sheet = told["sheet"]
    return Job(**{**told, "input": Path(told["input"]), "output": Path(told["output"]), "sheet": sheet and Path(sheet)})


def _result(job: Job, told: Told) -> Finished | Failure:
    if "error" in told:
        line = told["error"].replace(str(job.input.absolute()), str(job.input))  # as the picture was named
        return Failure(job, _error(told["kind"], line))
    made = told["made"] | {"input": str(job.input), "output": str(job.output)}
    if job.sheet is not None:
        made["sheet"] = str(job.sheet)
    places = [job.output, *([job.sheet] if job.sheet is not None else [])]
    files = [replace(Part(**file), path=place) for file, place in zip(told["files"], places, strict=True)]
    return Finished(job, made, tuple(files), Identity(**told["identity"]), None)


def _error(kind: str, line: str) -> Exception:
    """An error of another process, under its own name."""
    known = getattr(errors, kind, None) or getattr(engine_errors, kind, None) or type(kind, (GlazeError,), {})
    found: Exception = known(line)
    return found
