"""A machine that dies, or whose disk is full, after some file operations."""

import os

from store import files


class Died(BaseException):
    """Stands for the process's death."""


class Machine:
    """File operations that fail for good after some have succeeded, writes in their middle.

    A death while a file is written, before a rename and before a folder is created leaves every
    state of the disk that a death anywhere else would leave.
    """

    def __init__(self, monkeypatch, error=Died):
        self.left = 10**9
        self.done = 0
        self._error = error
        self._open, self._replace, self._mkdir = open, os.replace, os.mkdir
        monkeypatch.setattr(files, "open", self.open, raising=False)
        monkeypatch.setattr(os, "replace", self.replace)
        monkeypatch.setattr(os, "mkdir", self.mkdir)

    def step(self, on_death=lambda: None):
        if self.done >= self.left:
            on_death()
            raise self._error() if self._error is Died else self._error
        self.done += 1

    def open(self, path, mode):
        machine, file = self, self._open(path, mode)

        class Dying:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                data = bytes(data)
                machine.step(lambda: file.write(data[: len(data) // 2]))
                file.write(data)

            flush, fileno = file.flush, file.fileno

        return Dying()

    def replace(self, source, target):
        self.step()
        self._replace(source, target)

    def mkdir(self, *args, **kwargs):
        self.step()
        self._mkdir(*args, **kwargs)
