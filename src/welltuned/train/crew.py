"""The threads that train a pack's strands side by side, and wait for each other after every micro-step."""

import contextvars
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

from welltuned.costs import strands as rule
from welltuned.packing import blocks
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState
from welltuned.train.runner import Runner
from welltuned.train.strand import Manner, Strand


class Crew:
    """Deals a pack's trials to strands, and makes their micro-steps; one strand alone runs in the caller's thread."""

    def __init__(self, model: PackedModel, threads: int, table: RowTable, manner: Manner) -> None:
        self._threads, self._table, self._manner = threads, table, manner
        self._models = [model]
        self._pool = ThreadPoolExecutor(rule.MOST, "strand", torch.set_num_threads, (max(1, threads // rule.MOST),))
        self.strands: list[Strand] = []
        self._first = 0  # the number of strands of the whole pack, with which it begins, and goes on from a checkpoint

    def deal(self, state: PackState, runners: Sequence[Runner]) -> None:
        """Deal these trials anew. `runners` are in the order of the state's positions."""
        number = self._number([group.num_trials for group in state.groups])
        self._first = self._first or number
        while len(self._models) < number:
            self._models.append(self._models[0].twin())
        if self._manner.compiled and runners and number != len(self.strands):  # code is for a number of threads
            for model in self._models:
                model.blocks.begin()
        shares = state.deal(number)
        self.strands = [
            Strand(model, share, [runners[place] for place in places], self._table, self._manner)
            for model, (share, places) in zip(self._models, shares, strict=False)
        ]

    def serves(self, sizes: Sequence[int]) -> bool:
        """Say whether no other compilation is needed where so many trials of each group go on.

        Code is for any number of trials but one; for one, where a strand has had one of the group before.
        """
        if not self._manner.compiled:
            return True
        had = [group.num_trials for group in self.strands[0].state.groups]
        least = [1 if number == 1 else 2 * len(self.strands) for number in had]
        enough = all(size >= few for size, few in zip(sizes, least, strict=True))
        return enough and self._number(sizes) == len(self.strands)

    def _number(self, sizes: Sequence[int]) -> int:
        device = self._models[0].base.device.type
        return rule.number(sizes, self._threads, device, self._manner.compiled, self._first)

    def advance(self, micro_step: int) -> int:
        """Make a micro-step of every strand; return the tokens read."""
        if len(self.strands) == 1:
            return self.strands[0].advance(micro_step)
        with blocks.no_compiling():
            started = deque(self._start(strand, micro_step) for strand in self.strands)
            wait(started)
        try:
            return sum(self._tokens(started.popleft(), strand, micro_step) for strand in self.strands)
        finally:
            started.clear()  # an error would be held by its own traceback, and with it all that the pack holds

    def _start(self, strand: Strand, micro_step: int) -> "Future[int]":
        """Let a thread make a strand's micro-step, with the caller's settings of the compiler: they are kept there."""
        return self._pool.submit(contextvars.copy_context().run, strand.advance, micro_step)

    def _tokens(self, started: "Future[int]", strand: Strand, micro_step: int) -> int:
        """Return the tokens that a strand has read; make it compile by itself where it has to."""
        try:
            return started.result()
        except RuntimeError as error:
            if not blocks.asks_to_compile(error):
                raise
        finally:
            del started
        return self._start(strand, micro_step).result()
