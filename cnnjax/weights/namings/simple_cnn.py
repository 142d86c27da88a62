"""Names of the textbook CNN as a torch module with attributes conv1, bn1, …, fc1, …, fc."""

from cnnjax.weights.naming import Naming

TORCH = Naming("torch", (
    (r"conv(\d+(?:_\d+)?)", "conv{1}"),
    (r"norm(\d+(?:_\d+)?)", "bn{1}"),
    (r"fc(\d+)", "fc{1}"),
    (r"head", "fc"),
))
