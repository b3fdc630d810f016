"""What every name can do: a dictionary for users who have plain tensors in raw units."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from train.dictionary.artifact import save_dictionary
from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Activations, Crosscoder
from train.dictionary.fold import Unfolding, fold, unfold
from train.dictionary.partition import Partition
from train.names import dense
from train.names.rows import Rows, flatten, unflatten


class Dictionary(nn.Module):
    """Any dictionary, around its `core`; the names are this with a constructor of their own.

    Rows come as (..., d) for one hookpoint, (..., L, d) for several of one width, or as a dict of
    hookpoint names to (..., d). Codes f are those of the decoder, unscaled: x_hat = W_dec f + b.
    All of it is differentiable in rows and weights; encode_sparse is the fast path for large F.
    Those of a dictionary of residuals (train.dictionary.residual) are reconstructions of these.
    `notes` is what config.json says besides the architecture (recipe, settings, figures).
    """

    def __init__(self, core: Crosscoder, notes: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.core = core
        self.notes = dict(notes or {})

    @property
    def activation_dim(self) -> int | tuple[int, ...]:
        """Width of the inputs; one per hookpoint where they differ."""
        widths = tuple(self.core.hookpoints[n].width for n in self.core.inputs)
        return widths[0] if len(set(widths)) == 1 else widths

    @property
    def dict_size(self) -> int:
        """Features (F)."""
        return self.core.partition.features

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the reading hookpoints, in the order of L: what rows by name are named."""
        return tuple(self.core.hookpoints[n].name for n in self.core.inputs)

    @property
    def num_layers(self) -> int:
        """Reading hookpoints (L)."""
        return len(self.core.inputs)

    @property
    def partition(self) -> Partition:
        """Which models see which features."""
        return self.core.partition

    @property
    def k(self) -> int | None:
        """Active features per row that it was made for; None where that is not known."""
        settings = self.notes.get("train")
        trained = settings.get("k") if isinstance(settings, dict) else None
        return getattr(self.core.activation, "k", None) or self.notes.get("k") or trained

    def encode(self, x: Rows, use_threshold: bool = True) -> Tensor:
        """Codes (..., F); (..., L, F) with code normalization decoupled.

        use_threshold=False: BatchTopK as in training, the k * B largest scores of all rows given.
        """
        rows, lead = flatten(self.core, x)
        return self._encode(rows, use_threshold).unflatten(0, lead)

    def _encode(self, rows: Activations, use_threshold: bool) -> Tensor:
        k = None if use_threshold else self.k
        if k is None and not use_threshold and self.core.activation.kind == "batch_topk":
            raise ConfigError("use_threshold=False: k is not known; set notes['k']")
        return dense.encode(self.core, rows, k)

    @torch.no_grad()
    def encode_sparse(self, x: Rows) -> SparseCodes:
        """The same codes as positions and values, without gradient; leading dimensions as one B."""
        rows, _ = flatten(self.core, x)
        one = next(iter(rows.values()))
        for hookpoint in self.core.hookpoints:  # the core wants all, and reads those that it reads
            rows.setdefault(hookpoint.name, one.new_zeros(len(one), hookpoint.width))
        return self.core.encode(rows)

    def decode(self, f: Tensor | SparseCodes) -> Tensor | Activations:
        """Reconstructions of codes as `encode` or `encode_sparse` gives them."""
        if isinstance(f, SparseCodes):
            return unflatten(self.core, self.core.decode(f), (f.batch,), by_name=False)
        flat = f.flatten(0, -3 if dense.per_hookpoint(self.core) else -2)
        lead = tuple(f.shape[: f.dim() - flat.dim() + 1])
        return unflatten(self.core, dense.decode(self.core, flat), lead, by_name=False)

    def forward(
        self, x: Rows, output_features: bool = False, use_threshold: bool = True
    ) -> Tensor | Activations | tuple[Tensor | Activations, Tensor]:
        """Reconstructions in the form of `x`; with output_features (reconstructions, codes)."""
        rows, lead = flatten(self.core, x)
        f = self._encode(rows, use_threshold)
        named = not isinstance(x, Tensor)
        x_hat = unflatten(self.core, dense.decode(self.core, f), lead, by_name=named)
        return (x_hat, f.unflatten(0, lead)) if output_features else x_hat

    def folded(self) -> tuple[Self, Unfolding]:
        """A copy whose weights hold the normalization, and what undoes that bit for bit.

        The copy does the same on raw activations, with scale 1 and mean 0, as other code expects.
        Raises DictionaryError if it is folded already.
        """
        core, unfolding = fold(self.core)
        return self._of(core), unfolding

    def unfolded(self, unfolding: Unfolding | None = None) -> Self:
        """A copy as it was before `folded`; without what that gave, to within two roundings."""
        return self._of(unfold(self.core, unfolding))

    def _of(self, core: Crosscoder) -> Self:
        """Another core under this one's name."""
        named = type(self).__new__(type(self))
        Dictionary.__init__(named, core, copy.deepcopy(self.notes))
        return named.train(self.training)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes model.safetensors and config.json into `folder`; half precision as float32."""
        core = self.core
        if core.b_enc.dtype not in (torch.float32, torch.float64):
            core = copy.deepcopy(core).float()
        save_dictionary(Path(folder), core, self.notes)

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo: str | Path,
        revision: str | None = None,
        *,
        subfolder: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        token: str | None = None,
    ) -> Self:
        """A dictionary from a folder, a file or the Hub (`owner/name`), under its own name.

        Reads this project's and every format that train.formats knows; nothing is unpickled.
        `revision` (branch, tag or commit) and `subfolder` are of a Hub repository.
        Raises DictionaryError; also if what is there is of another name than the class asked.
        """
        from train.names.load import load

        core, notes, made = load(cls, path_or_repo, revision, subfolder, token)
        named = made.__new__(made)
        Dictionary.__init__(named, core.to(device=device, dtype=dtype), notes)
        return named.eval()

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        message: str | None = None,
    ) -> str:
        """Uploads weights, config.json and a model card; the commit's id. Raises DictionaryError.

        Creates the repository and, if `revision` names a new branch, that. The licence is the
        user's to add to the card.
        """
        from tempfile import TemporaryDirectory

        from train.hub import push_folder

        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            pushed = push_folder(
                Path(folder),
                repo_id,
                private=private,
                revision=revision,
                token=token,
                message=message,
            )
        return pushed.commit
