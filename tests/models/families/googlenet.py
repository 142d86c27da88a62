"""GoogLeNet in torchvision's form and in the paper's."""

from golden_values import Logits, Training

_SIZES = ((64, 64, 3), (97, 75, 3))

LOGITS = {
    # torchvision's has its auxiliary heads, which change nothing in evaluation.
    "googlenet": Logits(_SIZES, dict(num_classes=17, aux_logits=True), "torchvision:googlenet",
                        "torchvision", slow=True),
    "googlenet_original": Logits(_SIZES, dict(num_classes=17), "googlenet_original",
                                 "torchvision", slow=True),
    "small_googlenet": Logits(_SIZES[1:], dict(num_classes=7, aux_logits=True,
                                               stage_sizes=(1, 1, 1)), "one_block_a_stage",
                              "torchvision", model="googlenet"),
}
_NO_DROPOUT = dict(num_classes=7, aux_logits=True, dropout_rate=0.0, aux_dropout_rate=0.0)
TRAINING = {
    "one_block_a_stage": Training("googlenet", (75, 65, 3),
                                  dict(_NO_DROPOUT, stage_sizes=(1, 1, 1)), "one_block_a_stage",
                                  "torchvision", aux_weight=0.3, slow=True),
    "torchvision": Training("googlenet", (75, 65, 3), _NO_DROPOUT, "torchvision:googlenet",
                            "torchvision", aux_weight=0.3, slow=True),
    # The least image that the paper's auxiliary heads take.
    "paper": Training("googlenet_original", (223, 223, 3), _NO_DROPOUT,
                      "original_with_auxiliary_heads", "torchvision", aux_weight=0.3, slow=True),
}
