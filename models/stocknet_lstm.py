"""The LSTM of the daily benchmark (`models.stocknet`): a stock's last days in, up or down on the next one out.

TensorFlow is imported inside the functions: serving needs none of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.stocknet import Days, Samples

_GRADIENT_NORM: Final = 1.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """What can be chosen about the model and its training. How this one was chosen: docs/models.md."""

    lag_days: int = 10  # that the LSTM sees; which samples there are does not depend on it
    market: bool = True  # beside a stock's own features, the mean of all stocks' on each day
    attention: bool = False  # over those days, beside the last one
    units: int = 16
    clip_sigmas: float = 4.0
    dropout: float = 0.2
    weight_decay: float = 5e-3
    learning_rate: float = 3e-3
    batch: int = 1024
    epochs: int = 8


CANDIDATES: Final = {
    "own features, 5 days": Recipe(lag_days=5, market=False),
    "own features, 5 days, attention": Recipe(lag_days=5, market=False, attention=True),
    "own features, 10 days": Recipe(market=False),
    "market, 5 days": Recipe(lag_days=5),
    "market, 5 days, attention": Recipe(lag_days=5, attention=True),
    "market, 10 days": Recipe(),
    "market, 10 days, 4 epochs": Recipe(epochs=4),
    "market, 10 days, 12 epochs": Recipe(epochs=12),
    "market, 10 days, attention": Recipe(attention=True),
    "market, 10 days, attention, 32 units": Recipe(attention=True, units=32),
    "market, 15 days, attention": Recipe(lag_days=15, attention=True),
}
# By `models.stocknet_benchmark.compare`, which never looks at the test span. With the market and 10 days or more,
# the means over the folds were 0.130 to 0.153, all within what chance does. This is the simplest of those,
# and the one whose worst fold was the best.
CHOSEN: Final = CANDIDATES["market, 10 days"]


def fit_predict(
    days: Days, train: Samples, judged: Samples, recipe: Recipe, seed: int, on_epoch: Callable[[], None]
) -> Floats:
    """Train on some samples and return scores of others, ``float32[N]``: above 0 is up.

    Args:
        days: of both.
        train: to learn from; the scaler is fitted on the days that these see, and no others.
        judged: N samples, of later days.
        recipe: how.
        seed: the same gives the same scores on one machine.
        on_epoch: is called after each epoch.
    """
    import keras

    keras.utils.clear_session()  # else the graphs of every model so far stay in memory
    keras.utils.set_random_seed(seed)
    seen = slice(train.day.min() - recipe.lag_days, train.day.max())
    inputs = _scaled(_inputs(days, recipe.market), seen, recipe.clip_sigmas)
    model = _build(recipe, inputs.shape[-1])
    optimizer = keras.optimizers.Adam(recipe.learning_rate, global_clipnorm=_GRADIENT_NORM)
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(
        _windows(inputs, train, recipe.lag_days),
        train.up.astype(np.float32)[:, None],
        batch_size=recipe.batch,
        epochs=recipe.epochs,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch())],
    )
    scores: Floats = model.predict(_windows(inputs, judged, recipe.lag_days), batch_size=4096, verbose=0)
    return scores[:, 0]


def _inputs(days: Days, market: bool) -> NDArray[np.float64]:
    if not market:
        return days.features
    # Most of a stock's move on a day is the market's, and of that a stock's own history tells little.
    mean = np.nanmean(days.features, axis=1, keepdims=True)
    return np.concatenate([days.features, np.broadcast_to(mean, days.features.shape)], axis=2)


def _scaled(inputs: NDArray[np.float64], seen: slice, clip_sigmas: float) -> Floats:
    mean, spread = np.nanmean(inputs[seen], axis=(0, 1)), np.nanstd(inputs[seen], axis=(0, 1))
    scaled = np.clip((inputs - mean) / spread, -clip_sigmas, clip_sigmas)
    # A stock that was listed a week ago has no older days: they are as the average one.
    whole: Floats = np.nan_to_num(scaled, nan=0.0).astype(np.float32)
    return whole


def _windows(inputs: Floats, samples: Samples, lag_days: int) -> Floats:
    before = np.arange(-lag_days, 0)
    windows: Floats = inputs[samples.day[:, None] + before, samples.stock[:, None]]
    return windows


def _build(recipe: Recipe, width: int) -> Any:
    import keras
    from keras import layers, ops

    decay = keras.regularizers.L2(0.5 * recipe.weight_decay)
    x = layers.Input((recipe.lag_days, width))
    current = layers.Dense(width, activation="tanh", kernel_regularizer=decay)(x)
    current = layers.LSTM(
        recipe.units, return_sequences=recipe.attention, kernel_regularizer=decay, recurrent_regularizer=decay
    )(current)
    if recipe.attention:
        hidden = layers.Dense(recipe.units, activation="tanh", kernel_regularizer=decay)(current)
        weight = ops.softmax(layers.Dense(1, use_bias=False, kernel_regularizer=decay)(hidden), axis=1)
        current = ops.concatenate([current[:, -1], ops.sum(weight * current, axis=1)], axis=-1)
    current = layers.Dropout(recipe.dropout)(current)
    return keras.Model(x, layers.Dense(1, kernel_regularizer=decay)(current))
