#!/usr/bin/env python3
"""functions.py - writes test/functions.txt: arguments of exp, log, sin, cos and erf with their true values, from
mpmath at 600 bits. test/functions.c reads it and measures ttmm's errors. From the root:

    python3 test/functions.py > test/functions.txt
    python3 test/functions.py erf       the polynomials of ttmm's erf, lowest power first

A line: function, argument, the double nearest to the true value, and what that leaves: (true value - double) / u, where
u is the distance from the double's magnitude to the next larger one. So an error is known to 0.00001 u. Nothing here
depends on ttmm, except that the arguments named "worst" are those at which a search found its largest errors."""
import math
import random
import struct
import sys

import mpmath

mpmath.mp.prec = 600
FUNCTIONS = {"exp": mpmath.exp, "log": mpmath.log, "sin": mpmath.sin, "cos": mpmath.cos, "erf": mpmath.erf}
LN2, HALF_PI = mpmath.log(2), mpmath.pi / 2
TINY, LARGEST = 2.0**-1074, sys.float_info.max
draw = random.Random(1)


def numbers(text):
    return [float.fromhex(word) for word in text.split()]


def from_bits(u):
    return struct.unpack("<d", struct.pack("<Q", u))[0]


def to_bits(x):
    return struct.unpack("<Q", struct.pack("<d", x))[0]


def following(x, steps=1):
    """The double `steps` further from zero (negative: nearer to it)."""
    return math.copysign(from_bits(to_bits(abs(x)) + steps), x)


def exact(x):
    return mpmath.mpf(x)


def nearest(y):
    """The double nearest to y, ties to even; mpmath's own conversion rounds subnormal numbers twice."""
    if y == 0:
        return 0.0
    exponent = max(int(mpmath.floor(mpmath.log(abs(y), 2))) - 52, -1074)
    return math.ldexp(int(mpmath.nint(mpmath.ldexp(y, -exponent))), exponent)


def true_value(name, x):
    y = FUNCTIONS[name](exact(x))
    rounded = nearest(y)
    return rounded, float((y - exact(rounded)) / exact(following(abs(rounded)) - abs(rounded)))


def around(values, steps=1):
    """The doubles around each value."""
    return [following(float(v), s) for v in values for s in range(-steps, steps + 1)]


def any_exponent(n, least, most):
    """n numbers between two positive ones, every exponent as likely as another."""
    return [from_bits(draw.randrange(to_bits(least), to_bits(most))) for _ in range(n)]


def uniform(n, least, most):
    return [draw.uniform(least, most) for _ in range(n)]


def signed(values):
    return [draw.choice((-x, x)) for x in values]


def halfway(name, arguments, n):
    """Of the arguments, those whose value is closest to the middle of two doubles."""
    mpmath.mp.prec = 160
    arguments = sorted(arguments, key=lambda x: 0.5 - abs(true_value(name, x)[1]))[:n]
    mpmath.mp.prec = 600
    return arguments


def near_multiples(n, least, most):
    """The doubles up to 2^22 that come closest to multiples k pi/2, least <= k < most. In integers, scaled by 2^200."""
    half_pi, found = int(mpmath.ldexp(HALF_PI, 200)), []
    for k in range(least, most):
        multiple = k * half_pi
        drop = multiple.bit_length() - 53
        rounded = (multiple + (1 << (drop - 1))) >> drop << drop
        found.append((abs(rounded - multiple), math.ldexp(rounded >> drop, drop - 200)))
    return [x for _, x in sorted(found)[:n]]


WORST = {
    "exp": numbers("-0x1.625f46c4c2331p+9 -0x1.626033000e3f5p+9 -0x1.2e359d09d188dp+5 0x1.94d7d4683c004p+4"),
    "log": numbers("0x1.6884723afc6e3p-1 0x1.6999858ca2e9fp-1 0x1.69d6f22874393p+0 0x1.9bb87fd837866p+0"),
    "sin": numbers("0x1.30d530c03c9d1p+11 0x1.2f6ac87343edcp+1 0x1.294ccfe0dae3bp+1 0x1.2e742b45b82bbp+1"),
    "cos": numbers("0x1.bb74cc2246c9ep+11 0x1.66c913f61319fp+15 0x1.c532f39dc9cdp+2 0x1.42263404b4cdbp+14"),
    "erf": numbers("0x1.ef7d15f85178ep-1 0x1.22074997e8878p+0"),
}
# The floats at which a double of the true value, rounded again to float, misses the nearest float (test/exhaustive.c).
MISSED = {
    "log": numbers("0x1.827a74p-7 0x1.2f1fd6p+3 0x1.bacb4ap+25 0x1.b121a6p+76 0x1.6351d8p+95"),
    "sin": numbers("0x1.33333p+13 -0x1.33333p+13"),
}


def minimax(f, weight, least, most, degree):
    """The polynomial whose largest |p - f| weight is the smallest, lowest power first: the errors of that one have
    equal size, at degree + 2 points (Remez: choose points, solve for p and size, move them to the peaks)."""
    n = degree + 2
    grid = [least + (most - least) * (1 - mpmath.cos(mpmath.pi * i / (100 * n))) / 2 for i in range(100 * n + 1)]
    points = [least + (most - least) * (1 - mpmath.cos(mpmath.pi * i / (n - 1))) / 2 for i in range(n)]
    for _ in range(12):
        rows = [[x**j for j in range(degree + 1)] + [(-1) ** i / weight(x)] for i, x in enumerate(points)]
        solved = mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix([f(x) for x in points]))
        p = [solved[j] for j in range(degree + 1)]
        errors = [(mpmath.polyval(p[::-1], x) - f(x)) * weight(x) for x in grid]
        peaks = []
        for i, e in enumerate(errors):
            if peaks and (e > 0) == (errors[peaks[-1]] > 0):
                peaks[-1] = max(peaks[-1], i, key=lambda k: abs(errors[k]))
            else:
                peaks.append(i)
        while len(peaks) > n:  # the lower one of the two at the ends
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        points = [grid[i] for i in peaks]
    return [float(c).hex() for c in p]


if sys.argv[1:] == ["erf"]:
    mpmath.mp.prec, middle = 200, mpmath.mpf(5) / 8

    def ratio(w):  # erf(x) / x, x^2 = w + 5/8
        x = mpmath.sqrt(w + middle)
        return mpmath.erf(x) / x if x else 2 / mpmath.sqrt(mpmath.pi)

    def tail(t):
        return mpmath.erfc(1 + t)

    print("p", *minimax(lambda w: ratio(w) - 1, lambda w: 1 / ratio(w), -middle, 1 - middle, 11))
    print("q", *minimax(lambda t: -mpmath.log(tail(t)), tail, mpmath.mpf(0), mpmath.mpf(5), 17))
    sys.exit()

exp_arguments = (
    # the last finite value and those before; at 2^-1074 and where it is next to 0; at 2^-1022
    [following(1024 * float(LN2), -i) for i in range(4)]
    + around([-1022 * LN2, -1074 * LN2, -1075 * LN2])
    + around([-(2.0**-54), 2.0**-53])
    + signed(any_exponent(24, TINY, 2.0**-20) + any_exponent(24, 2.0**-60, 700.0))
    + uniform(24, -708.0, 709.78)
    + uniform(16, -745.1, -708.4)  # subnormal
    + uniform(4, 709.0, 709.78)
    + around([(k + 0.5) * LN2 for k in (-1000, -2, -1, 0, 1, 2, 700)])  # where n changes
    + halfway("exp", uniform(10000, -1, 1), 8)
)
log_arguments = (
    [TINY, 2 * TINY, 3 * TINY, following(2.0**-1022, -1), 2.0**-1022, LARGEST, 2.0, 3.0, 10.0]
    + any_exponent(40, TINY, LARGEST)
    + any_exponent(12, TINY, 2.0**-1022)
    + around([1], 3)
    + [1 + sign * math.ldexp(draw.uniform(1, 2), -e) for e in range(2, 48, 3) for sign in (-1, 1)]
    + around([2.0**e * mpmath.sqrt(0.5) for e in (-1022, -1, 0, 1, 2, 1000)])  # where n changes
    + halfway("log", uniform(10000, 0.5, 2), 8)
    + halfway("log", uniform(4000, 2, 1000), 4)
)
angles = (
    [2.0**22, -(2.0**22), following(2.0**22, -1), 2.0**-26, 2.0**-27, 355.0]
    + signed(any_exponent(12, TINY, 2.0**-30) + any_exponent(24, 2.0**-30, 2.0**22))
    + uniform(12, -4, 4)
    + signed(uniform(12, 2.0**20, 2.0**22))
    + signed(near_multiples(12, 1, int(2.0**22 / HALF_PI)))
    + signed(near_multiples(6, 10**6, int(2.0**22 / HALF_PI)))
    + around([(k + mpmath.mpf(0.5)) * HALF_PI for k in (-1, 0, 1, 2, 3, 1000, 2670175)])  # where n changes
)
ARGUMENTS = {
    "exp": exp_arguments + WORST["exp"],
    "log": log_arguments + WORST["log"] + MISSED["log"],
    "sin": angles + halfway("sin", uniform(6000, 0, 10), 6) + signed(WORST["sin"]) + MISSED["sin"],
    "cos": angles + halfway("cos", uniform(6000, 0, 10), 6) + signed(WORST["cos"]),
    # where the formula changes; where it becomes 1
    "erf": around([1, 6, 5.863584748755168], 2)
    + signed(any_exponent(40, TINY, 6.0) + uniform(40, 0, 6) + uniform(20, 0.75, 1.25) + WORST["erf"])
    + halfway("erf", uniform(6000, 0, 3), 8),
}

for name, arguments in ARGUMENTS.items():
    for x in dict.fromkeys(arguments):
        rounded, rest = true_value(name, x)
        print(name, x.hex(), rounded.hex(), f"{rest:+.5f}")
