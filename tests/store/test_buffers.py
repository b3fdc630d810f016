import gc

import numpy as np
import torch

from store.buffers import BufferPool


def test_a_buffer_comes_back_when_nobody_looks_any_more():
    pool = BufferPool((4, 3), np.int16, pin_memory=False)
    first = pool.take()
    place = first.ctypes.data
    del first
    assert pool.take().ctypes.data == place


def test_a_buffer_stays_taken_while_a_view_of_its_tensor_lives():
    pool = BufferPool((4, 3), np.int16, pin_memory=False)
    array = pool.take()
    place = array.ctypes.data
    view = torch.from_numpy(array).view(torch.bfloat16)[1:].T
    del array
    gc.collect()
    assert pool.take().ctypes.data != place
    del view
    places = {pool.take().ctypes.data for _ in range(3)}
    assert place in places


def test_a_buffer_stays_taken_while_numpy_looks_at_its_tensor():
    pool = BufferPool((4, 3), np.float32, pin_memory=False)
    array = pool.take()
    place = array.ctypes.data
    look = torch.from_numpy(array).numpy()[2:]
    del array
    assert pool.take().ctypes.data != place
    assert look.shape == (2, 3)


def test_buffers_taken_together_do_not_overlap():
    pool = BufferPool((4, 3), np.int16, pin_memory=False)
    taken = [pool.take() for _ in range(5)]
    for number, array in enumerate(taken):
        array[:] = number
    assert [int(array.min()) for array in taken] == list(range(5))
