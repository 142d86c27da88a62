"""The architectures, as pure linen modules, and the table that names them.

`table.TABLE` is the list of all models. Every one follows the same contract, which `create_model`
states.
"""

from cnnjax.models.create import (
    arguments_of,
    create_model,
    identify,
    list_models,
    lookup,
    model_arguments,
)
from cnnjax.models.scaling import Scaling, compound_scaling, constraint_candidates
from cnnjax.models.table import Entry
from cnnjax.models.variables import init_variables, variable_shapes

__all__ = ["Entry", "Scaling", "arguments_of", "compound_scaling", "constraint_candidates",
           "create_model", "identify", "init_variables", "list_models", "lookup",
           "model_arguments", "variable_shapes"]
