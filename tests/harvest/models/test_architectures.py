"""Every kind of hookpoint in every architecture family, against plain forward hooks that copy."""

import pytest
import torch

from harvest.models.hooked import HookedModel
from pipeline.specs import ModelSpec

from .architectures import FAMILIES, LAYERS, VOCABULARY

INPUT_IDS = torch.arange(36).reshape(3, 12) * 7 % VOCABULARY
MASK = torch.ones_like(INPUT_IDS)
MASK[1, 7:] = 0
MASK[2, 10:] = 0


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: family.save(root / name) for name, family in FAMILIES.items()}


@pytest.fixture(scope="session")
def plain():
    """Family -> (module path, site) -> tensor, of a whole pass of the model, hooked by torch.

    A module that a pass runs twice is left out.
    """
    return {name: plain_hooks(family.build()) for name, family in FAMILIES.items()}


def plain_hooks(model) -> dict[tuple[str, str], torch.Tensor]:
    seen: dict[tuple[str, str], list[torch.Tensor]] = {}

    def before(path, args, kwargs):
        value = args[0] if args else kwargs.get("hidden_states")
        if isinstance(value, torch.Tensor):
            seen.setdefault((path, "in"), []).append(value.clone())

    def after(path, output):
        value = output[0] if isinstance(output, tuple) else output
        if isinstance(value, torch.Tensor):
            seen.setdefault((path, "out"), []).append(value.clone())

    for path, module in model.named_modules():
        module.register_forward_pre_hook(
            lambda _, args, kwargs, path=path: before(path, args, kwargs), with_kwargs=True
        )
        module.register_forward_hook(lambda _, __, output, path=path: after(path, output))
    with torch.no_grad():
        model(input_ids=INPUT_IDS, attention_mask=MASK)
    return {place: values[0] for place, values in seen.items() if len(values) == 1}


def hooked(folders, family: str, *hookpoints: str) -> HookedModel:
    path = str(folders[family])
    spec = ModelSpec(path=path, hookpoint=hookpoints, dtype="float32", device="cpu")
    return HookedModel("m", spec)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_at_every_layer_equals_a_plain_hook_in_one_pass(folders, plain, family):
    layers = [FAMILIES[family].kinds(layer) for layer in range(LAYERS)]
    kinds = {kind: place for layer in layers for kind, place in layer.items()}
    model = hooked(folders, family, *reversed(kinds))
    found = model.activations(INPUT_IDS, MASK)
    assert [*found] == [f"m.{path}.{site}" for path, site in reversed(kinds.values())]
    for path, site in kinds.values():
        assert torch.equal(found[f"m.{path}.{site}"], plain[family][path, site]), (path, site)
    widths = {hookpoint.name: hookpoint.width for hookpoint in model.hookpoints}
    assert widths == {name: value.shape[2] for name, value in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_slices_of_the_input_of_the_output_projection(folders, plain, family):
    shape = FAMILIES[family]
    model = hooked(folders, family, "each_head.1", "head.-1.2", "heads.1")
    found = model.activations(INPUT_IDS, MASK)
    width = shape.heads_width // shape.heads
    assert [hookpoint.width for hookpoint in model.hookpoints] == [
        *[width] * (shape.heads + 1),
        shape.heads_width,
    ]
    for layer, head in [*((1, head) for head in range(shape.heads)), (LAYERS - 1, 2)]:
        path = f"{shape.layers}.{layer}.{shape.projection}"
        wanted = plain[family][path, "in"][..., head * width : (head + 1) * width]
        assert torch.equal(found[f"m.{path}.in.head{head}"], wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_module_path_of_a_layer_equals_a_plain_hook(folders, plain, family):
    inside = f"{FAMILIES[family].layers}.1"
    wanted = {
        (path, site): value
        for (path, site), value in plain[family].items()
        if f"{path}.".startswith(f"{inside}.") and value.shape[:2] == INPUT_IDS.shape
        if value.ndim == 3
    }
    model = hooked(folders, family, *(f"{path}:{site}" for path, site in wanted))
    found = model.activations(INPUT_IDS, MASK)
    assert len(found) >= 10
    for (path, site), value in wanted.items():
        assert torch.equal(found[f"m.{path}.{site}"], value), (path, site)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("last", "layers"), [("resid_post.1", {0, 1}), ("resid_pre.1", {0})])
def test_nothing_behind_the_last_hookpoint_runs(folders, family, last, layers):
    model = hooked(folders, family, last, "heads.0")
    ran = []
    for path, module in model._module.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(lambda *_, path=path: ran.append(path))
    model.activations(INPUT_IDS, MASK)
    stack = f"{FAMILIES[family].layers}."
    assert {int(path.removeprefix(stack)[0]) for path in ran if path.startswith(stack)} == layers
    behind = [path for path in ran if not path.startswith(stack)]
    assert not any(word in path for path in behind for word in ("lm_head", "embed_out", "pooler"))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_is_told_from_a_causal_model(folders, family):
    model = hooked(folders, family, "resid_post.-1")
    assert model.bidirectional == FAMILIES[family].bidirectional
    changed = INPUT_IDS.clone()
    changed[:, -1] = 3
    (first,), (other,) = (
        model.activations(ids, torch.ones_like(ids)).values() for ids in (INPUT_IDS, changed)
    )
    close = torch.allclose(first[:, 0], other[:, 0], rtol=1e-5, atol=1e-6)
    assert close != model.bidirectional


def test_a_tensor_that_the_model_writes_over_is_copied_before(folders, plain):
    """Falcon adds attention to the MLP's output in place: without a copy it is the sum."""
    path = f"{FAMILIES['falcon'].layers}.1.mlp"
    seen = []
    model = FAMILIES["falcon"].build()
    model.get_submodule(path).register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        model(input_ids=INPUT_IDS, attention_mask=MASK)
    wanted = plain["falcon"][path, "out"]
    assert not torch.equal(seen[0], wanted)
    found = hooked(folders, "falcon", "mlp_out.1", "resid_post.1").activations(INPUT_IDS, MASK)
    assert torch.equal(found[f"m.{path}.out"], wanted)
