"""Names of the pre-activation ResNets in timm, whose head is a 1x1 convolution."""

from cnnjax.weights.naming import ONE_BY_ONE, Naming

TIMM = Naming("timm", (
    (r"stem_conv", "stem.conv"),
    (r"stage(\d+)_block(\d+)/(conv\d|norm\d)", "stages.{1-1}.blocks.{2-1}.{3}"),
    (r"stage(\d+)_block(\d+)/shortcut_conv", "stages.{1-1}.blocks.{2-1}.downsample.conv"),
    (r"final_norm", "norm"),
    (r"head", "head.fc"),
), layouts=((r"head", ONE_BY_ONE),))
