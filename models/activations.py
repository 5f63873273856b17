"""exp, sigmoid and tanh in float32 as explicit products and sums: the same bits on every CPU, and in vectors.

A maths library answers differently from version to version and from CPU to CPU, and its calls stand in the way of
vectors. Every operation here is one IEEE float32 operation, rounded once; nothing is contracted or reordered.

Largest error over every float32, in ulp of the true value (`tests/models/test_activations.py` looks at a sample):
exp 1.0 (x >= -87), sigmoid 2.5 (x >= -87), tanh 6.5, which is 3.9e-7. NaN stays NaN: no comparison with it is true,
so that no clamp takes it.

Source: coefficients are minimax fits (iteratively reweighted least squares) of (exp(r) - 1 - r) / r^2 on
|r| <= ln(2) / 2, and of tanh(x) / x as a quotient of polynomials in x^2 on |x| <= 9.02. The reduction of exp's
argument is that of Cody and Waite, 1980: ln(2) in two parts, of which the first times a whole number is exact.
"""

from typing import Any, Final

import numpy as np

from stream.compiled import inlined

_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)

_LOWEST: Final = np.float32(-87.0)  # below it 2^n would be denormal
_LOG2_E: Final = np.float32(1.44269504)
# Added to a small number it leaves that number, rounded to a whole one, in the low bits of the sum.
_ROUNDER: Final = np.float32(1.5 * 2**23)
_LN2_HIGH: Final = np.float32(0.693359375)
_LN2_LOW: Final = np.float32(-2.12194440e-4)
_E0: Final = np.float32(0.49999994)
_E1: Final = np.float32(0.1666652)
_E2: Final = np.float32(0.041668393)
_E3: Final = np.float32(0.008368781)
_E4: Final = np.float32(0.0013814465)
_EXPONENT_BIAS: Final = np.int32(127)
_MANTISSA_BITS: Final = np.int32(23)

_HIGHEST: Final = np.float32(9.02)  # beyond it tanh is 1 in float32
_P1: Final = np.float32(0.13379715)
_P2: Final = np.float32(0.0034940324)
_P3: Final = np.float32(2.0583446e-05)
_P4: Final = np.float32(1.3319025e-08)
_Q1: Final = np.float32(0.4671303)
_Q2: Final = np.float32(0.025871065)
_Q3: Final = np.float32(0.00032830893)
_Q4: Final = np.float32(7.7619995e-07)


@inlined
def exp_of_negative(x: Any) -> Any:
    """Return exp(x) of one float32 that is not above 0; of everything below -87 it is exp(-87), 1.6e-38."""
    x = _LOWEST if x < _LOWEST else x
    shifted = x * _LOG2_E + _ROUNDER
    whole = shifted - _ROUNDER
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    q = (((_E4 * r + _E3) * r + _E2) * r + _E1) * r + _E0
    bits = np.float32(shifted).view(np.int32)
    power = np.int32((bits + _EXPONENT_BIAS) << _MANTISSA_BITS).view(np.float32)
    return (((q * r) * r + r) + _ONE) * power


@inlined
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) of one float32."""
    e = exp_of_negative(-abs(x))
    return (_ONE if x >= _ZERO else e) / (_ONE + e)


@inlined
def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent of one float32."""
    x = _HIGHEST if x > _HIGHEST else x
    x = -_HIGHEST if x < -_HIGHEST else x
    z = x * x
    p = (((_P4 * z + _P3) * z + _P2) * z + _P1) * z + _ONE
    q = (((_Q4 * z + _Q3) * z + _Q2) * z + _Q1) * z + _ONE
    return x * p / q
