"""What a model is and what a run did: sizes and costs of layers, what they see, plots."""

from cnnjax.analysis.effective_field import (
    EffectiveField,
    effective_field,
    plot_effective_field,
)
from cnnjax.analysis.formulas import conv_output_size, conv_params, dense_params, stack_field
from cnnjax.analysis.receptive_field import LayerField, endpoint_fields, receptive_field
from cnnjax.analysis.summary import Row, Summary, summarize

__all__ = ["EffectiveField", "LayerField", "Row", "Summary", "conv_output_size", "conv_params",
           "dense_params", "effective_field", "endpoint_fields", "plot_effective_field",
           "receptive_field", "stack_field", "summarize"]
