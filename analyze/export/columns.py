"""What the columns of the notebook's table mean: a line for each that the commands write.

Names with a model, a label or a kind of evidence in them are found by pattern. A column that no
line describes is said to be that of its table.
"""

from __future__ import annotations

import re

DESCRIPTIONS = (
    ("feature", "number of the feature in the dictionary"),
    ("group", "group of the partition; a model's own name means that it alone sees the feature"),
    ("claimed_for", "model that the feature is likelier exclusive to"),
    ("tag", "what R says of the feature, alone: one model's only, shared, or other"),
    (r"decoder_norm_raw_(\w+)", "decoder norm of {0}, in units of its activations"),
    (r"decoder_norm_(\w+)", "decoder norm of {0}, scaled units (median activation norm equal)"),
    (r"encoder_norm_(\w+)", "encoder norm of {0}, activation per scaled unit"),
    ("relative_decoder_norm", "R = |d_A| / (|d_A| + |d_B|), scaled units; 1 first model alone"),
    ("relative_decoder_norm_raw", "the same ratio of raw decoder norms"),
    ("relative_encoder_norm", "the same ratio of encoder norms"),
    ("norm_difference", "0.5 (1 + (|d_B| - |d_A|) / max); 0 first model alone (2504.02922)"),
    ("decoder_cosine", "cosine of both decoders; null where widths differ"),
    ("density", "share of the rows on which it fires"),
    ("fires", "rows on which it fires"),
    ("activation_sum", "sum of its activations"),
    ("activation_max", "largest activation"),
    (r"activation_q(\d+)", "{0}% quantile of its activations where it fires"),
    (r"share_(.+)", "share of its firing on documents labelled {0}"),
    ("mirror", "feature of the other exclusive group that fires on the same rows, if one does"),
    ("mirror_jaccard", "rows on which both fire over rows on which either does"),
    ("mirrors", "features that fire on the same rows: feature, jaccard, correlation"),
    ("scaling_nu_eps", "latent scaling on the residual: high where the decoder shrank away"),
    ("scaling_nu_r", "latent scaling on the reconstruction: high where others write the same"),
    ("scaling_specific", "nu_eps < 0.2 and nu_r < 0.5 (arXiv 2504.02922)"),
    ("scaling_direction", "|v| / |d|, v the best direction on the other model's residual"),
    ("scaling_null_direction", "the same with the residual's rows exchanged"),
    (r"scaling_beta_(eps|r)_(own|other)", "best scale of the decoder on target {0}, {1} model"),
    ("transfer_mapped_norm", "norm of the decoder mapped into the other model over its own"),
    ("transfer_round_trip", "share of the decoder that comes back from the other model"),
    ("transfer_direction_r2", "variance along the decoder that the other model explains"),
    (r"transfer_readout_(own|other|ratio)", "how well activations are read off a model ({0})"),
    ("exclusivity_verdict", "exclusive, not shown, or too rare"),
    ("exclusivity_p", "p-value of the combined evidence under the null"),
    ("exclusivity_q", "false-discovery rate of a list down to this feature"),
    ("exclusivity_reason", "the verdict in words"),
    (r"exclusivity_p_(\w+)", "p-value of the evidence {0}"),
    (r"exclusivity_(\w+)", "evidence {0}"),
    (r"steer_kl_(firing|silent)_(\w+)", "largest KL by steering {1}, where the feature is {0}"),
    (r"steer_top1_(firing|silent)_(\w+)", "largest share of changed top tokens, same places"),
    ("steer_texts", "texts written under steering: steered, alpha, prompt, text"),
    (r"tokens_(promoted|suppressed)_(\w+)", "logit lens: tokens {0} in {1}: token, logit"),
    (r"neighbours_(\w+)", "features with the nearest decoders in {0}: neighbour, cosine"),
    ("explanations_explanation", "what a language model took the feature for"),
    ("explanations_detection", "balanced accuracy of telling by it where the feature fires"),
    ("band", "top, or the band of activation quantiles that the context is of"),
    ("rank", "place within the band, or within a list of features or tokens"),
    ("document", "number of the document in the store"),
    ("label", "the document's label"),
    ("row", "row of the store on which the feature fires"),
    ("activation", "activation on that row"),
    ("pieces", "the context's text, a piece per row"),
    ("strengths", "activation on each piece, 0 to 1"),
    ("peak", "index of the piece that is `row`"),
    ("text", "the pieces joined"),
)


def describe_columns(names: list[str]) -> dict[str, str]:
    """A line for each column, in order."""
    return {name: _described(name) for name in names}


def _described(name: str) -> str:
    for pattern, words in DESCRIPTIONS:
        found = re.fullmatch(pattern, name)
        if found:
            return words.format(*found.groups())
    table, _, column = name.partition("_")
    return f"column {column} of the table {table}" if column else f"column {name}"
