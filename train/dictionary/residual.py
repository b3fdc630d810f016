"""What the best affine maps between two models leave of their activations.

r_n = x_n - W_n x_p - c_n in raw units, p the partner of hookpoint n (train.dictionary.pairs). What
both models hold linearly is gone from r. What one alone has stays in its own residual as it is, for
the other's activations do not tell of it; in the other's residual it leaves a mirror image, -W d.
Costs one product of a batch with W_n per hookpoint. The maps, which train.recipes.residual fits
once, are buffers: saved with the weights, never trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.dictionary.pairs import partners
from train.dictionary.precision import tf32_products


class LinearPrediction(nn.Module):
    """weight_n (width, width of the partner) and bias_n (width,), zeros until they are fitted.

    r2: per hookpoint, the share of its variance that is predicted; of rows that the maps were not
    fitted on, where there were some. Raises ValueError for hookpoints that do not come in pairs.
    """

    r2: Tensor

    def __init__(self, models: Sequence[str], widths: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()
        found = partners(models)
        if found is None:
            raise ValueError(f"hookpoints of {', '.join(models)} do not come in pairs")
        self.partners = found
        self.register_buffer("r2", torch.zeros(len(widths), dtype=dtype))
        for n, (width, partner) in enumerate(zip(widths, found, strict=True)):
            self.register_buffer(f"weight_{n}", torch.zeros(width, widths[partner], dtype=dtype))
            self.register_buffer(f"bias_{n}", torch.zeros(width, dtype=dtype))

    def residuals(
        self, raw: Mapping[int, Float[Tensor, "batch _"]]
    ) -> dict[int, Float[Tensor, "batch _"]]:
        """Raw activations of all hookpoints, by number, less what their partners' tell of them.

        Differentiable. Never multiplied in tf32: what is left is small beside what is taken off.
        """
        with tf32_products(False):
            return {
                n: x_BD
                - torch.addmm(
                    self.get_buffer(f"bias_{n}"),
                    raw[self.partners[n]],
                    self.get_buffer(f"weight_{n}").T,
                )
                for n, x_BD in raw.items()
            }
