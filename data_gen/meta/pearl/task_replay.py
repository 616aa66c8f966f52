"""Replay memories of many tasks side by side, for off-policy meta-learning; their number does not grow with the tasks.

Axes: P places, each for the memory of one task; M transitions that are added; T tasks and B rows that are sampled.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_COUNTERS = ("task", "added", "context_first", "context_count", "since")


class TaskReplay:
    """The most recent transitions of several tasks. A part of a task's transitions is its recent context.

    If there are more training tasks than places, a new task takes the place of the task that arrived first. All memory
    is allocated once, with the first transitions.

    Args:
        places: P.
        capacity: transitions that are kept per task.
        device: device of the transitions.
    """

    def __init__(self, places: int, capacity: int, device: torch.device) -> None:
        self.places, self.capacity, self.device = places, capacity, device
        self.fields: dict[str, Tensor] = {}
        """Transitions by field, (P, capacity, values)."""
        self.task = np.full(places, -1)
        """(P,) index of the training task in each place, -1 in a free one; places fill from the first on."""
        self.added = np.zeros(places, dtype=np.int64)
        """(P,) transitions added so far for the task in each place; the last `capacity` of them are kept."""
        self.context_first = np.zeros(places, dtype=np.int64)
        """(P,) index of the context's first transition, counted as in `added`."""
        self.context_count = np.zeros(places, dtype=np.int64)
        """(P,) transitions of the context."""
        self.since = np.zeros(places, dtype=np.int64)
        """(P,) number of tasks that arrived before the task in each place."""

    @property
    def residents(self) -> int:
        """Number of tasks that have a place."""
        return int((self.task >= 0).sum())

    def admit(self, tasks: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) distinct training tasks, n <= P -> (n,) their places; a new task gets a place with an empty memory."""
        place_of = {int(task): place for place, task in enumerate(self.task) if task >= 0}
        newcomers = [int(task) for task in tasks if int(task) not in place_of]
        staying = np.isin(self.task, tasks)  # no task makes room for another of the same batch
        order = np.lexsort((self.since, staying, self.task >= 0))  # free places first, then the earliest arrivals
        arrivals = int(self.since.max()) + 1 if self.residents else 0
        for number, (task, place) in enumerate(zip(newcomers, order, strict=False)):
            place_of[task] = int(place)
            self.task[place], self.since[place] = task, arrivals + number
            self.added[place] = self.context_first[place] = self.context_count[place] = 0
        return np.array([place_of[int(task)] for task in tasks])

    def add(self, places: NDArray[np.int64], fields: dict[str, Tensor], context: bool) -> None:
        """Adds transitions of tasks, which overwrite the oldest ones where a memory is full.

        Args:
            places: (n,) distinct places of the tasks.
            fields: (n, M, values) by name; the same names, types and sizes every time, and M at most the capacity.
            context: make these transitions the tasks' recent context.
        """
        if not self.fields:
            self._allocate(fields)
        (count,) = {values.shape[1] for values in fields.values()}
        first = self.added[places]
        rows = (first[:, None] + np.arange(count)) % self.capacity
        index = torch.from_numpy((places[:, None] * self.capacity + rows).reshape(-1)).to(self.device)
        for name, values in fields.items():
            self.fields[name].flatten(0, 1)[index] = values.flatten(0, 1)
        self.added[places] += count
        if context:
            self.context_first[places], self.context_count[places] = first, count

    def extend_context(self, places: NDArray[np.int64], count: int) -> None:
        """Extends the tasks' contexts by the `count` transitions that follow them."""
        self.context_count[places] += count

    def sampler(self) -> "Sampler":
        """A `Sampler` of the current contents."""
        return Sampler(self)

    def state(self) -> dict[str, Tensor]:
        """All counters and the filled part of the memories, for `load`."""
        filled = min(int(self.added.max()), self.capacity)
        state = {f"field.{name}": values[:, :filled].contiguous() for name, values in self.fields.items()}
        return state | {name: torch.from_numpy(getattr(self, name).copy()) for name in _COUNTERS}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores the result of `state`."""
        for name in _COUNTERS:
            getattr(self, name)[:] = state[name].cpu().numpy()
        filled = {name.removeprefix("field."): values for name, values in state.items() if name.startswith("field.")}
        if filled and not self.fields:
            self._allocate(filled)
        for name, values in filled.items():
            self.fields[name][:, : values.shape[1]] = values

    def _allocate(self, fields: dict[str, Tensor]) -> None:
        for name, values in fields.items():
            shape = (self.places, self.capacity, values.shape[2])
            self.fields[name] = torch.zeros(shape, dtype=values.dtype, device=self.device)


class Sampler:
    """Draws from a `TaskReplay` without waiting for the device: the counters are copied there once."""

    def __init__(self, replay: TaskReplay) -> None:
        def to_device(counts: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(counts).to(replay.device)

        self.residents, self._capacity = replay.residents, replay.capacity
        self._rows = {name: values.flatten(0, 1) for name, values in replay.fields.items()}
        # In its ring, a place has `count` transitions from `first` on: all of them, and those of its context.
        counts = np.minimum(replay.added, replay.capacity)
        self._whole = to_device(replay.added - counts), to_device(counts)
        self._context = to_device(replay.context_first.copy()), to_device(replay.context_count.copy())

    def places(self, uniform: Tensor, number: int) -> Tensor:
        """(updates, residents) uniform numbers -> (updates, number) places of tasks, distinct within an update."""
        return uniform.topk(number, dim=1).indices

    def transitions(self, places: Tensor, uniform: Tensor) -> dict[str, Tensor]:
        """(T, B, values) by name, drawn from all transitions at (T,) `places` by (T, B) `uniform` numbers in [0, 1)."""
        return self._draw(*self._whole, places, uniform)

    def context(self, places: Tensor, uniform: Tensor) -> dict[str, Tensor]:
        """As `transitions`, but drawn from the recent context at each place."""
        return self._draw(*self._context, places, uniform)

    def _draw(self, firsts: Tensor, counts: Tensor, places: Tensor, uniform: Tensor) -> dict[str, Tensor]:
        first, count = firsts[places].unsqueeze(1), counts[places].unsqueeze(1)
        rows = (first + (uniform * count).long()) % self._capacity + places.unsqueeze(1) * self._capacity
        drawn = rows.flatten()
        return {
            name: values.index_select(0, drawn).view(*rows.shape, values.shape[1])
            for name, values in self._rows.items()
        }
