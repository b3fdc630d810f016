"""Errors that a user can cause: one line that names the thing, the value given and the remedy.

The command line prints them without a traceback (`--debug` shows it). Everything else that is
raised is a mistake of ours and keeps its traceback.
"""


class CrossdiffError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigError(CrossdiffError):
    """A configuration file or an override is wrong."""


class CorpusError(CrossdiffError):
    """The text to read cannot be found or understood."""


class ModelError(CrossdiffError):
    """A language model, tokenizer or hookpoint cannot be used."""


class StoreError(CrossdiffError):
    """An activation store is missing, broken or of another shape than asked for."""


class DictionaryError(CrossdiffError):
    """A trained dictionary or a checkpoint is missing, broken or does not fit the store."""
