"""A vector environment of ordinary scalar environments, stepped by a few processes.

It serves environments that are Python objects rather than arrays: any of Gymnasium's or of a third-party package. Each
process steps a contiguous block of slots one after another. Observations, actions, rewards and flags lie in memory that
all processes share, so a step costs one byte to and one byte from every process. One process per slot, as in
Gymnasium's AsyncVectorEnv, costs two process switches and a pickle per environment step. Measured on two busy cores
with 64 slots, best of ten interleaved: CartPole-v1 150-240k steps per second, 9 to 14 times AsyncVectorEnv's;
MiniGrid-Empty-8x8 10k, twice AsyncVectorEnv's.

The processes come from multiprocessing's fork server. Forking this process is unsafe once it has threads, and torch
starts threads. Spawned processes import everything from scratch, but the server imports this module once. Two processes
take 0.06 s after the server's own start of 0.3 s, and 0.7 s if spawned. In a process that another one has started (a
worker that makes shards), all slots are stepped in that process, because the cores are busy already. Either way gives
the same trajectories.
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
    TRUST,
    Block,
    Maker,
    Space,
    arrays_in,
    memory_size,
    one_line,
)
from icrl.support.errors import UserError
from icrl.support.processes import can_start, started

_FEWEST_SLOTS = 4  # per process; with fewer, waking a process costs more than it saves
_SEED_BITS = np.uint64(2**31 - 1)  # seeds that every environment takes; NumPy's legacy generators refuse 64 bits
SLOTS_AT_ONCE = 64
"""Environments to hold at a time where any number would do; some take tens of megabytes each."""

_PATIENCE = 5.0  # seconds for a process to close its environments before it is killed


class ProcessVectorEnv(VectorEnv[Any, Any, Any]):
    """Scalar environments as one vector environment, with the same handling of episodes as `TaskVectorEnv`.

    Autoreset is SAME_STEP, `infos["final_obs"]` holds an episode's true last observation, shape (num_envs, ...), and
    each slot has its own seed. Slot i gives the same trajectory as the environment alone after `reset(seed=seeds[i])`,
    of which the low 31 bits count; later episodes continue the environment's own generator. An environment that draws
    from a global generator does not have this property.

    Args:
        makers: one per slot.
        observation_space: the space of every slot; a slot with another space is an error.
        action_space: likewise.
        episode_length: steps after which an episode is truncated, unless the environment has ended it before.
        processes: number of processes that step the slots; 0 steps them in this process. By default, as many as there
            are cores and work for.

    Raises UserError, here or at a step, if an environment raises an error or a process dies.
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
        self.num_envs, self._makers = len(makers), makers
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self.episode_length = episode_length
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._first_makers: list[Maker] = []  # one per process, to name it in errors
        self._blocks: list[Block] = []
        self._end = weakref.finalize(self, _end, self._connections, self._processes, self._blocks)
        spaces = (observation_space, action_space)
        size = memory_size(self.num_envs, *spaces)
        count = _default_processes(self.num_envs) if processes is None else processes
        if count and not _sendable(makers):
            count = 0
        if count == 0:
            self._arrays = arrays_in(bytearray(size), self.num_envs, *spaces)
            self._blocks.append(Block(makers, self._arrays, *spaces, episode_length))
        else:
            self._start(makers, size, count)

    def _start(self, makers: Sequence[Maker], size: int, count: int) -> None:
        """Starts `count` processes, gives each a contiguous block of slots, and waits until all are ready."""
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])
        memory = context.RawArray("B", size)  # anonymous: leaves nothing behind, however the processes end
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
                with started(makers[first:last]):
                    process.start()
            except Exception as error:  # pickling may raise any error
                self.close()
                raise UserError(f"{makers[first]}: cannot be sent to a process: {one_line(error)}") from error
            theirs.close()
            self._processes.append(process)
        self._gather()

    def reset(
        self, *, seed: int | list[int] | Seeds | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in every slot.

        `seed` is one seed per slot, or one integer from which slot i gets `seed + i`.
        """
        if seed is None:
            self._run(RESET)
        else:
            self._arrays["seed"][:] = slot_seeds(self.num_envs, seed) & _SEED_BITS
            self._run(RESET_SEEDED)
        return self._tree("observation"), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Any, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Takes one step in every slot; slots whose episode ends are reset in the same step."""
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
        infos = {"final_obs": finals, "_final_obs": ended, "success": self._arrays["success"].copy()}
        return observations, rewards, terminated, truncated, infos

    def trust_values(self) -> None:
        """From now on, casts observations and flags to the space's types without a check."""
        self._run(TRUST)

    def name_slot(self, slot: int) -> str:
        """The environment of a slot, for errors."""
        return str(self._makers[slot])

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments and ends the processes."""
        self._end()

    def _tree(self, kind: str) -> Any:
        """Copies of the shared arrays of one kind, in the structure of the observation space."""
        copies = iter([self._arrays[column_name(kind, path)].copy() for path in leaves(self.single_observation_space)])
        return map_leaves(lambda space: next(copies), self.single_observation_space)

    def _run(self, command: bytes) -> None:
        """Sends `command` to every block and waits until all blocks have carried it out."""
        if self.closed:
            raise ClosedEnvironmentError("this vector environment is closed")
        try:
            for block in self._blocks:
                block.run(command)
        except UserError:
            self.close()
            raise
        for connection in self._connections:
            _sent(connection, command)  # if the process is gone, `_gather` finds out
        self._gather()

    def _gather(self) -> None:
        """Waits for all processes. On a failure, closes everything and raises UserError for the first one."""
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
        """The error for a process that ended without a reply."""
        process = self._processes[number]
        process.join(_PATIENCE)
        line = f"{self._first_makers[number]}: the process of this and other slots ended with code {process.exitcode}"
        killed = process.exitcode == -signal.SIGKILL
        return UserError(f"{line}; if memory ran out, use fewer slots" if killed else line)


class ExpertProcessVectorEnv(ProcessVectorEnv):
    """A vector environment whose environments have an `optimal_action()`, so that they can be a source's expert."""

    def optimal_action(self) -> NDArray[Any]:
        """The present action of each environment's expert, shape (num_envs, ...)."""
        self._run(ASK_EXPERT)
        return self._arrays["expert"].copy()


def _default_processes(num_envs: int) -> int:
    """Number of processes for `num_envs` slots; 0 where this process alone is as good."""
    if multiprocessing.parent_process() is not None:  # a worker, whose siblings use the other cores
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, num_envs // _FEWEST_SLOTS)
    return count if count > 1 else 0


def _sendable(makers: Sequence[Maker]) -> bool:
    """False if the makers come from a main module that processes cannot import. Raises UserError if pickling fails."""
    try:
        return can_start(makers)
    except Exception as error:  # pickling may raise any error
        raise UserError(f"{makers[0]}: cannot be sent to a process: {one_line(error)}") from error


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
    """Main function of a process: carries out commands until the other side of the connection is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C, the parent closes the connection
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
    """True if the message was sent, False if the other side is gone."""
    try:
        connection.send_bytes(message)
    except OSError:
        return False
    return True


def _received(connection: Connection) -> bytes | None:
    """The next message, or None if the other side is gone."""
    try:
        return connection.recv_bytes()
    except (EOFError, OSError):
        return None


def _end(connections: list[Connection], processes: list[BaseProcess], blocks: list[Block]) -> None:
    """Closes everything and kills the processes that do not end by themselves."""
    for connection in connections:
        connection.close()
    for process in processes:
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
    for block in blocks:
        block.close()
