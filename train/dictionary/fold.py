"""Scale and mean folded into the weights: a dictionary that runs on raw activations as they are.

With s the scale and m the mean of a hookpoint, x' = (x - m) s and x_hat = x_hat' / s + m, so

    W_enc~ = s W_enc, W_dec~ = W_dec / s, b_dec~ = b_dec / s + m,
    b_enc~ = b_enc - sum_h W_enc (s m), but b_enc where b_dec is subtracted first: b_dec~ has m.

Pre-activations, codes and reconstructions are those from before, to rounding: a feature changes
only where its score lies within rounding of the threshold. Decoder norms, code normalization and
thresholds stay in scaled units, as `norm_scale` keeps s. A gate's magnitude path is given pre less
b_enc, so its bias takes up what b_enc gave away. The prediction that a residual dictionary takes
off first is in raw units, and stays.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Crosscoder

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


@dataclass(frozen=True)
class Unfolding:
    """What bit-exact unfolding needs, by state-dict name: a quarter of the float32 weights.

    kept: tensors as they were (vectors); steps: for matrices, how many representable numbers the
    original lies from what dividing gives back (int8, or wider where weights underflowed).
    """

    kept: dict[str, Tensor]
    steps: dict[str, Tensor]


def is_folded(dictionary: Crosscoder) -> bool:
    """Whether decoder norms need `norm_scale` to be in scaled units."""
    return bool((dictionary.norm_scale != 1).any())


def fold(dictionary: Crosscoder) -> tuple[Crosscoder, Unfolding]:
    """A copy with scale 1 and mean 0 that does the same, and what undoes it.

    Raises DictionaryError if that has been done to it before.
    """
    if is_folded(dictionary):
        raise DictionaryError("the scale is folded into the weights already; unfold it first")
    if not bool(((dictionary.scale > 0) & dictionary.scale.isfinite()).all()):
        raise DictionaryError(f"scale {dictionary.scale.tolist()}: cannot be folded; needs > 0")
    before = {name: value.detach() for name, value in dictionary.state_dict().items()}
    folded = copy.deepcopy(dictionary)
    with torch.no_grad():
        _move_mean_into_biases(folded)
        _multiply(folded, folded.scale)
        folded.norm_scale.copy_(folded.scale)
        folded.scale.fill_(1)
    guess = copy.deepcopy(folded)
    with torch.no_grad():
        _multiply(guess, 1 / guess.norm_scale)
    rough = guess.state_dict()
    matrices = {name for name in before if name.startswith(("W_enc.", "W_dec."))}
    return folded, Unfolding(
        {name: value.clone() for name, value in before.items() if name not in matrices},
        {name: _steps_between(rough[name], before[name]) for name in matrices},
    )


def unfold(dictionary: Crosscoder, unfolding: Unfolding | None = None) -> Crosscoder:
    """A copy as it was before `fold`: bit for bit with what `fold` gave for it.

    Without, weights differ from what they were by a factor of at most 1 +- 2 eps of their dtype
    (three roundings), and a mean stays where it was put, in the biases. Raises DictionaryError if
    nothing is folded.
    """
    if not is_folded(dictionary) and unfolding is None:
        raise DictionaryError("no scale is folded into these weights; there is nothing to unfold")
    plain = copy.deepcopy(dictionary)
    with torch.no_grad():
        _multiply(plain, 1 / plain.norm_scale)
        plain.scale.copy_(plain.norm_scale)
        plain.norm_scale.fill_(1)
        if unfolding is not None:
            state = plain.state_dict()
            exact = {
                name: _step(state[name], count.to(state[name].device))
                for name, count in unfolding.steps.items()
            }
            plain.load_state_dict({**exact, **unfolding.kept})
    return plain


def _multiply(dictionary: Crosscoder, factors_H: Tensor) -> None:
    """Weights of every hookpoint for inputs that are smaller by its factor."""
    for n in dictionary.inputs:
        dictionary.W_enc[str(n)].mul_(factors_H[n])
    for n in dictionary.outputs:
        dictionary.W_dec[str(n)].div_(factors_H[n])
        dictionary.b_dec[str(n)].div_(factors_H[n])


def _move_mean_into_biases(dictionary: Crosscoder) -> None:
    """Puts every mean, while weights are in scaled units, where it does the same as a bias."""
    if not dictionary.means:
        return
    for n in range(len(dictionary.hookpoints)):
        mean_D = dictionary.get_buffer(f"mean_{n}")
        shift_D = mean_D * dictionary.scale[n]
        if n in dictionary.inputs and not (dictionary.center and n in dictionary.outputs):
            taken_V = dictionary.W_enc[str(n)] @ shift_D
            features_V = dictionary.visibility(n).features_V
            dictionary.b_enc.index_add_(0, features_V, -taken_V)
            if dictionary.activation.kind == "gated":
                gain_V = dictionary.r_mag.exp()[features_V]
                dictionary.mag_bias.index_add_(0, features_V, -gain_V * taken_V)
        if n in dictionary.outputs:
            dictionary.b_dec[str(n)].add_(shift_D)
        mean_D.zero_()


def _ordered(values: Tensor) -> Tensor:
    """Whole numbers that count floating-point numbers in their order, -0 before 0."""
    return _mirrored(values.contiguous().view(BITS[values.dtype]))


def _mirrored(numbers: Tensor) -> Tensor:
    """Its own inverse: bits of floating-point numbers to their order, and back."""
    return torch.where(numbers < 0, torch.iinfo(numbers.dtype).min - numbers - 1, numbers)


def _steps_between(start: Tensor, end: Tensor) -> Tensor:
    steps = _ordered(end) - _ordered(start)
    largest = int(steps.abs().max()) if steps.numel() else 0
    return steps.to(torch.int8) if largest < 128 else steps


def _step(start: Tensor, count: Tensor) -> Tensor:
    """The number that lies `count` representable numbers after `start`."""
    return _mirrored(_ordered(start) + count).view(start.dtype)
