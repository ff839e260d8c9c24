"""The activations of bias_act and their derivatives in Triton, to about an ulp."""

import triton
import triton.language as tl

# The numbers of csrc/bias_act.h.
LINEAR, RELU, LRELU = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
TANH, SIGMOID, ELU = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5)
SELU, SOFTPLUS, SWISH = tl.constexpr(6), tl.constexpr(7), tl.constexpr(8)
SELU_SCALE, SELU_ALPHA = tl.constexpr(1.0507009873554805), tl.constexpr(1.6732632423543772)
SOFTPLUS_THRESHOLD = tl.constexpr(20.0)


# e^x for x <= 0, to about an ulp. (tl.exp on float32 multiplies by log2(e) and loses about |x| ulps.) x = k ln 2 + r,
# and e^r - 1 is a Taylor series in |r| <= ln(2) / 2. Returns e^r - 1 and two factors, whose product is 2^k. Each factor
# is a normal number even where 2^k is not.
@triton.jit
def exp_parts(x):
    if x.dtype == tl.float64:
        x = tl.where(x > -746.0, x, -746.0)  # e^-746 rounds to 0. NaN becomes -746 here; the callers restore it
        k = tl.floor(x * 1.4426950408889634 + 0.5)
        r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10
        q = r * (1.0 / 14.0) + 1.0
        for term in tl.static_range(13, 1, -1):
            q = q * r * (1.0 / term) + 1.0
        k = k.to(tl.int64)
        half = k >> 1
        first = ((half + 1023) << 52).to(tl.float64, bitcast=True)
        second = ((k - half + 1023) << 52).to(tl.float64, bitcast=True)
    else:
        x = tl.where(x > -104.0, x, -104.0)
        k = tl.floor(x * 1.44269504 + 0.5)
        r = (x - k * 0.693145752) - k * 1.42860677e-6
        q = r * (1.0 / 8.0) + 1.0
        for term in tl.static_range(7, 1, -1):
            q = q * r * (1.0 / term) + 1.0
        k = k.to(tl.int32)
        half = k >> 1
        first = ((half + 127) << 23).to(tl.float32, bitcast=True)
        second = ((k - half + 127) << 23).to(tl.float32, bitcast=True)
    return q * r, first, second


@triton.jit
def exp(x):
    q, first, second = exp_parts(x)
    return tl.where(x == x, (q * first + first) * second, x)


@triton.jit
def expm1(x):
    q, first, second = exp_parts(x)
    scale = first * second
    return tl.where(x == x, q * scale + (scale - 1.0), x)


# log(1 + u) for u in [0, 1]. It is log(1 + f) with f = u, or ln 2 + log(1 + f) with 1 + f = (1 + u) / 2, whichever
# makes |f| < sqrt(2) - 1. The series: log(1 + f) = 2 atanh(s) = 2 s + s r for s = f / (2 + f), and r is a series in
# s^2. 2 s = f - s f keeps the digits of f.
@triton.jit
def log1p(u):
    halve = u > 0.4142135623730951
    f = tl.where(halve, (u - 1.0) * 0.5, u)
    s = divide(f, f + 2.0)
    r = tl.zeros_like(s)
    if u.dtype == tl.float64:
        for k in tl.static_range(23, 1, -2):
            r = (r + 2.0 / k) * (s * s)
    else:
        for k in tl.static_range(11, 1, -2):
            r = (r + 2.0 / k) * (s * s)
    square = 0.5 * f * f
    log = f - (square - s * (square + r))
    return tl.where(halve, log + 0.6931471805599453, log)


@triton.jit
def divide(a, b):
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)  # the / of float32 is an approximation


@triton.jit
def inverse_root(v):
    if v.dtype == tl.float64:
        root = tl.sqrt(v)
    else:
        root = tl.sqrt_rn(v)
    return divide(tl.full([], 1.0, v.dtype), root)


@triton.jit
def sigmoid(z):
    e = exp(-tl.abs(z))
    return divide(tl.where(z < 0, e, 1.0), e + 1.0)


# Computed from e^-2|z| - 1 where |tanh z| is below 1/2, and from e^-2|z| where it is above.
@triton.jit
def tanh(z):
    q, first, second = exp_parts(-2.0 * tl.abs(z))
    scale = first * second
    e = q * scale + (scale - 1.0)
    below = divide(-e, e + 2.0)
    positive = q * scale + scale
    above = 1.0 - divide(2.0 * positive, positive + 1.0)
    t = tl.where(e > -0.6666667, below, above)
    return tl.where(z == z, tl.where(z < 0, -t, t), z)


# min(max(v, -most), most); NaN stays NaN.
@triton.jit
def limited(v, most):
    return tl.maximum(tl.minimum(v, most, tl.PropagateNan.ALL), -most, tl.PropagateNan.ALL)


# The bits of eight neighbouring columns as a byte: [ROWS, COLS // 8].
@triton.jit
def packed(bits, ROWS: tl.constexpr, COLS: tl.constexpr):
    k = tl.arange(0, 8)[None, None, :]
    return tl.sum(tl.where(tl.reshape(bits, [ROWS, COLS // 8, 8]), 1 << k, 0), 2).to(tl.uint8)


@triton.jit
def activate(z, alpha, ACT: tl.constexpr):
    if ACT == RELU:
        t = tl.where(z < 0, 0.0, z)
    elif ACT == LRELU:
        t = tl.where(z > 0, z, alpha * z)
    elif ACT == TANH:
        t = tanh(z)
    elif ACT == SIGMOID:
        t = sigmoid(z)
    elif ACT == ELU:
        t = tl.where(z > 0, z, expm1(tl.where(z > 0, 0.0, z)))
    elif ACT == SELU:
        t = tl.where(z > 0, z * SELU_SCALE, expm1(tl.where(z > 0, 0.0, z)) * (SELU_SCALE * SELU_ALPHA))
    elif ACT == SOFTPLUS:
        t = tl.where(z > SOFTPLUS_THRESHOLD, z, tl.where(z > 0, z, 0.0) + log1p(exp(-tl.abs(z))))
    elif ACT == SWISH:
        t = z * sigmoid(z)
    else:
        t = z
    return t


# act'(z) from t = act(z).
@triton.jit
def slope_from_output(t, ACT: tl.constexpr):
    if ACT == TANH:
        m = 1.0 - t * t
    elif ACT == SIGMOID:
        m = t * (1.0 - t)
    elif ACT == ELU:
        m = tl.where(t > 0, 1.0, t + 1.0)
    elif ACT == SELU:
        m = tl.where(t > 0, SELU_SCALE, t + SELU_SCALE * SELU_ALPHA)
    else:
        m = -expm1(-t)
    return m
