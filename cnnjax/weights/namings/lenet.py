"""Names of LeNet-5 as a torch.nn.Sequential of features and one of classifier layers."""

from cnnjax.weights.naming import Naming, flattened

TORCH = Naming("torch", (
    (r"conv1", "features.0"),
    (r"conv2", "features.3"),
    (r"fc1", "classifier.1"),
    (r"fc2", "classifier.3"),
    (r"head", "classifier.5"),
), layouts=((r"fc1", flattened(5, 5)),))
