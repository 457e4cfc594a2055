"""What a notebook user writes: Keras's MNIST convnet and ``fit`` in one process, with everything left at its default.

``keras_fit.py DATASET.npz EPOCHS`` prints one JSON object: images of an epoch, and seconds of each epoch.
"""

from __future__ import annotations

import json
import sys
import time

import keras
import numpy as np
from keras import layers

BATCH_SIZE = 128


def main(path: str, epochs: int) -> None:
    """Train and print the times."""
    with np.load(path, allow_pickle=False) as arrays:
        images = np.expand_dims(arrays["x_train"].astype("float32") / 255, -1)
        labels = keras.utils.to_categorical(arrays["y_train"], 10)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    assert model.count_params() == 34_826
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    begun: list[float] = []
    ended: list[float] = []
    timer = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: begun.append(time.perf_counter()),
        on_epoch_end=lambda *_: ended.append(time.perf_counter()),
    )
    model.fit(images, labels, batch_size=BATCH_SIZE, epochs=epochs, verbose=2, callbacks=[timer])
    print(json.dumps({"images": len(images), "seconds": np.subtract(ended, begun).tolist()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
