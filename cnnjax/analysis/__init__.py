"""What a model is, what it sees and looks at, and what a run did.

    cnnjax.analysis.summarize(model, (1, 224, 224, 3))           layer by layer
    cnnjax.analysis.receptive_field(model, (1, 224, 224, 3))     what each layer sees
    cnnjax.analysis.grad_cam(model, variables, images, "stage4") where the answer comes from
    cnnjax.analysis.maximise(model, variables, channel("stage4", 7), size=128)  what it looks for
"""

from cnnjax.analysis.attribution import (
    grad_cam,
    grad_cam_plus_plus,
    guided_backprop,
    integrated_gradients,
    resized,
    saliency,
    smooth_grad,
)
from cnnjax.analysis.effective_field import EffectiveField, effective_field, plot_effective_field
from cnnjax.analysis.embedding import umap
from cnnjax.analysis.features import cka_matrix, linear_cka, pca, translation_curve
from cnnjax.analysis.formulas import conv_output_size, conv_params, dense_params, stack_field
from cnnjax.analysis.image_space import color_basis
from cnnjax.analysis.maximisation import Maximised, maximise
from cnnjax.analysis.mistakes import confident_mistakes, confusion_matrix, most_confused
from cnnjax.analysis.objectives import Objective, channel, class_logit, direction, diverse, neuron
from cnnjax.analysis.perturbation import deletion, insertion, occlusion, randomization_check
from cnnjax.analysis.pictures import (
    crop_field,
    filter_grid,
    first_kernel,
    plot_feature_maps,
    plot_filters,
    strongest_patches,
)
from cnnjax.analysis.receptive_field import LayerField, endpoint_fields, receptive_field
from cnnjax.analysis.summary import Row, Summary, summarize
from cnnjax.analysis.survey import Survey, survey
from cnnjax.analysis.wobble import Transforms

__all__ = ["EffectiveField", "LayerField", "Maximised", "Objective", "Row", "Summary", "Survey",
           "Transforms", "channel", "cka_matrix", "class_logit", "color_basis",
           "confident_mistakes", "confusion_matrix", "conv_output_size", "conv_params",
           "crop_field", "deletion", "dense_params", "direction", "diverse", "effective_field",
           "endpoint_fields", "filter_grid", "first_kernel", "grad_cam", "grad_cam_plus_plus",
           "guided_backprop", "insertion", "integrated_gradients", "linear_cka", "maximise",
           "most_confused", "neuron", "occlusion", "pca", "plot_effective_field",
           "plot_feature_maps", "plot_filters", "randomization_check", "receptive_field", "resized",
           "saliency", "smooth_grad", "stack_field", "strongest_patches", "summarize", "survey",
           "translation_curve", "umap"]
