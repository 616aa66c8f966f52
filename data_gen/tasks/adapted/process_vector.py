"""A vector environment of ordinary scalar environments, stepped by a few processes.

For environments that are Python objects and not arrays: any of Gymnasium's or of a third-party package. Each process
steps a contiguous block of slots one after another, and a step costs one byte to and one from every process:
observations, actions, rewards and flags lie in memory that all of them share. A process a slot, as in Gymnasium's
AsyncVectorEnv, pays for two process switches and a pickle an environment step. Measured on two busy cores with 64
slots, best of ten interleaved: CartPole-v1 150-240k steps a second, 9 to 14 times AsyncVectorEnv's; MiniGrid-Empty-8x8
10k, twice AsyncVectorEnv's.

The processes come from multiprocessing's fork server. Forking this process is unsafe once it has threads, as torch
gives it, and spawned ones import everything anew; the server imports this module once. Two processes: 0.06 s after the
server's own start of 0.3 s, 0.7 s if spawned. In a process that was itself started by another (a worker that makes
shards) all slots are stepped in place: the cores have work. Either way gives the same trajectories.
"""

import json
import multiprocessing
import os
import signal
import traceback
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from data_gen.spaces import column_name, leaves, map_leaves
from data_gen.streams import Seeds, slot_seeds
from data_gen.tasks.adapted.block import (
    ASK_EXPERT,
    RESET,
    RESET_SEEDED,
    STEP,
    Block,
    Maker,
    Space,
    arrays_in,
    memory_size,
    one_line,
)
from icrl.support.errors import UserError

_FEWEST_SLOTS = 4  # a process; below this, waking it costs more than it takes off the others
_SEED_BITS = np.uint64(2**31 - 1)  # what every environment takes as a seed; NumPy's legacy generators take no more
SLOTS_AT_ONCE = 64
"""Environments that are worth having at a time where any number would do; some take tens of megabytes each."""

_PATIENCE = 5.0  # seconds that a process gets to close its environments before it is killed


class ProcessVectorEnv(VectorEnv[Any, Any, Any]):
    """Scalar environments as one vector environment, with the episodes of `TaskVectorEnv`.

    SAME_STEP autoreset, an episode's true last observation in `infos["final_obs"]`, shape (num_envs, ...), and a seed
    a slot: slot i lives what the environment lives alone with `reset(seed=seeds[i])`, of which the low 31 bits count,
    and later episodes go on from its own generator. An environment that draws from a global generator is beyond this.

    Args:
        makers: one a slot.
        observation_space: of every slot; another is an error.
        action_space: likewise.
        episode_length: steps after which an episode is truncated, if the environment has not ended it before.
        processes: how many step the slots, 0 for this one alone; by default as many as there are cores and work for.

    Raises UserError, here or at a step, if an environment raises anything or a process dies.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        makers: Sequence[Maker],
        observation_space: Space,
        action_space: Space,
        episode_length: int,
        processes: int | None = None,
    ) -> None:
        self.num_envs = len(makers)
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self.episode_length = episode_length
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._first_makers: list[Maker] = []  # of each process, to say which one it was
        self._blocks: list[Block] = []
        self._end = weakref.finalize(self, _end, self._connections, self._processes, self._blocks)
        spaces = (observation_space, action_space)
        size = memory_size(self.num_envs, *spaces)
        count = _default_processes(self.num_envs) if processes is None else processes
        if count == 0:
            self._arrays = arrays_in(bytearray(size), self.num_envs, *spaces)
            self._blocks.append(Block(makers, self._arrays, *spaces, episode_length))
        else:
            self._start(makers, size, count)

    def _start(self, makers: Sequence[Maker], size: int, count: int) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])
        memory = context.RawArray("B", size)  # anonymous: nothing is left behind, however the processes end
        spaces = (self.single_observation_space, self.single_action_space)
        self._arrays = arrays_in(memory, self.num_envs, *spaces)
        for part in np.array_split(np.arange(self.num_envs), count):
            first, last = int(part[0]), int(part[-1]) + 1
            ours, theirs = context.Pipe()
            self._connections.append(ours)
            self._first_makers.append(makers[first])
            arguments = (theirs, memory, self.num_envs, (first, last), makers[first:last], *spaces)
            process = context.Process(target=_work, args=(*arguments, self.episode_length), daemon=True)
            try:
                process.start()
            except Exception as error:  # pickle raises anything
                self.close()
                raise UserError(f"{makers[first]}: cannot be sent to a process: {one_line(error)}") from error
            theirs.close()
            self._processes.append(process)
        self._gather()

    def reset(
        self, *, seed: int | list[int] | Seeds | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in every slot: one seed a slot, or one for all, of which slot i gets `seed + i`."""
        if seed is None:
            self._run(RESET)
        else:
            self._arrays["seed"][:] = slot_seeds(self.num_envs, seed) & _SEED_BITS
            self._run(RESET_SEEDED)
        return self._tree("observation"), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Any, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step in every slot; slots whose episode ends are reset in the same step."""
        self._arrays["action"][:] = actions
        self._run(STEP)
        observations = self._tree("observation")
        rewards, terminated, truncated = (self._arrays[name].copy() for name in ("reward", "terminated", "truncated"))
        ended = terminated | truncated
        if not ended.any():
            return observations, rewards, terminated, truncated, {}
        finals = map_leaves(np.copy, observations)
        for path, values in leaves(finals).items():
            values[ended] = self._arrays[column_name("final", path)][ended]
        return observations, rewards, terminated, truncated, {"final_obs": finals, "_final_obs": ended}

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments and ends the processes."""
        self._end()

    def _tree(self, kind: str) -> Any:
        """Copies of the shared arrays of one kind, in the form of the observation space."""
        copies = iter([self._arrays[column_name(kind, path)].copy() for path in leaves(self.single_observation_space)])
        return map_leaves(lambda space: next(copies), self.single_observation_space)

    def _run(self, command: bytes) -> None:
        """Lets every block do `command`, and waits for it."""
        if self.closed:
            raise ClosedEnvironmentError("this vector environment is closed")
        try:
            for block in self._blocks:
                block.run(command)
        except UserError:
            self.close()
            raise
        for connection in self._connections:
            _sent(connection, command)  # if it is gone, so is its reply
        self._gather()

    def _gather(self) -> None:
        """Waits for all processes. Raises UserError for what went wrong first, after which nothing goes on."""
        try:
            for number, connection in enumerate(self._connections):
                reply = _received(connection)
                if reply is None:
                    raise self._death(number)
                if reply:
                    line, trace = json.loads(reply)
                    failure = UserError(line)
                    failure.add_note(trace)
                    raise failure
        except BaseException:
            self.close()
            raise

    def _death(self, number: int) -> UserError:
        process = self._processes[number]
        process.join(_PATIENCE)
        line = f"{self._first_makers[number]}: a process that steps it and others ended with code {process.exitcode}"
        killed = process.exitcode == -signal.SIGKILL
        return UserError(f"{line}; if it was for memory, have fewer slots" if killed else line)


class ExpertProcessVectorEnv(ProcessVectorEnv):
    """One whose environments have a method `optimal_action()`, which knows what a learner has to find out."""

    def optimal_action(self) -> NDArray[Any]:
        """What each environment's expert would do now, shape (num_envs, ...)."""
        self._run(ASK_EXPERT)
        return self._arrays["expert"].copy()


def _default_processes(num_envs: int) -> int:
    if multiprocessing.parent_process() is not None:  # one of several already
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, num_envs // _FEWEST_SLOTS)
    return count if count > 1 else 0


def _work(
    connection: Connection,
    memory: Any,
    num_envs: int,
    slots: tuple[int, int],
    makers: Sequence[Maker],
    observation_space: Space,
    action_space: Space,
    episode_length: int,
) -> None:
    """A process: does what it is told to its slots, and ends when the other side of the connection is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who then closes the connection
    shared = arrays_in(memory, num_envs, observation_space, action_space)
    mine = {name: array[slice(*slots)] for name, array in shared.items()}
    blocks: list[Block] = []
    try:
        blocks.append(Block(makers, mine, observation_space, action_space, episode_length))
        while _sent(connection, b"") and (command := _received(connection)) is not None:
            blocks[0].run(command)
    except UserError as error:
        _sent(connection, json.dumps((str(error), traceback.format_exc())).encode())
    finally:
        _end([connection], [], blocks)


def _sent(connection: Connection, message: bytes) -> bool:
    """Whether there was still someone to send it to."""
    try:
        connection.send_bytes(message)
    except OSError:
        return False
    return True


def _received(connection: Connection) -> bytes | None:
    """The next message, or None if there is no one left to send any."""
    try:
        return connection.recv_bytes()
    except (EOFError, OSError):
        return None


def _end(connections: list[Connection], processes: list[BaseProcess], blocks: list[Block]) -> None:
    """Closes everything; a process that does not end by itself is killed."""
    for connection in connections:
        connection.close()
    for process in processes:
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
    for block in blocks:
        block.close()
