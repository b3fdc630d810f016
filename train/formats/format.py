"""What a foreign format is known by: its keys, their dimensions, and sometimes its file's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from train.formats.draft import Draft
from train.formats.files import PARTITION, Found


@dataclass(frozen=True)
class Format:
    """One class of one library.

    shapes: a letter per dimension of every key that must be there; optional: keys that may be;
    file: the only name that its weight file has, where that tells it from others.
    """

    library: str
    kind: str
    shapes: dict[str, str]
    read: Callable[[Found], Draft]
    optional: frozenset[str] = frozenset()
    file: str | None = None
    partitioned: bool = False

    def matches(self, found: Found) -> bool:
        """Whether the file holds these keys, with as many dimensions, and no others."""
        keys = set(found.tensors)
        return (
            (self.file is None or found.file.name == self.file)
            and self.partitioned == (PARTITION in found.other)
            and set(self.shapes) <= keys <= set(self.shapes) | self.optional
            and all(found.tensors[key].dim() == len(to) for key, to in self.shapes.items())
        )
