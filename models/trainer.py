"""How weights are learnt: truncated back-propagation through time, with the state carried as it is served.

TensorFlow is imported inside the functions, as in `models.lstm`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from models.checkpoints import Arrays, Checkpoint, read_checkpoint, write_checkpoint
from models.dataset import Streams
from models.lstm import Models
from stream.errors import ModelError

logger = logging.getLogger(__name__)

Losses = tuple[float, float]  # of training and of validation
# Called after each epoch with its number from 1, its loss and its validation loss; what it raises ends all.
Told = Callable[[int, float, float], None]

_GRADIENT_NORM: Final = 1.0
_HUBER_SIGMAS: Final = 2.0  # beyond this many standard deviations a return counts by its size, not its square


@dataclass(frozen=True)
class Objective:
    """What is learnt, and how fast."""

    learning_rate: float  # of Adam
    weight_decay: (
        float  # of Adam, decoupled; share of a weight per step and unit of the learning rate; not of biases
    )
    return_weight: float  # of the loss of the expected return, beside that of the direction
    return_spread_bps: float  # the unit in which that loss is measured
    class_weights: NDArray[np.float32]  # [3] of down, flat, up in the loss of the direction
    head_penalty: float = 0.0  # of the sum of the heads' squared weights, the return's in units of its spread


class Trainer:
    """Goes through streams chunk after chunk of all pieces: state carried, gradient not."""

    def __init__(self, models: Models, objective: Objective) -> None:
        """Make a trainer of ``models``, which change in place."""
        import keras

        self._models = models
        self._objective = objective
        self._optimizer = keras.optimizers.AdamW(
            objective.learning_rate, weight_decay=objective.weight_decay, global_clipnorm=_GRADIENT_NORM
        )
        self._optimizer.exclude_from_weight_decay(var_names=["bias"])
        self._optimizer.build(models.sequence.trainable_variables)
        self._learn, self._judge = self._compile()

    def variables(self) -> Arrays:
        """Return all that training changes: weights, dropout's seeds, the optimizer's state."""
        return [np.array(variable.numpy()) for variable in self._variables()]

    def restore(self, values: Arrays) -> None:
        """Take over what `variables` gave.

        Raises:
            ModelError: they are of another model.
        """
        mine = self._variables()
        shapes = [tuple(variable.shape) for variable in mine]
        if shapes != [value.shape for value in values]:
            raise ModelError(f"{len(values)} arrays that do not fit the {len(mine)} variables of this model")
        for variable, value in zip(mine, values, strict=True):
            variable.assign(value)

    def epoch(self, streams: Streams, steps: int, learn: bool, told: Callable[[int], object]) -> float:
        """Go once through the streams from the zero state and return the mean loss, learning or only judging.

        Args:
            streams: S pieces.
            steps: rows of a chunk: how far gradients go back.
            learn: change the weights.
            told: called after each chunk with how many steps it had.
        """
        pieces, length = streams.weight.shape
        state = np.zeros((self._models.layers, pieces, self._models.units), np.float32)
        h, c = state, state
        total = weight = 0.0
        for start in range(0, length, steps):
            chunk = streams.chunk(start, start + steps)
            loss, h, c = (self._learn if learn else self._judge)(*chunk, h, c)
            counted = float(chunk[-1].sum())
            total += float(loss) * counted
            weight += counted
            told(chunk[-1].shape[1])
        return total / max(weight, 1.0)

    def _variables(self) -> list[Any]:
        # `variables` of a model are its weights and the states of its random generators.
        return [*self._models.sequence.variables, *self._optimizer.variables]

    def _loss(self, answers: Any, direction: Any, return_bps: Any, weight: Any) -> Any:
        import tensorflow as tf

        probabilities, expected = answers
        given = tf.gather(probabilities, direction, batch_dims=2)
        surprise = -tf.math.log(tf.maximum(given, 1e-7)) * tf.gather(self._objective.class_weights, direction)
        off = tf.abs(expected - return_bps) / self._objective.return_spread_bps
        near = tf.minimum(off, _HUBER_SIGMAS)
        huber = near * (off - 0.5 * near)
        return tf.reduce_sum(weight * (surprise + self._objective.return_weight * huber)) / tf.maximum(
            tf.reduce_sum(weight), 1.0
        )

    def _penalty(self) -> Any:
        import tensorflow as tf

        direction, expected = self._models.heads
        squares = tf.reduce_sum(tf.square(direction))
        squares += tf.reduce_sum(tf.square(expected / self._objective.return_spread_bps))
        return self._objective.head_penalty * squares

    def _compile(self) -> tuple[Any, ...]:
        import tensorflow as tf

        model = self._models.sequence

        def forward(inputs: tuple[Any, ...], training: bool) -> tuple[Any, Any, Any]:
            x, direction, return_bps, weight, h, c = inputs
            probabilities, expected, h, c = model([x, h, c], training=training)
            return self._loss((probabilities, expected), direction, return_bps, weight), h, c

        def learn(*inputs: Any) -> tuple[Any, Any, Any]:
            with tf.GradientTape() as tape:
                loss, h, c = forward(inputs, training=True)
                held = loss + self._penalty()
            gradients = tape.gradient(held, model.trainable_variables)
            self._optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss, h, c

        def judge(*inputs: Any) -> tuple[Any, Any, Any]:
            return forward(inputs, training=False)

        return tuple(tf.function(step, autograph=False, reduce_retracing=True) for step in (learn, judge))


@dataclass(frozen=True)
class Schedule:
    """When training stops."""

    epochs: int  # at the most
    patience: int  # epochs without a better validation loss
    steps: int  # rows of a chunk

    def is_done(self, losses: list[Losses]) -> bool:
        """Tell whether a training has ended, by its losses: at the start, and after each epoch."""
        validation = [each for _, each in losses]
        since_best = len(validation) - 1 - int(np.argmin(validation))
        return len(losses) > self.epochs or since_best >= self.patience or not np.isfinite(validation[-1])


def run_epochs(
    trainer: Trainer,
    learning: Streams,
    judging: Streams,
    schedule: Schedule,
    *,
    kept: Path | None = None,
    console: Console | None = None,
    told: Told | None = None,
) -> tuple[Losses, ...]:
    """Train until the validation loss stops falling, and leave the best weights in the trainer's models.

    Those may be the ones that it began with: a regression, where the models have a direct path.

    Args:
        trainer: of the models.
        learning: what is learnt from.
        judging: what chooses the best epoch.
        schedule: when to stop.
        kept: the checkpoint to go on from, if it is there, and to write after each epoch.
        console: where to show progress; nowhere if not given.
        told: called after each epoch that is run.

    Returns:
        The losses of each epoch.

    Raises:
        ModelError: it diverged, or the checkpoint cannot be read or written.
    """
    losses, best = _start(trainer, judging, schedule, kept)
    steps_each = learning.weight.shape[1] + judging.weight.shape[1]
    with Progress(console=console or Console(quiet=True), transient=True) as progress:
        task = progress.add_task(
            "training", total=schedule.epochs * steps_each, completed=(len(losses) - 1) * steps_each
        )

        def walked(steps: int) -> None:
            progress.advance(task, steps)

        while not schedule.is_done(losses):
            loss = trainer.epoch(learning, schedule.steps, True, walked)
            validation = trainer.epoch(judging, schedule.steps, False, walked)
            if all(validation < other for _, other in losses):
                best = trainer.variables()
            losses.append((loss, validation))
            if kept is not None:
                write_checkpoint(kept, Checkpoint(tuple(losses), trainer.variables(), best))
            epoch = len(losses) - 1
            text = f"epoch {epoch}: loss {loss:.4f}, validation {validation:.4f}"
            progress.update(task, description=text)
            logger.info("%s", text)
            if told is not None:
                told(epoch, loss, validation)
    done = losses[1:]
    if not np.isfinite([validation for _, validation in done]).any():
        raise ModelError(f"training diverged: losses {done}; a lower learning rate?")
    trainer.restore(best)
    return tuple(done)


def _start(
    trainer: Trainer, judging: Streams, schedule: Schedule, kept: Path | None
) -> tuple[list[Losses], Arrays]:
    at = None if kept is None else read_checkpoint(kept)
    if at is None:
        return [(np.nan, trainer.epoch(judging, schedule.steps, False, lambda _: None))], trainer.variables()
    trainer.restore(at.latest)
    logger.info("goes on after epoch %d, from the checkpoint %s", len(at.losses) - 1, kept)
    return list(at.losses), at.best
