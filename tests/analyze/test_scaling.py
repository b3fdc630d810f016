"""Latent scaling in streaming form against its formulas, in float64."""

import pytest
import torch
from torch import Tensor

from analyze.pairing import claimed_for, hookpoint_pairs
from analyze.scaling import Scaling, ScalingSums
from pipeline.errors import DictionaryError
from train.dictionary.activation import ReLU
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import Partition, dedicated, single_group

FEATURES, ROWS = 40, 300
PARTITIONS = {
    "dfc": dedicated(("a", "b"), FEATURES, {"a": 0.2, "b": 0.3}),
    "crosscoder": single_group(("a", "b"), FEATURES),
}


def random_dictionary(partition: Partition, widths: tuple[int, int], seed: int = 0) -> Crosscoder:
    shapes = tuple(HookpointShape(n, n, w) for n, w in zip("ab", widths, strict=True))
    dictionary = Crosscoder(shapes, partition, dtype=torch.float64, activation=ReLU())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.3 * draw)
        dictionary.b_enc.sub_(1.0)
        dictionary.b_enc[3] = -1e3  # never fires
    return dictionary


def random_rows(widths: tuple[int, int], rows: int = ROWS, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, w, generator=generator, dtype=torch.float64) for w in widths]


def scaled_of(
    dictionary: Crosscoder, x: list[Tensor], own: str, directions: bool, batches: int = 1
) -> Scaling:
    (pair,) = hookpoint_pairs(dictionary)
    pair = pair if own == "a" else pair.reversed()
    sums = ScalingSums(dictionary, pair, claimed_for(dictionary)[own], directions)
    for part in zip(*(one.chunk(batches) for one in x), strict=True):
        codes = dictionary.encode(dict(zip("ab", part, strict=True)))
        sums.update(codes, list(part), dictionary.decode_scaled(codes))
    return sums.result()


def full_decoder(dictionary: Crosscoder, number: int) -> Tensor:
    W_VD = dictionary.W_dec[str(number)].detach()
    full = torch.zeros(FEATURES, W_VD.shape[1], dtype=torch.float64)
    full[dictionary.visibility(number).features_V] = W_VD
    return full


def beta(f_B: Tensor, d_D: Tensor, y_BD: Tensor) -> Tensor:
    """The least-squares scale of f d on y, written out."""
    return (f_B * (y_BD @ d_D)).sum() / ((d_D @ d_D) * (f_B * f_B).sum())


@pytest.mark.parametrize("own", ["a", "b"])
@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("batches", [1, 7])
def test_betas_are_those_of_the_written_out_targets(partition, own, batches):
    dictionary = random_dictionary(PARTITIONS[partition], (9, 9))
    x = random_rows((9, 9))
    found = scaled_of(dictionary, x, own, directions=False, batches=batches)
    f_BF = dictionary.encode(dict(zip("ab", x, strict=True))).dense()
    decoders = [full_decoder(dictionary, number) for number in range(2)]
    x_hat = [f_BF @ d + dictionary.b_dec[str(n)].detach() for n, d in enumerate(decoders)]
    mine, other = (0, 1) if own == "a" else (1, 0)
    compared = 0
    for j in range(FEATURES):
        claimed = decoders[mine][j].norm() >= decoders[other][j].norm()
        if not claimed or not (f_BF[:, j] > 0).any():
            assert found.nu_eps[j].isnan()
            assert found.nu_r[j].isnan()
            continue
        compared += 1
        f_B, d_D = f_BF[:, j], decoders[mine][j]
        targets = [x[n] - x_hat[n] + f_B[:, None] * decoders[n][j] for n in range(2)]
        eps = [beta(f_B, d_D, target) for target in targets]
        recon = [beta(f_B, d_D, x_hat[n]) for n in range(2)]
        torch.testing.assert_close(found.beta_eps_own[j], eps[mine])
        torch.testing.assert_close(found.beta_eps_other[j], eps[other])
        torch.testing.assert_close(found.nu_eps[j], eps[other] / eps[mine])
        torch.testing.assert_close(found.nu_r[j], recon[other] / recon[mine])
    assert compared >= 8


@pytest.mark.parametrize("own", ["a", "b"])
def test_the_best_direction_is_that_of_least_squares(own):
    dictionary = random_dictionary(PARTITIONS["dfc"], (9, 5))
    x = random_rows((9, 5))
    found = scaled_of(dictionary, x, own, directions=True, batches=3)
    f_BF = dictionary.encode(dict(zip("ab", x, strict=True))).dense()
    decoders = [full_decoder(dictionary, number) for number in range(2)]
    mine, other = (0, 1) if own == "a" else (1, 0)
    x_hat = f_BF @ decoders[other] + dictionary.b_dec[str(other)].detach()
    compared = 0
    for j in range(FEATURES):
        if found.direction[j].isnan():
            continue
        compared += 1
        v_D = torch.linalg.lstsq(f_BF[:, [j]], x[other] - x_hat).solution[0]
        torch.testing.assert_close(found.direction[j], v_D.norm() / decoders[mine][j].norm())
    assert compared >= 8
    assert found.nu_eps.isnan().all()


def other_side(dictionary: Crosscoder, x_a: Tensor, present: bool) -> Tensor:
    """Activations of b that have feature 0 of a's own in a direction of theirs, or do not."""
    codes = dictionary.encode({"a": x_a, "b": torch.zeros(len(x_a), 5, dtype=torch.float64)})
    x_hat_BD = dictionary.decode_scaled(codes)[1].detach()
    side_D = torch.zeros(5, dtype=torch.float64)
    side_D[1] = dictionary.W_dec["0"][0].detach().norm()
    noise_BD = 0.1 * random_rows((9, 5), len(x_a), seed=4)[1]
    return x_hat_BD + noise_BD + (codes.dense()[:, :1] * side_D if present else 0)


def test_a_feature_that_the_other_model_has_is_told_from_one_that_it_lacks():
    dictionary = random_dictionary(PARTITIONS["dfc"], (9, 5))
    with torch.no_grad():
        dictionary.W_enc["1"].zero_()  # codes come from a alone, whatever b is
    x_a = random_rows((9, 5), 20_000, seed=3)[0]
    found = {
        present: scaled_of(dictionary, [x_a, other_side(dictionary, x_a, present)], "a", True)
        for present in (True, False)
    }
    assert found[True].direction[0] == pytest.approx(1.0, abs=0.05)
    assert found[False].direction[0] < 0.1
    assert found[False].null_direction[0] < 0.1
    assert found[True].null_direction[0] < 0.5


def test_features_are_claimed_once_by_group_and_by_norm():
    dictionary = random_dictionary(PARTITIONS["dfc"], (9, 9))
    claimed = claimed_for(dictionary)
    slices = dictionary.partition.slices
    assert claimed["a"][slices["a"]].all()
    assert claimed["b"][slices["b"]].all()
    assert torch.equal(claimed["a"], ~claimed["b"])
    norms_HF = dictionary.decoder_norms()
    shared = slices["shared"]
    assert torch.equal(claimed["a"][shared], norms_HF[0, shared] >= norms_HF[1, shared])


def test_hookpoints_that_do_not_come_in_pairs_are_refused():
    shapes = (
        HookpointShape("a0", "a", 4),
        HookpointShape("a1", "a", 4),
        HookpointShape("b", "b", 4),
    )
    with pytest.raises(DictionaryError, match="a has 2 reconstructed hookpoints and b 1"):
        hookpoint_pairs(Crosscoder(shapes, single_group(("a", "b"), 8)))
