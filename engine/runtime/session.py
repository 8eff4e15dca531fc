"""A step graph run many times: state that feeds back, constants bound once, no copies between steps.

Only the wiring is here; buffers and repetition belong to the program (see `protocol.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import FeedError
from engine.runtime.feeds import check_array, check_names
from engine.runtime.protocol import Array, Buffer, Program


class Session:
    """A program with carried state.

    The state lives in two sets of buffers, read from one and written to the other in turn (ping-pong), so a step
    never writes what it reads and nothing is copied. The other outputs have one buffer each.
    """

    def __init__(
        self,
        program: Program,
        carry: Mapping[str, str],
        constants: Mapping[str, Array],
        state: Mapping[str, Array],
    ) -> None:
        """Allocate, bind and write the first state.

        Args:
            program: a compiled step.
            carry: output name -> the input that takes its value in the next step.
            constants: input name -> array, for the inputs that stay.
            state: carried input name -> its first value.

        Raises:
            FeedError: a name, shape or type does not fit, or an input is neither carried nor constant.
        """
        _check_carry(program, carry)
        feeds = {**constants, **state}
        both = [name for name in constants if name in state]
        if both:
            raise FeedError(f"{', '.join(map(repr, both))}: given both as constant and as state")
        check_names(feeds, program.inputs)
        _check_state(carry, state)
        arrays = {name: check_array(name, feeds[name], spec) for name, spec in program.inputs.items()}

        self._program = program
        self._carry = dict(carry)
        self._steps = 0
        fixed = {name: program.allocate(program.inputs[name]) for name in constants}
        plain = {name: program.allocate(spec) for name, spec in program.outputs.items() if name not in carry}
        pair = {name: [program.allocate(program.inputs[name]) for _ in range(2)] for name in state}
        self._inputs: tuple[dict[str, Buffer], ...] = tuple(
            {**fixed, **{name: pair[name][turn] for name in pair}} for turn in (0, 1)
        )
        self._outputs: tuple[dict[str, Buffer], ...] = tuple(
            {**plain, **{out: pair[name][1 - turn] for out, name in carry.items()}} for turn in (0, 1)
        )
        self._bindings = [program.bind(self._inputs[turn], self._outputs[turn]) for turn in (0, 1)]
        for name, array in arrays.items():
            self._inputs[0][name].write(array)

    @property
    def steps(self) -> int:
        """Steps run so far."""
        return self._steps

    def advance(self, n: int = 1) -> None:
        """Run n steps, with no host work between them. Raises `BackendError`."""
        if n < 0:
            raise FeedError(f"cannot advance by {n} steps")
        self._program.run(self._bindings, self._steps, n)
        self._steps += n

    def read(self, name: str) -> Array:
        """Copy one tensor out: an output of the last step, or the present value of an input.

        Raises:
            FeedError: no such name, or an output before the first step.
        """
        inputs = self._inputs[self._steps % 2]
        if name in inputs:
            return inputs[name].read()
        if name not in self._program.outputs:
            known = ", ".join(map(repr, [*self._program.outputs, *self._program.inputs]))
            raise FeedError(f"no tensor {name!r} in this session; there are {known}")
        if self._steps == 0:
            raise FeedError(f"output {name!r} has no value before the first step; call advance first")
        return self._outputs[(self._steps - 1) % 2][name].read()

    def write(self, name: str, array: Array) -> None:
        """Replace the present value of an input, carried or constant, between steps. Raises `FeedError`."""
        if name not in self._program.inputs:
            raise FeedError(f"no input {name!r}; the program's inputs are {', '.join(self._program.inputs)}")
        checked = check_array(name, array, self._program.inputs[name])
        self._inputs[self._steps % 2][name].write(checked)


def _check_carry(program: Program, carry: Mapping[str, str]) -> None:
    for output, name in carry.items():
        if output not in program.outputs:
            raise FeedError(f"carry: no output {output!r}; the outputs are {', '.join(map(repr, program.outputs))}")
        if name not in program.inputs:
            raise FeedError(f"carry: no input {name!r}; the inputs are {', '.join(map(repr, program.inputs))}")
        if program.outputs[output] != program.inputs[name]:
            raise FeedError(
                f"carry: output {output!r} is {program.outputs[output]} but input {name!r} takes {program.inputs[name]}"
            )
    targets = list(carry.values())
    twice = sorted({name for name in targets if targets.count(name) > 1})
    if twice:
        raise FeedError(f"carry: more than one output feeds {', '.join(map(repr, twice))}")


def _check_state(carry: Mapping[str, str], state: Mapping[str, Array]) -> None:
    missing = [name for name in carry.values() if name not in state]
    if missing:
        raise FeedError(f"no first value in state for carried {', '.join(map(repr, missing))}")
    idle = [name for name in state if name not in carry.values()]
    if idle:
        raise FeedError(f"state for {', '.join(map(repr, idle))}, which no output feeds; give it in constants")
