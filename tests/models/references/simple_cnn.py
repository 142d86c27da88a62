"""The textbook CNN in torch."""

from torch import nn
from torch.nn import functional as F


class SimpleCNN(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        for i, (inputs, outputs) in enumerate([(3, 32), (32, 64), (64, 128)], 1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, 3, padding=1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
        self.fc = nn.Linear(128, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.conv3(x)))
        return self.fc(x.mean((2, 3)))


MODELS = {"simple_cnn": SimpleCNN}
