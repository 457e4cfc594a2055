"""One worker of what TensorFlow's guide for several workers says: Keras 2 ``fit`` under MultiWorkerMirroredStrategy.

``tf_keras_worker.py DATASET.npz EPOCHS THREADS``, the cluster in ``TF_CONFIG``, prints one JSON object: images of an
epoch, over all workers, and seconds of each epoch. The input is the guide's: shuffled, repeated, batched globally,
sharded by TensorFlow.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

BATCH_SIZE = 128


def fit(path: str, epochs: int, **callbacks: object) -> int:
    """Train, in a process of which TensorFlow's cluster knows; return the images of an epoch.

    Args:
        path: The dataset, ``.npz``.
        epochs: Of as many whole batches as the dataset has.
        callbacks: What a ``keras.callbacks.LambdaCallback`` calls.
    """
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with np.load(path, allow_pickle=False) as arrays:
        images = np.expand_dims(arrays["x_train"].astype("float32") / 255, -1)
        labels = keras.utils.to_categorical(arrays["y_train"], 10)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).repeat().batch(BATCH_SIZE)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    with strategy.scope():
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
        model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    assert model.count_params() == 34_826
    steps = len(images) // BATCH_SIZE
    timer = keras.callbacks.LambdaCallback(**callbacks)
    model.fit(data.with_options(options), epochs=epochs, steps_per_epoch=steps, verbose=2, callbacks=[timer])
    return steps * BATCH_SIZE


def main(path: str, epochs: int, threads: int) -> None:
    """Train and print the times."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    begun: list[float] = []
    ended: list[float] = []
    images = fit(
        path,
        epochs,
        on_epoch_begin=lambda *_: begun.append(time.perf_counter()),
        on_epoch_end=lambda *_: ended.append(time.perf_counter()),
    )
    print(json.dumps({"images": images, "seconds": np.subtract(ended, begun).tolist()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
