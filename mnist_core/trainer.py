"""The training step of one worker: gradients of its share, one all-reduce, one update. No Ray in here.

All trainable weights are one flat vector, and so are Adam's moments and the weight average. One step therefore
exchanges one vector, the optimizer is a dozen operations however many layers there are, and a checkpoint is four
arrays. The strategy decides whether "all workers" is one process or many.

**Results do not depend on the number of workers, bit for bit.** A global batch is cut into micro-batches of a fixed
size, whoever computes them; each is computed by operations of one thread; and their gradients are added as integers
(fixed point), because integers give the same sum in any order and floating-point numbers do not. Left to themselves,
the last bits of a float32 sum over 2 and over 1 workers differ, and 60 steps of Adam make 0.001 of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_core.batches import Share, Steps, cut_into_micro_batches
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split
from mnist_core.distortion import distort
from mnist_core.kernels import compiled
from mnist_core.model import IMAGE_SIDE, NUM_CLASSES, average_logits, build_training_network
from mnist_core.weights import WeightLayout

BETA_1: Final = 0.9
BETA_2: Final = 0.999
EPSILON: Final = 1e-7
"""Adam's constants as Keras sets them (Kingma and Ba, "Adam", ICLR 2015)."""

FIXED_POINT: Final = 2.0**40
"""Units of a sum's fixed point: 9e-13 is far below Adam's epsilon, and sums up to 8e6 fit in 64 bits."""

LARGEST_TERM: Final = 1e3
"""A gradient element or loss beyond this, or one that is no number, counts as divergence: it would not fit the sum."""

EVALUATION_BLOCK: Final = 250
"""Samples evaluated at once, whatever the number of workers, so that the last bits do not depend on it either."""

BLOCKS_PER_CALL: Final = 4
"""Blocks that TensorFlow may evaluate side by side."""

STATE_NAMES: Final = ("weights", "first_moment", "second_moment", "average")


class Trainer:
    """Weights, optimizer and step of one worker.

    Args:
        config: What decides the result; see ``TrainConfig``.
        strategy: The distribution strategy, already connected; the default strategy for one process.
        share: This worker's part of every global batch.
    """

    def __init__(self, config: TrainConfig, strategy: tf.distribute.Strategy, share: Share) -> None:
        self.config = config
        self.share = share
        self._strategy = strategy
        self.network = build_training_network(
            config.network,
            dropout=config.dropout,
            precision=config.precision,
            seed=config.seed,
            members=config.ensemble,
        )
        self._layout = WeightLayout(self.network)
        weights = self._layout.initial
        with strategy.scope():
            self._weights = tf.Variable(weights, name="weights")
            self._first_moment = tf.Variable(np.zeros_like(weights), name="first_moment")
            self._second_moment = tf.Variable(np.zeros_like(weights), name="second_moment")
            self._average = tf.Variable(weights, name="average")
        self._gradients = tf.function(self._micro_gradients, jit_compile=config.gpu or None)
        self._run = tf.function(self._run_steps, input_signature=self._steps_signature())
        self._evaluate = tf.function(self._count)
        self._updated = self._make_update()
        self._sum = tf.function(lambda values: strategy.run(_sum_over_workers, args=(values,)))

    def run(self, steps: Steps, rates: npt.NDArray[np.float32], first_step: int) -> npt.NDArray[np.float32]:
        """Take several optimizer steps.

        Args:
            steps: This worker's input, S steps.
            rates: Learning rate of each step, float32 (S,).
            first_step: Optimizer steps taken before in this run.

        Returns:
            float32 (S, 2): mean loss (not a number if the step diverged) and right answers of each global batch, of
            all members together.
        """
        results = self._run(
            steps.images, steps.labels, steps.weights, steps.keys, steps.transforms, rates, tf.constant(first_step)
        )
        return np.asarray(results)

    def evaluate(self, data: Split) -> tuple[int, float]:
        """Count right answers and sum the loss over a split, spread over all workers.

        Returns:
            Number of right answers, and the loss summed over the samples (cross-entropy, without label smoothing);
            not a number if the weights are no good.
        """
        totals = np.zeros(3, np.int64)
        batch_size = EVALUATION_BLOCK * BLOCKS_PER_CALL * self.share.world_size
        for positions in cut_into_micro_batches(len(data), batch_size, EVALUATION_BLOCK, self.share):
            real = positions >= 0
            samples = np.where(real, positions, 0)
            images, labels = data.images[samples], data.labels[samples].astype(np.int32)
            totals += self._evaluate(images, labels, real.astype(np.float32)).numpy()
        loss, correct, diverged = self._sum(tf.constant(totals)).numpy() / FIXED_POINT
        return round(correct), float("nan") if diverged else float(loss * EVALUATION_BLOCK)

    def state(self) -> dict[str, npt.NDArray[np.float32]]:
        """Copy all that the next step depends on: weights, moments and average, each float32 (parameters,)."""
        return {name: variable.numpy() for name, variable in zip(STATE_NAMES, self._state_variables(), strict=True)}

    def load_state(self, state: dict[str, npt.NDArray[np.float32]]) -> None:
        """Take over a state that ``state`` returned."""
        for name, variable in zip(STATE_NAMES, self._state_variables(), strict=True):
            variable.assign(state[name])

    def result_weights(self) -> npt.NDArray[np.float32]:
        """The weights to evaluate and to publish, the average if there is one, else the last: float32 (parameters,)."""
        return np.asarray(self._result_variable().numpy())

    def load_network(self, weights: npt.NDArray[np.float32]) -> keras.Model:
        """Put a flat weight vector into the network and return it."""
        self._layout.load(self.network, weights)
        return self.network

    def _state_variables(self) -> tuple[tf.Variable, ...]:
        return self._weights, self._first_moment, self._second_moment, self._average

    def _result_variable(self) -> tf.Variable:
        return self._average if self.config.ema_decay else self._weights

    def _steps_signature(self) -> list[tf.TensorSpec]:
        """Any number of steps a call without tracing again: images, labels, weights, keys, transforms, rates, step."""
        config = self.config
        _, micro_batches, rows = cut_into_micro_batches(1, config.batch_size, config.micro_batch_size, self.share).shape
        num_transforms = 0 if config.augment == "none" else 8
        shape = (None, micro_batches, config.ensemble, rows)
        return [
            tf.TensorSpec((*shape, IMAGE_SIDE, IMAGE_SIDE), tf.uint8),
            tf.TensorSpec(shape, tf.int32),
            tf.TensorSpec((None, micro_batches, rows), tf.float32),
            tf.TensorSpec(shape, tf.uint32),
            tf.TensorSpec((*shape, num_transforms), tf.float32),
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((), tf.int32),
        ]

    def _run_steps(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        weights: tf.Tensor,
        keys: tf.Tensor,
        transforms: tf.Tensor,
        rates: tf.Tensor,
        first_step: tf.Tensor,
    ) -> tf.Tensor:
        num_steps = tf.shape(rates)[0]
        metrics = tf.TensorArray(tf.float32, size=num_steps, element_shape=(2,))
        for step in tf.range(num_steps):
            share = (images[step], labels[step], weights[step], keys[step], transforms[step])
            sums = tf.cast(self._strategy.run(self._sum_gradients, args=share), tf.float64) / FIXED_POINT
            gradient, loss, correct, diverged = tf.split(tf.cast(sums, tf.float32), [-1, 1, 1, 1])
            gradient = self._layout.gradient(self._weights, gradient)
            self._update(gradient, rates[step], tf.cast(first_step + step + 1, tf.float32))
            loss = tf.where(diverged > 0, np.float32("nan"), loss)
            metrics = metrics.write(step, tf.concat([loss, correct], axis=0))
        return metrics.stack()

    def _sum_gradients(self, *share: tf.Tensor) -> tf.Tensor:
        """Sum (gradient, loss, right answers, divergence) over all micro-batches of all workers, in fixed point."""
        weights = self._layout.finish(self._weights)
        # Unrolled, so that TensorFlow computes the micro-batches side by side, each on one thread.
        terms = [
            self._gradients(weights, self._pixels(images, transforms, keys), labels, sample_weights, keys)
            for images, labels, sample_weights, keys, transforms in zip(*map(tf.unstack, share), strict=True)
        ]
        return _sum_over_workers(tf.add_n(terms))

    def _pixels(self, images: tf.Tensor, transforms: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """What each member sees of a micro-batch: float32 (rows, 28, 28, members)."""
        if self.config.augment == "none":
            return tf.transpose(tf.cast(images, tf.float32), [1, 2, 3, 0])
        wild = self.config.augment == "wild"
        views = zip(*map(tf.unstack, (images, transforms, keys)), strict=True)
        # Every other member sees none that are spoiled: it is better at those that are not, and errs elsewhere.
        return tf.concat([distort(*view, wild=wild and member % 2 == 0) for member, view in enumerate(views)], axis=-1)

    def _micro_gradients(
        self, weights: tf.Tensor, pixels: tf.Tensor, labels: tf.Tensor, sample_weights: tf.Tensor, keys: tf.Tensor
    ) -> tf.Tensor:
        """One micro-batch's terms of the sums, in fixed point: int64 (parameters + 3,)."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits = tf.stack(self._logits(weights, pixels, tf.transpose(keys), training=True))
            smoothing = self.config.label_smoothing
            targets = tf.one_hot(labels, NUM_CLASSES) * (1 - smoothing) + smoothing / NUM_CLASSES
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            # The sum, not the mean: each member learns from the gradient that it would have alone.
            loss = tf.reduce_sum(losses * sample_weights)
        terms = tf.concat([tape.gradient(loss, weights), [loss / self.config.ensemble]], axis=0)
        return _to_fixed_point(terms, _count_right(logits, labels, sample_weights))

    def _logits(self, weights: tf.Tensor, images: tf.Tensor, keys: tf.Tensor, training: bool) -> list[tf.Tensor]:
        """Each member's, float32 (N, 10), of float32 (N, 28, 28, members) and uint32 (N, members)."""
        outputs, _ = self.network.stateless_call(self._layout.split(weights), [], [images, keys], training=training)
        return list(tf.nest.flatten(outputs))

    def _update(self, gradient: tf.Tensor, rate: tf.Tensor, step: tf.Tensor) -> None:
        """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), then the weight average."""
        values = self._updated(*(tf.identity(variable) for variable in self._state_variables()), gradient, rate, step)
        for variable, value in zip(self._state_variables(), values, strict=True):
            variable.assign(value)

    def _make_update(self) -> Callable[..., Any]:
        decay, ema_decay, decayed = self.config.weight_decay, self.config.ema_decay, self._layout.decayed

        @compiled
        def update(
            weights: tf.Tensor,
            first: tf.Tensor,
            second: tf.Tensor,
            average: tf.Tensor,
            gradient: tf.Tensor,
            rate: tf.Tensor,
            step: tf.Tensor,
        ) -> tuple[tf.Tensor, ...]:
            first = first + (gradient - first) * (1 - BETA_1)
            second = second + (tf.square(gradient) - second) * (1 - BETA_2)
            correction = tf.sqrt(1 - tf.pow(BETA_2, step)) / (1 - tf.pow(BETA_1, step))
            change = rate * correction * first / (tf.sqrt(second) + EPSILON)
            if decay:
                change += rate * decay * decayed * weights
            weights = weights - change
            if ema_decay:
                # The average follows closely at first: it must not remember the initial weights.
                average = average + (weights - average) * (1 - tf.minimum(ema_decay, (1 + step) / (10 + step)))
            return weights, first, second, average

        made: Callable[..., Any] = update
        return made

    def _count(self, images: tf.Tensor, labels: tf.Tensor, sample_weights: tf.Tensor) -> tf.Tensor:
        """Sum (loss, right answers, divergence) over blocks, in fixed point: int64 (3,)."""
        weights = self._layout.finish(self._result_variable())
        blocks = zip(*map(tf.unstack, (images, labels, sample_weights)), strict=True)
        return tf.add_n([self._count_block(weights, *block) for block in blocks])

    def _count_block(
        self, weights: tf.Tensor, images: tf.Tensor, labels: tf.Tensor, sample_weights: tf.Tensor
    ) -> tf.Tensor:
        members = self.config.ensemble
        seen = tf.repeat(tf.cast(images, tf.float32)[..., None], members, axis=-1)
        keys = tf.zeros((*labels.shape, members), tf.uint32)
        logits = average_logits(self._logits(weights, seen, keys, training=False))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        terms = tf.reduce_mean(losses * sample_weights, keepdims=True)
        return _to_fixed_point(terms, _count_right(logits, labels, sample_weights))


@compiled
def _to_fixed_point(terms: tf.Tensor, correct: tf.Tensor) -> tf.Tensor:
    """Terms of sums, a count, and 1 if a term does not fit: int64 (terms + 2,)."""
    fits = tf.abs(terms) < LARGEST_TERM  # false for what is not a number
    diverged = 1.0 - tf.cast(tf.reduce_all(fits), tf.float32)
    values = tf.concat([tf.where(fits, terms, 0.0), [correct, diverged]], axis=0)
    return tf.cast(tf.round(tf.cast(values, tf.float64) * FIXED_POINT), tf.int64)


def _sum_over_workers(values: tf.Tensor) -> tf.Tensor:
    # The strategy asks a tensor for its device, and one from outside strategy.run has none: hence the identity.
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(values))


def _count_right(logits: tf.Tensor, labels: tf.Tensor, sample_weights: tf.Tensor) -> tf.Tensor:
    """Count right answers among the rows that are not padding."""
    right = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)
    return tf.reduce_sum(tf.cast(tf.logical_and(right, sample_weights > 0), tf.float32))
