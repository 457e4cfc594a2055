"""The same convnet in PyTorch on a CPU, trained as its tutorials do, with everything left at its default.

``torch_fit.py DATASET.npz EPOCHS THREADS`` prints one JSON object: images of an epoch, and seconds of each epoch. The
images are one tensor from the start and each batch is taken out of it, which is faster than a DataLoader.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from torch import nn

BATCH_SIZE = 128


def main(path: str, epochs: int, threads: int) -> None:
    """Train and print the times."""
    torch.set_num_threads(threads)
    with np.load(path, allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays["x_train"].astype("float32") / 255)[:, None]
        labels = torch.from_numpy(arrays["y_train"].astype("int64"))
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(1600, 10)),
    )
    assert sum(weights.numel() for weights in model.parameters()) == 34_826
    optimizer = torch.optim.Adam(model.parameters())
    seconds = []
    for _ in range(epochs):
        begun, correct = time.perf_counter(), 0
        for batch in torch.randperm(len(images)).split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = model(images[batch])
            nn.functional.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
            correct += int((logits.argmax(dim=1) == labels[batch]).sum())
        seconds.append(time.perf_counter() - begun)
        print(f"accuracy {correct / len(images):.4f}", file=sys.stderr)
    print(json.dumps({"images": len(images), "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
