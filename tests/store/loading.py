"""Loaders over small stores, as the tests of order and of resources make them."""

from itertools import islice

from store.loader import LoaderOptions, ShuffledLoader

BASE = LoaderOptions(batch_rows=24, seed=3, window_chunks=4, validation_fraction=0.2)


def loader(store, **changes):
    return ShuffledLoader(store, LoaderOptions(**{**vars(BASE), **changes}))


def take(store, count, **changes):
    iterator = iter(loader(store, **changes))
    batches = list(islice(iterator, count))
    iterator.close()
    return batches


def rows_of(batches) -> list[list[int]]:
    """The rows of each batch, in the order in which the batch holds them."""
    return [batch.rows.tolist() for batch in batches]
