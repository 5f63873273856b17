"""exp, sigmoid and tanh in float32 as explicit products and sums: the same bits on every CPU, and in vectors.

A maths library answers differently from version to version and from CPU to CPU, and its calls stand in the way of
vectors. Every operation here is one IEEE float32 operation, rounded once; nothing is contracted or reordered.

Largest error over every float32, in ulp of the true value (`tests/models/test_activations.py` looks at a sample):
exp 1.0 (x >= -87), sigmoid 2.4 below 0 (x >= -87) and 1.2 above, tanh 1.5. NaN stays NaN: no comparison with it is
true, so that no clamp takes it. Near 1 both are 1 minus something small, half an ulp off: a forget gate multiplies
the same cell state thousands of times. With 1 / (1 + exp(-x)), and tanh as a quotient of polynomials (6.5 ulp), the
champion was up to 2.5e-4 off the float64 answer within 100,000 real steps; so it is 1.7e-5, and onnxruntime 9.0e-5.

Source: coefficients are minimax fits (iteratively reweighted least squares) of (exp(r) - 1 - r) / r^2 on
|r| <= ln(2) / 2, and of (tanh(x) / x - 1) / x^2 on |x| <= 0.63. The reduction of exp's argument is that of Cody and
Waite, 1980: ln(2) in two parts, of which the first times a whole number is exact.
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

_SMALL: Final = np.float32(0.625)  # below it a polynomial, as 1 - exp(-2x) cancels there
_T0: Final = np.float32(-0.33333278)
_T1: Final = np.float32(0.13331331)
_T2: Final = np.float32(-0.053730007)
_T3: Final = np.float32(0.020606177)
_T4: Final = np.float32(-0.0056669777)
_TWO: Final = np.float32(2.0)


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
    below = e / (_ONE + e)
    return _ONE - below if x >= _ZERO else below


@inlined
def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent of one float32."""
    size = abs(x)
    e = exp_of_negative(-_TWO * size)
    large = _ONE - _TWO * e / (_ONE + e)
    z = x * x
    small = ((((_T4 * z + _T3) * z + _T2) * z + _T1) * z + _T0) * z * x + x
    large = -large if x < _ZERO else large
    return small if size < _SMALL else large
