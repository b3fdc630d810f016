"""A step's work on the device as one CUDA graph, for dictionaries whose steps are short.

Launching the two hundred kernels of a step one by one takes a CPU about 5 ms, which is longer than
a GPU needs for 16,384 features of width 512; replaying them as a graph takes a fraction of that.
The kernels and their order are the same, and so are the results, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache

import torch
from torch import Tensor

from pipeline.errors import DictionaryError

STEADY = 20  # alike steps in a row before a recording: dead features may change every 16
LARGEST = 64_000_000  # parameters; beyond, the device is busy for longer than launching takes
Work = Callable[[list[Tensor]], Tensor]
Recording = tuple[Callable[[], None], Tensor]  # what does the work again, and where its result is


class Graphed:
    """Does `work` on tensors of a CUDA device; once several calls were alike, as a recording.

    The work must not wait for the device, must change what it keeps in place, and may depend on
    nothing else than its inputs and what `alike` stands for.
    """

    def __init__(self, work: Work, record: Callable[[Work, list[Tensor]], Recording]) -> None:
        self._work, self._record = work, record
        self._alike: Hashable = None
        self._calls = 0
        self._inputs: list[Tensor] = []
        self.recording: Recording | None = None

    def __call__(self, x: list[Tensor], alike: Hashable) -> Tensor:
        """The work's result on `x`; `alike` is equal for calls that differ in inputs alone."""
        alike = (alike, *(x_BD.shape for x_BD in x))
        if alike != self._alike:
            self._alike, self._calls, self.recording = alike, 0, None
            self._inputs = []
        self._calls += 1
        if self._calls <= STEADY:
            return self._work(x)
        if self.recording is None:
            self._inputs = [x_BD.clone() for x_BD in x]
            self.recording = self._record(self._work, self._inputs)
        for kept, new in zip(self._inputs, x, strict=True):
            kept.copy_(new)
        replay, result = self.recording
        replay()
        return result.clone()


def record_graph(work: Work, inputs: list[Tensor]) -> Recording:
    """Records the work on just these tensors; nothing of it is done by that.

    Memory of recordings that are no more goes back first: while recording, the allocator cannot
    take it. Raises DictionaryError.
    """
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    graph, stream = torch.cuda.CUDAGraph(), _recording_stream(inputs[0].device)
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            # Of this thread alone: those of the loader copy and wait meanwhile.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                result = work(inputs)
            finally:
                graph.capture_end()
    except RuntimeError as error:
        raise DictionaryError(
            f"train.cuda_graphs: a step could not be recorded ({str(error).splitlines()[0]}); "
            "leave it false and run again, which goes on from the last checkpoint"
        ) from error
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay, result


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings, of high priority: torch has only 32 streams of the usual priority,
    which it hands out again and again, and a recording is spoilt by another user of its stream."""
    return torch.cuda.Stream(device, priority=-1)
