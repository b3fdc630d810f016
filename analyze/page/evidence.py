"""What speaks for and against a feature being one model's own, with what chance would give."""

from __future__ import annotations

from dataclasses import dataclass

from analyze.page.embed import number
from analyze.page.lines import Line

# What a number means; numbers of tables that are not named here are shown by their column's name.
MEANINGS = {
    "readout_ratio": "R² of reading its activation, linearly, from the other model's activations, "
    "over that from its own model's: near 0 if the other model lacks it",
    "readout_own": "R² of reading its activation, linearly, from its own model's activations",
    "readout_other": "R² of reading its activation, linearly, from the other model's activations",
    "direction": "|v| / |d|: best direction for it in what the other model's reconstruction "
    "leaves over, relative to its decoder: low if nothing moves there with it",
    "null_direction": "the same with the rows exchanged: what chance gives",
    "nu_eps": "ν of the residual: from 0.2 on the other model may have it, its decoder shrunk",
    "nu_r": "ν of the reconstruction: from 0.5 on other features write the same direction there",
    "mapped_norm": "length of its decoder mapped to the other model, over its own",
    "other_norm_share": "the other model's share of its decoder norms",
    "steering_agreement": "between what its direction does to its own model's predictions and what "
    "the mapped one does to the other's: near 0 if the other has no use for it",
    "round_trip": "what of its direction survives the map there and back",
    "direction_r2": "R² of the activations along its decoder, predicted from the other model's",
    "beta_eps_own": "best scale on its own model's residual",
    "beta_eps_other": "best scale on the other model's residual",
    "beta_r_own": "best scale on its own model's reconstruction",
    "beta_r_other": "best scale on the other model's reconstruction",
    "relative_decoder_norm_raw": "R in the units of the models' activations",
    "relative_encoder_norm": "R of its encoders",
    "decoder_cosine": "between its decoders in the two models",
    "detection": "how often a language model told by the explanation whether a text makes it fire",
    "specific": "ν of the residual below 0.2 and ν of the reconstruction below 0.5",
}
IDENTITY = {
    *("feature", "group", "claimed_for", "own_hookpoint", "other_hookpoint", "verdict", "reason"),
    *("p", "q", "fires", "density", "rank", "explanation", "relative_decoder_norm"),
}
NULL, P = "null_", "p_"


@dataclass(frozen=True)
class Fact:
    """One number; p: how often a feature of the null has one as low; null: what chance gives."""

    name: str
    value: float | bool | str
    p: float | None
    null: float | None


@dataclass(frozen=True)
class Evidence:
    """Numbers of one table, and the hookpoints that were compared, if it names them."""

    source: str
    where: str
    facts: list[Fact]


def evidence_of(source: str, lines: list[Line]) -> list[Evidence]:
    """Every known number in a feature's lines of one table."""
    found = []
    for line in lines:
        facts = [_fact(line, name) for name in line if _is_evidence(line, name)]
        places = [line.get("own_hookpoint"), line.get("other_hookpoint")]
        where = " → ".join(str(place) for place in places if place is not None)
        if facts:
            found.append(Evidence(source, where, facts))
    return found


def without_repeats(found: list[Evidence], others: list[Evidence]) -> list[Evidence]:
    """Numbers that have a p-value, or that no other table holds as well."""
    told = {fact.name for one in others for fact in one.facts}
    kept = [
        Evidence(
            one.source, one.where, [f for f in one.facts if f.p is not None or f.name not in told]
        )
        for one in found
    ]
    return [one for one in kept if one.facts]


def _is_evidence(line: Line, name: str) -> bool:
    paired = name.startswith(P) or (name.startswith(NULL) and name.removeprefix(NULL) in line)
    value = line[name]
    known = isinstance(value, bool | str) or number(value) is not None
    return name not in IDENTITY and not paired and known


def _fact(line: Line, name: str) -> Fact:
    value = line[name]
    shown = value if isinstance(value, bool | str) else number(value)
    assert shown is not None
    p, null = number(line.get(P + name)), number(line.get(NULL + name))
    return Fact(name, shown, p, null)
