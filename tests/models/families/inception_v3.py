"""Inception-v3."""

from golden_values import Fill, Logits, Training

# One block of each kind.
_SMALL = dict(num_classes=7, pool_widths=(32,), widths_7x7=(128,), last_blocks=1, dropout_rate=0.0)

LOGITS = {
    "inception_v3": Logits(((96, 96, 3), (133, 111, 3)), dict(num_classes=17),
                           "without_auxiliary_head", "torchvision", slow=True),
    "small_inception_v3": Logits(((97, 88, 3),), _SMALL, "small", "torchvision",
                                 model="inception_v3"),
}
TRAINING = {
    "one_block_of_each_kind": Training("inception_v3", (107, 95, 3), _SMALL, "small",
                                       "torchvision", slow=True),
    # The least image that the auxiliary head takes.
    "auxiliary_head": Training("inception_v3", (299, 299, 3), dict(_SMALL, aux_logits=True),
                               "small_with_auxiliary_head", "torchvision", aux_weight=0.4,
                               slow=True),
}
# Enough that the logits of different images differ by a good part of their spread, or the
# comparison would say nothing of the layers between.
FILL = Fill(gain=3.6)
