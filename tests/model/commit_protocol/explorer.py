"""Every state that can be reached, breadth first: the first violation found has the shortest trace.

What a process may do depends on the store and its own memory only, and few pairs of these exist, although the states
that they make up together are many. So the steps of a pair are worked out once, and a state is a tuple of numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from commit_protocol import store as stores
from commit_protocol import writer
from commit_protocol.invariants import check_store, check_view
from commit_protocol.memory import Phase, Scene, Writer, renumbered, renumbered_store
from commit_protocol.model import Model, Violation
from commit_protocol.protections import Protection
from commit_protocol.store import Store, first_store, table_at

State = tuple[int, ...]
"""The number of the store, then that of each writer's memory."""
Move = tuple[str, bool, int, int]
"""What happens, whether it is a fault, the store after it, the memory after it."""


class CounterExample(Exception):
    """An invariant was violated, or the work cannot be finished any more; `trace` is how it came to that."""

    def __init__(self, violation: Violation, trace: list[str], states: int) -> None:
        lines = [f"{number:3}. {label}" for number, label in enumerate(trace, 1)]
        super().__init__("\n".join([f"{violation} (after {states:,} states)", *lines]))
        self.invariant = violation.invariant
        self.trace = trace


@dataclass(frozen=True)
class Explored:
    """How much there was to look at."""

    states: int
    transitions: int


def explore(model: Model) -> Explored:
    """Look at every state. Raises `CounterExample`.

    Of two states that differ only in which of two writers is which, one is looked at.
    """
    try:
        return _Exploration(model, twins=model.writers == 2).run()
    except CounterExample:
        return _Exploration(model, twins=False).run()  # raises again, with a trace in which nobody changes names


class _Exploration:
    def __init__(self, model: Model, *, twins: bool) -> None:
        self._model = model
        self._twins = twins
        self._overwrites = Protection.PUT_IF_ABSENT not in model.on
        self._stores: dict[Store, int] = {}
        self._memories: dict[Writer, int] = {}
        self._store_list: list[Store] = []
        self._memory_list: list[Writer] = []
        self._moves: dict[tuple[int, int, int], list[Move]] = {}
        self._mirrored_stores: dict[int, int] = {}
        self._mirrored_memories: dict[int, int] = {}
        self._checked: set[tuple[int, int]] = set()
        self._last_label = "…"
        down = self._memory(Writer(positions=(None,) * model.partitions))
        first = (self._store(first_store(model.stream)), *[down] * model.writers)
        self._numbers: dict[State, int] = {first: 0}
        self._states = [first]
        self._came_from = array("q", [0])
        self._labels = [""]

    def run(self) -> Explored:
        starts, ends = array("q"), array("q")
        transitions = here = 0
        while here < len(self._states):
            for label, is_fault, state in self._successors(here):
                transitions += 1
                if self._twins:
                    state = self._one_of_two(state)
                number = self._numbers.get(state)
                if number is None:
                    number = self._numbers[state] = len(self._states)
                    self._states.append(state)
                    self._came_from.append(here)
                    self._labels.append(label)
                if not is_fault:
                    starts.append(here)
                    ends.append(number)
            here += 1
        self._check_progress(np.frombuffer(starts, np.int64), np.frombuffer(ends, np.int64))
        return Explored(len(self._states), transitions)

    def _successors(self, here: int) -> Iterator[tuple[str, bool, State]]:
        state = self._states[here]
        self._last_label = "…"
        try:
            for number in range(self._model.writers):
                for label, is_fault, store, memory in self._moves_of(state[0], state[number + 1], number):
                    after = (store, *state[1 : number + 1], memory, *state[number + 2 :])
                    if self._overwrites:
                        self._check_views(label, after)
                    yield label, is_fault, after
            for label, store in self._moves_of_store(state):
                yield label, True, (store, *state[1:])
        except Violation as violation:
            raise CounterExample(violation, [*self._trace(here), self._last_label], len(self._states)) from None

    def _moves_of(self, store: int, memory: int, number: int) -> list[Move]:
        known = self._moves.get((store, memory, number))
        if known is None:
            known = []
            scene = Scene(self._store_list[store], self._memory_list[memory], number)
            for label, after in writer.steps(self._model, scene):
                self._last_label = f"{'ABC'[number]} {label}"
                there = self._store(after.store)
                check_view(self._model, after.store, after.me)
                known.append((self._last_label, "!" in label, there, self._memory(after.me)))
                self._last_label = "…"
            self._moves[store, memory, number] = known
        return known

    def _moves_of_store(self, state: State) -> list[tuple[str, int]]:
        store = self._store_list[state[0]]
        moves = [(label, self._store(after)) for label, after in stores.steps(self._model, store)]
        if self._model.forgets:
            cleaned = _cleaned_up(store, [self._memory_list[each] for each in state[1:]])
            if cleaned is not None:
                moves.append(("! the log is cleaned up", self._store(cleaned)))
        return moves

    def _store(self, store: Store) -> int:
        number = self._stores.get(store)
        if number is None:
            check_store(self._model, store)
            number = self._stores[store] = len(self._store_list)
            self._store_list.append(store)
        return number

    def _memory(self, memory: Writer) -> int:
        number = self._memories.get(memory)
        if number is None:
            number = self._memories[memory] = len(self._memory_list)
            self._memory_list.append(memory)
        return number

    def _one_of_two(self, state: State) -> State:
        """The state, or the one in which the two writers have changed places."""
        store, first, second = state
        mirrored = self._mirrored_stores.get(store)
        if mirrored is None:
            mirrored = self._mirrored_stores[store] = self._store(renumbered_store(self._store_list[store]))
        for memory in (first, second):
            if memory not in self._mirrored_memories:
                self._mirrored_memories[memory] = self._memory(renumbered(self._memory_list[memory]))
        return min(state, (mirrored, self._mirrored_memories[second], self._mirrored_memories[first]))

    def _check_views(self, label: str, state: State) -> None:
        """Only where entries are overwritten can a step make untrue what another process has seen."""
        for memory in state[1:]:
            pair = (state[0], memory)
            if pair not in self._checked:
                self._last_label = label
                check_view(self._model, self._store_list[state[0]], self._memory_list[memory])
                self._checked.add(pair)

    def _check_progress(self, starts: np.ndarray, ends: np.ndarray) -> None:
        """Without a further fault, and without help of a rebalance, the work can be finished from every state."""
        reaches = np.array([self._is_finished(state) for state in self._states])
        reached = -1
        while reached != (reached := int(reaches.sum())):
            reaches[starts[reaches[ends]]] = True
        if not reaches.all():
            violation = Violation(
                "progress", "from here no steps without a fault lead to a table that holds everything"
            )
            raise CounterExample(violation, self._trace(int(np.argmin(reaches))), len(self._states))

    def _is_finished(self, state: State) -> bool:
        """Every event is in the table, and nobody has anything in hand."""
        idle = all(self._memory_list[each].phase <= Phase.POLLING for each in state[1:])
        table = table_at(self._store_list[state[0]].log, self._model.partitions)
        return idle and table.offsets == self._model.stream.ends

    def _trace(self, number: int) -> list[str]:
        labels = []
        while number:
            labels.append(self._labels[number])
            number = self._came_from[number]
        return labels[::-1]


def _cleaned_up(store: Store, writers: list[Writer]) -> Store | None:
    """Log clean-up deletes what the newest checkpoint makes superfluous, days after (logRetentionDuration).

    By then a process has slept longer than MAX_SNAPSHOT_AGE_S, or has looked since. What nobody can guard against,
    and is left out, is one that sleeps for days between its look and its put.
    """
    newest = len(store.log) - 1
    behind = [each for each in writers if each.snapshot is not None and each.snapshot.version < newest]
    if newest <= store.kept_from or any(each.phase is Phase.PUTTING or not each.old for each in behind):
        return None
    return store._replace(kept_from=newest)
