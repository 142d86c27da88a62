"""Names of AlexNet in torchvision, which counts ReLUs and pools too."""

from cnnjax.weights.naming import Naming, flattened

TORCHVISION = Naming("torchvision", (
    (r"conv1", "features.0"),
    (r"conv2", "features.3"),
    (r"conv3", "features.6"),
    (r"conv4", "features.8"),
    (r"conv5", "features.10"),
    (r"fc1", "classifier.1"),
    (r"fc2", "classifier.4"),
    (r"head", "classifier.6"),
), layouts=((r"fc1", flattened(6, 6)),))
