import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from models.activations import exp_of_negative, sigmoid, tanh
from tests.models.step_in_numpy import exp_of_negative_in_numpy, sigmoid_in_numpy, tanh_in_numpy
