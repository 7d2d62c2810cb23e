"""torch modules with their outputs; run in a separate process."""

import numpy as np
import torch
from torch import nn

torch.manual_seed(0)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.out = nn.Dropout(0.5), nn.Linear(8 * 16, 4)

    def forward(self, image):
        seen = torch.relu(self.norm(self.conv(image)))
        return self.out(self.drop(torch.max_pool2d(seen, 2)).flatten(1))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, left, right, scale=2.0):
        h = self.a(left) * scale + self.b(right)
        return {"sum": h.sum(1, keepdim=True), "h": h}


class Branch(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum().item() > -1e9 else x


class Fixed(nn.Module):
    def forward(self, x):
        return (x.reshape(2, 12) * 2).sum(1)


class Chance(nn.Module):
    def forward(self, x):
        return x + torch.rand(x.shape)


_small = Small()


def small():
    return _small, torch.randn(1, 1, 8, 8)


def bare():
    return _small


def with_attribute():
    return _small


with_attribute.example_inputs = torch.randn(2, 1, 8, 8)


def two():
    return Two(), (torch.randn(5, 3), torch.randn(5, 2))


def by_name():
    return Two(), {"right": torch.randn(1, 2), "left": torch.randn(1, 3)}


def branch():
    return Branch(), torch.ones(1, 4)


def fixed():
    return Fixed(), torch.randn(2, 12)


def chance():
    return Chance(), torch.randn(2, 3)


def raises():
    raise RuntimeError("no weights here\nand more")


def nothing():
    pass


def number():
    return 3


def make(folder):
    image = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        np.savez(folder / "small.npz", image=image, output=_small.eval()(image))
    torch.save((_small, image), folder / "pair.pt")
    torch.save(_small.state_dict(), folder / "weights.pth")
    batch = torch.export.Dim("batch")
    program = torch.export.export(_small, (image,), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "program.pt2")
    (folder / "text.pt2").write_bytes(b"not a program")
