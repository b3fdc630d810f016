"""Dictionaries on the Hugging Face Hub: to a repository with a model card, and from one.

A download is pinned: the revision asked for becomes a commit, of which alone files are taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pipeline.errors import DictionaryError
from train.dictionary.artifact import CONFIG, WEIGHTS, read_description
from train.model_card import GENERATED, model_card

CARD = "README.md"
LIBRARY = "crossdiff"
READ = (".json", ".safetensors", ".pt")  # what a dictionary of any library consists of
# The base of all errors of the HTTP client, which is not the same one in every huggingface_hub.
NETWORK = cast(type[Exception], HfHubHTTPError.__bases__[0])


@dataclass(frozen=True)
class Pushed:
    """The commit of an upload, and its page."""

    commit: str
    url: str


@dataclass(frozen=True)
class Downloaded:
    """Where files lie, and the commit that they are of."""

    folder: Path
    commit: str


def is_repo_id(text: str) -> bool:
    """Whether this may be a repository on the Hub: owner/name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is not None


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    message: str | None = None,
    endpoint: str | None = None,
) -> Pushed:
    """Uploads a dictionary's weights, config.json and card as one commit.

    Creates what there is not: the repository, and a branch called `revision`. The folder's own
    README.md goes up if it has one; else a card is written from the run's configuration and
    figures, unless somebody has put another one in its place on the Hub. Raises DictionaryError.
    """
    description = read_description(folder)
    if not (folder / WEIGHTS).is_file():
        raise DictionaryError(f"{folder / WEIGHTS}: no such file; train a dictionary first")
    figures = read_figures(folder)
    api = HfApi(endpoint=endpoint, token=token, library_name=LIBRARY)
    with _one_line(repo_id, revision, "push to", api.endpoint):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise DictionaryError(
                f"{repo_id}: asked for a private repository, but this one is there and public; "
                "make it private in its settings on the Hub, or name another"
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        files: dict[str, Path | bytes] = {name: folder / name for name in (CONFIG, WEIGHTS)}
        if (folder / CARD).is_file():
            files[CARD] = folder / CARD
        elif _may_write_card(api, repo_id, revision):
            files[CARD] = model_card(repo_id, description, figures).encode()
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=message or f"A dictionary of {LIBRARY}",
            revision=revision,
        )
    return Pushed(commit.oid, f"{api.endpoint}/{repo_id}/tree/{commit.oid}")


def _may_write_card(api: HfApi, repo_id: str, revision: str | None) -> bool:
    """No card there yet, or one that was written by this and not changed to be kept."""
    try:
        file = hf_hub_download(
            repo_id, CARD, revision=revision, endpoint=api.endpoint, token=api.token
        )
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return True
    return GENERATED in Path(file).read_text(encoding="utf-8", errors="replace")


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Downloaded:
    """The files of one folder of a repository (its root by default) in the local Hub cache.

    Takes what lies in the folder itself of .json, .safetensors and .pt files, nothing below it.
    Offline: what the cache has of that revision. Raises DictionaryError.
    """
    below = PurePosixPath(subfolder or ".")
    api = HfApi(endpoint=endpoint, token=token, library_name=LIBRARY)
    with _one_line(repo_id, revision, "read", api.endpoint):
        try:
            found = api.model_info(repo_id, revision=revision)
        except (NETWORK, OfflineModeIsEnabled) as error:
            if isinstance(error, HfHubHTTPError):
                raise
            cached = Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
            return Downloaded(cached / below, cached.name)
        names = [entry.rfilename for entry in found.siblings or []]
        wanted = [name for name in _readable(names) if PurePosixPath(name).parent == below]
        if not any(not name.endswith(".json") for name in wanted):
            raise DictionaryError(_elsewhere(repo_id, below, names))
        # The first one is asked for by its revision, which the cache then knows when offline.
        at = revision
        for name in wanted:
            file = Path(
                hf_hub_download(repo_id, name, revision=at, endpoint=api.endpoint, token=token)
            )
            at = file.parents[len(below.parts)].name
    return Downloaded(file.parent, str(at))


def _readable(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(READ)]


def _elsewhere(repo_id: str, below: PurePosixPath, names: list[str]) -> str:
    """That there is no dictionary in a folder of a repository, and where else there may be."""
    folders = sorted(
        {str(PurePosixPath(n).parent) for n in _readable(names) if not n.endswith(".json")}
    )
    where = "its root" if below == PurePosixPath() else str(below)
    some = ", ".join(folders[:5]) + (", ..." if len(folders) > 5 else "")
    remedy = f"name a subfolder: {some}" if folders else "it holds no weights"
    return f"{repo_id}: no dictionary in {where} of this Hub repository; {remedy}"


def read_figures(folder: Path) -> dict[str, Any]:
    """FVE per hookpoint, L0, rows and dead fraction of a run's folder; {} if nobody knows them.

    From the `figures` of config.json, else from the last lines of metrics.jsonl that have them.
    """
    with suppress(OSError, ValueError, AttributeError):
        figures = json.loads((folder / CONFIG).read_bytes()).get("figures")
        if isinstance(figures, dict) and figures:
            return figures
    found: dict[str, Any] = {}
    with suppress(OSError, ValueError, AttributeError):
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if "dead_fraction" in entry:
                found["dead_fraction"] = entry["dead_fraction"]
            if isinstance(entry.get("validation"), dict):
                found |= {key: entry["validation"].get(key) for key in ("fve", "l0", "rows")}
    return found


@contextmanager
def _one_line(repo_id: str, revision: str | None, doing: str, endpoint: str) -> Iterator[None]:
    """Turns what huggingface_hub and the network raise into one line with the remedy."""
    at = f" at {revision}" if revision else ""
    try:
        yield
    except RevisionNotFoundError:
        why = f"no revision {revision!r} in this Hub repository; name a branch, tag or commit"
    except GatedRepoError:
        why = "gated; ask for access on its page on the Hub and log in with `hf auth login`"
    except RepositoryNotFoundError:
        why = "no such Hub repository, or a private one; check the name, or `hf auth login`"
    except EntryNotFoundError as error:
        if not isinstance(error, LocalEntryNotFoundError):
            why = f"a file of it is not there ({_first_line(error)}); try again"
        else:
            why = f"not in the local cache, and {endpoint} cannot be reached; go online first"
    except HFValidationError as error:
        why = f"no name of a Hub repository ({_first_line(error)}); give owner/name"
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            why = "no permission; log in with `hf auth login` and a token that may write there"
        else:
            why = f"the Hub answered {status} ({_first_line(error)}); try again later"
    except RuntimeError as error:  # how it wraps what went wrong with a large file
        if not isinstance(error.__cause__, OSError | NETWORK):
            raise
        why = f"uploading '{WEIGHTS}' failed ({_first_line(error.__cause__)}); try again"
    except ValueError as error:
        if "metadata in README.md" not in str(error):
            raise
        why = f"its {CARD} has no good metadata ({' '.join(str(error).split())}); mend its head"
    except (OfflineModeIsEnabled, NETWORK, ConnectionError, TimeoutError) as error:
        why = f"{endpoint} cannot be reached ({_first_line(error)}); go online and try again"
    else:
        return
    raise DictionaryError(f"{repo_id}{at}: cannot {doing} it: {why}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
