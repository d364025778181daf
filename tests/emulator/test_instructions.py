"""One instruction at a time, on the numbers where mistakes hide: PTX text against NumPy or exact arithmetic."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from kdsl.emulator import Emulator
from kdsl.errors import EmulatorError
from tests.emulator.kernels import text

DTYPES = {
    **{f"{k}{8 * n}": np.dtype(f"{'i' if k == 's' else 'u'}{n}") for k in "su" for n in (1, 2, 4, 8)},
    **{f"b{8 * n}": np.dtype(f"u{n}") for n in (1, 2, 4, 8)},
    **{"f16": np.dtype("f2"), "f32": np.dtype("f4"), "f64": np.dtype("f8"), "pred": np.dtype("u4"), "bf16": np.dtype("u2")},
}
REGISTER = {1: "%h", 2: "%h", 4: "%r", 8: "%d"}


def register(kind, i):
    if kind in ("f32", "f64"):
        return f"%{'f' if kind == 'f32' else 'g'}{i}"
    return f"{REGISTER[DTYPES[kind].itemsize]}{i}"


def apply(instruction, to, kinds, *inputs, suffix=""):
    """`instruction to, inputs…` by one thread for each element."""
    inputs = [np.ascontiguousarray(x, DTYPES[k]) for x, k in zip(np.broadcast_arrays(*inputs), kinds)]
    n = inputs[0].size
    gpu = Emulator()
    buffers = [gpu.put(x) for x in inputs]
    out = gpu.room(n * DTYPES[to].itemsize)
    lines = ["mov.u32 %r90, %tid.x;"]
    for i, (b, kind) in enumerate(zip([*buffers, out], [*kinds, to])):
        lines += [f"mad.wide.u32 %d{40 + i}, %r90, {DTYPES[kind].itemsize}, {b.address};"]
    for i, kind in enumerate(kinds):
        lines.append(f"ld.global.{kind if kind != 'bf16' else 'b16'} {register(kind, i + 1)}, [%d{40 + i}];")
    operands = ", ".join(register(k, i + 1) for i, k in enumerate(kinds))
    target = "%p1" if to == "pred" else register(to, 9)
    lines.append(f"{instruction} {target}, {operands}{suffix};")
    if to == "pred":
        lines.append(f"selp.u32 {register(to, 9)}, 1, 0, %p1;")
    store = {"pred": "u32", "bf16": "b16"}.get(to, to)
    lines.append(f"st.global.{store} [%d{40 + len(kinds)}], {register(to, 9)};")
    gpu.load(text("\n".join(lines)))
    gpu.launch("k", 1, n)
    return gpu.read(out, DTYPES[to], (n,))


def integers(kind, seed=0, n=160):
    info = np.iinfo(DTYPES[kind])
    x = np.random.default_rng(seed).integers(info.min, info.max, n, DTYPES[kind], endpoint=True)
    x[: n // 4] = np.random.default_rng(seed + 9).integers(0, 60, n // 4).astype(x.dtype)
    x[n // 4 : n // 4 + 4] = info.min, info.max, 0, 1
    return x


def reals(dtype, seed=0, n=240):
    random = np.random.default_rng(seed)
    x = random.standard_normal(n) * 10.0 ** random.integers(-6, 6, n)
    x[:8] = 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, 2.5, -2.5
    return x.astype(dtype)


WORDS = ["s16", "u16", "s32", "u32", "s64", "u64"]


@pytest.mark.parametrize("kind", WORDS)
def test_integer_arithmetic(kind):
    x, y = integers(kind), integers(kind, 1)
    exact = [(int(a), int(b)) for a, b in zip(x, y)]
    bits = 8 * x.itemsize

    def wrapped(values):
        return np.array([v & ((1 << bits) - 1) for v in values], f"u{x.itemsize}").view(x.dtype)

    def check(instruction, function):
        np.testing.assert_array_equal(apply(instruction, kind, [kind, kind], x, y), wrapped(function(a, b) for a, b in exact))

    def quotient(a, b):
        return -1 if b == 0 else (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)

    check(f"add.{kind}", lambda a, b: a + b)
    check(f"sub.{kind}", lambda a, b: a - b)
    check(f"mul.lo.{kind}", lambda a, b: a * b)
    check(f"mul.hi.{kind}", lambda a, b: (a * b) >> bits)
    check(f"div.{kind}", quotient)
    check(f"rem.{kind}", lambda a, b: a - quotient(a, b) * b if b else a)
    check(f"min.{kind}", min)
    check(f"max.{kind}", max)
    if bits < 64:
        wide = f"{kind[0]}{2 * bits}"
        got = apply(f"mul.wide.{kind}", wide, [kind, kind], x, y)
        np.testing.assert_array_equal(got, np.array([a * b for a, b in exact], DTYPES[wide]))


@pytest.mark.parametrize("right", ["s32", "u32"])
@pytest.mark.parametrize("left", ["s32", "u32"])
@pytest.mark.parametrize("name", ["dp4a", "dp2a.lo", "dp2a.hi"])
def test_dots_of_bytes(name, left, right):
    """dp2a multiplies two halves by the lower or upper two bytes of its second operand."""
    x, y, c = (integers("u32", seed) for seed in range(3))
    each, first = (1, 0) if name == "dp4a" else (2, 2 * name.endswith("hi"))
    a = x.view(f"{'i' if left == 's32' else 'u'}{each}").reshape(len(x), -1)
    b = y.view(f"{'i' if right == 's32' else 'u'}1").reshape(len(y), -1)[:, first : first + 4 // each]
    want = [(int(z) + sum(int(p) * int(q) for p, q in zip(m, n))) & 0xFFFFFFFF for m, n, z in zip(a, b, c)]
    np.testing.assert_array_equal(apply(f"{name}.{left}.{right}", "b32", ["b32"] * 3, x, y, c), np.array(want, "u4"))


@pytest.mark.parametrize("kind", ["b16", "s16", "b32", "s32", "u32", "b64", "s64"])
def test_shifts_beyond_the_width(kind):
    x = integers(kind.replace("b", "u"))
    by = (np.arange(x.size) % 80).astype("u4")
    bits = 8 * x.itemsize
    if kind[0] == "b":
        want = [(int(a) << int(n)) & ((1 << bits) - 1) for a, n in zip(x, by)]
        np.testing.assert_array_equal(apply(f"shl.{kind}", kind, [kind, "u32"], x, by), np.array(want, DTYPES[kind]))
    want = [int(a) >> int(n) for a, n in zip(x, by)]
    np.testing.assert_array_equal(apply(f"shr.{kind}", kind, [kind, "u32"], x, by), np.array(want, DTYPES[kind]))


@pytest.mark.parametrize("kind", ["b32", "b64"])
def test_bits(kind):
    x = integers(kind.replace("b", "u"))
    bits = 8 * x.itemsize
    as_text = [f"{int(a):0{bits}b}" for a in x]
    np.testing.assert_array_equal(apply(f"popc.{kind}", "u32", [kind], x), [t.count("1") for t in as_text])
    np.testing.assert_array_equal(apply(f"clz.{kind}", "u32", [kind], x), [len(t) - len(t.lstrip("0")) for t in as_text])
    reverse = np.array([int(t[::-1], 2) for t in as_text], DTYPES[kind])
    np.testing.assert_array_equal(apply(f"brev.{kind}", kind, [kind], x), reverse)
    found = [0xFFFFFFFF if a == 0 else int(a).bit_length() - 1 for a in x]
    np.testing.assert_array_equal(apply(f"bfind.u{bits}", "u32", [kind], x), found)


def test_fields():
    x, y = integers("u32"), integers("u32", 1)
    start, length = (np.arange(160) % 37).astype("u4"), (np.arange(160) // 3 % 35).astype("u4")
    want = [(int(a) >> min(int(s), 32)) & ((1 << min(int(n), 32)) - 1) for a, s, n in zip(x, start, length)]
    np.testing.assert_array_equal(apply("bfe.u32", "u32", ["u32"] * 3, x, start, length), want)
    signed = []
    for a, s, n in zip(x.view("i4"), start, length):
        s, n = int(s), int(n)
        value = (int(a) >> s) & ((1 << n) - 1)
        sign = 0 if n == 0 else (int(a) >> min(s + n - 1, 31)) & 1
        signed.append(value | -sign << n if s + n <= 32 else int(a) >> min(s, 31) if n else 0)
    np.testing.assert_array_equal(apply("bfe.s32", "s32", ["s32", "u32", "u32"], x.view("i4"), start, length), signed)
    insert = []
    for a, b, s, n in zip(x, y, start, length):
        mask = (((1 << min(int(n), 32)) - 1) << int(s)) & 0xFFFFFFFF
        insert.append((int(b) & ~mask) | (int(a) << int(s) & mask))
    np.testing.assert_array_equal(apply("bfi.b32", "b32", ["b32", "b32", "u32", "u32"], x, y, start, length), insert)


def test_permutations_of_bytes_and_funnel_shifts():
    x, y, c = (integers("u32", i) for i in range(3))
    want = []
    for a, b, pick in zip(x, y, c):
        raw = [*int(a).to_bytes(4, "little"), *int(b).to_bytes(4, "little")]
        out = 0
        for i in range(4):
            p = int(pick) >> 4 * i & 15
            byte = raw[p & 7]
            out |= ((0xFF if byte & 128 else 0) if p & 8 else byte) << 8 * i
        want.append(out)
    np.testing.assert_array_equal(apply("prmt.b32", "b32", ["b32"] * 3, x, y, c), want)
    n = (np.arange(160) % 40).astype("u4")
    both = [int(b) << 32 | int(a) for a, b in zip(x, y)]
    left = [(v << (int(k) & 31) >> 32) & 0xFFFFFFFF for v, k in zip(both, n)]
    right = [(v >> min(int(k), 32)) & 0xFFFFFFFF for v, k in zip(both, n)]
    np.testing.assert_array_equal(apply("shf.l.wrap.b32", "b32", ["b32", "b32", "u32"], x, y, n), left)
    np.testing.assert_array_equal(apply("shf.r.clamp.b32", "b32", ["b32", "b32", "u32"], x, y, n), right)
    for table in (0x96, 0xE8, 0x01):
        three = [(int(p), int(q), int(r)) for p, q, r in zip(x, y, c)]
        rows = [[4 * (p >> i & 1) + 2 * (q >> i & 1) + (r >> i & 1) for i in range(32)] for p, q, r in three]
        want = [sum((table >> row & 1) << i for i, row in enumerate(each)) for each in rows]
        np.testing.assert_array_equal(apply("lop3.b32", "b32", ["b32"] * 3, x, y, c, suffix=f", {table}"), want)


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne", "ltu", "leu", "gtu", "geu", "equ", "neu", "num", "nan"])
def test_comparisons_with_nan(name, kind):
    x = reals(DTYPES[kind])
    y = np.roll(x, 1)
    nan = np.isnan(x) | np.isnan(y)
    plain = {"lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y, "eq": x == y, "ne": (x != y) & ~nan}
    want = {"num": ~nan, "nan": nan}.get(name)
    if want is None:
        want = plain[name[:2]] | (nan if name.endswith("u") else False)
    np.testing.assert_array_equal(apply(f"setp.{name}.{kind}", "pred", [kind, kind], x, y), want)


@pytest.mark.parametrize("kind", ["f16", "f32", "f64"])
def test_real_arithmetic(kind):
    x = reals(DTYPES[kind])
    y = np.roll(x, 1)
    wide = np.float64 if kind != "f64" else np.longdouble
    a, b = x.astype(wide), y.astype(wide)
    with np.errstate(all="ignore"):
        for name, want in (("add.rn", a + b), ("sub.rn", a - b), ("mul.rn", a * b)):
            np.testing.assert_array_equal(apply(f"{name}.{kind}", kind, [kind, kind], x, y), want.astype(x.dtype))
        if kind != "f16":
            np.testing.assert_array_equal(apply(f"div.rn.{kind}", kind, [kind, kind], x, y), x / y)
            np.testing.assert_array_equal(apply(f"sqrt.rn.{kind}", kind, [kind], x), np.sqrt(x))
        np.testing.assert_array_equal(apply(f"min.{kind}", kind, [kind, kind], x, y), np.fmin(x, y))
        if kind != "f64":
            np.testing.assert_array_equal(apply(f"max.NaN.{kind}", kind, [kind, kind], x, y), np.maximum(x, y))


def test_extremes_of_zeros():
    x, y = np.array([0.0, -0.0]), np.array([-0.0, 0.0])
    for kind in ("f32", "f64"):
        assert np.signbit(apply(f"min.{kind}", kind, [kind, kind], x, y)).all()
        assert not np.signbit(apply(f"max.{kind}", kind, [kind, kind], x, y)).any()


def nearest_f32(value):
    """A fraction as the nearest f32, ties to even."""
    near = np.float32(float(value))
    around = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    return min(around, key=lambda v: (abs(Fraction(float(v)) - value), int(v.view("u4")) & 1))


def test_fma_is_rounded_once():
    random = np.random.default_rng(0)
    x, y = ((1 + random.integers(0, 1 << 12, 250) * 2.0**-12).astype("f4") for _ in range(2))
    z = (random.choice([-1, 1], 250) * 2.0 ** random.integers(-60, -20, 250)).astype("f4")
    want = [nearest_f32(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))) for a, b, c in zip(x, y, z)]
    np.testing.assert_array_equal(apply("fma.rn.f32", "f32", ["f32"] * 3, x, y, z), np.array(want, "f4"))
    x, y, z = (random.standard_normal(250) for _ in range(3))
    z[:100] = -(x * y)[:100]
    z[100:150] = -(x * y)[100:150] * (1 + 2.0**-52)
    x[150:170], y[150:170] = x[150:170] * 1e-200, y[150:170] * 1e-120
    z[150:170] *= 1e-310
    x[170:180], z[170:180] = x[170:180] * 1e300, z[170:180] * 1e290
    want = [float(Fraction(a) * Fraction(b) + Fraction(c)) for a, b, c in zip(x, y, z)]
    np.testing.assert_array_equal(apply("fma.rn.f64", "f64", ["f64"] * 3, x, y, z), want)


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
def test_directed_rounding(mode):
    random = np.random.default_rng(1)
    x, y, z = ((random.standard_normal(250) * 10.0 ** random.integers(-4, 4, 250)).astype("f4") for _ in range(3))

    def rounded(value):
        near = nearest_f32(value)
        exact = Fraction(float(near))
        down = near if exact <= value else np.nextafter(near, np.float32(-np.inf))
        up = near if exact >= value else np.nextafter(near, np.float32(np.inf))
        return {"rm": down, "rp": up, "rz": down if value > 0 else up}[mode]

    f = [[Fraction(float(v)) for v in a] for a in (x, y, z)]
    for name, function in (("add", lambda a, b, c: a + b), ("mul", lambda a, b, c: a * b)):
        got = apply(f"{name}.{mode}.f32", "f32", ["f32"] * 2, x, y)
        np.testing.assert_array_equal(got, np.array([rounded(function(*v)) for v in zip(*f)], "f4"))
    got = apply(f"fma.{mode}.f32", "f32", ["f32"] * 3, x, y, z)
    np.testing.assert_array_equal(got, np.array([rounded(a * b + c) for a, b, c in zip(*f)], "f4"))


@pytest.mark.parametrize(
    ("name", "function"),
    [("ex2", np.exp2), ("lg2", np.log2), ("sin", np.sin), ("cos", np.cos), ("tanh", np.tanh), ("sqrt", np.sqrt),
     ("rcp", np.reciprocal), ("rsqrt", lambda x: 1 / np.sqrt(x))],
)  # fmt: skip
def test_approximations(name, function):
    x = reals("f4")
    with np.errstate(all="ignore"):
        want = function(x.astype("f8")).astype("f4")
        np.testing.assert_array_equal(apply(f"{name}.approx.f32", "f32", ["f32"], x), want)
        flushed = np.where(abs(x) < 2**-126, np.copysign(np.float32(0), x), x)
        want = function(flushed.astype("f8")).astype("f4")
        if name not in ("tanh",):
            got = apply(f"{name}.approx.ftz.f32", "f32", ["f32"], x)
            np.testing.assert_array_equal(got, np.where(abs(want) < 2**-126, np.copysign(np.float32(0), want), want))


FLOATS = ["f16", "f32", "f64"]


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("to", ["s8", "u8", *WORDS])
def test_real_to_integer(to, source):
    x = np.concatenate([reals("f8"), [1e30, -1e30, 127.5, 128.5, -128.5, 255.4, 65535.6, 2.0**31, 2.0**63, -(2.0**63)]])
    with np.errstate(all="ignore"):
        x = x.astype(DTYPES[source])
    info = np.iinfo(DTYPES[to])
    for mode, rounding in (("rni", round), ("rzi", int), ("rmi", np.floor), ("rpi", np.ceil)):
        want = []
        for v in x.astype("f8"):
            if np.isnan(v):
                bit = 1 << (info.bits - 1)
                want.append((bit if info.min == 0 else -bit) if source == "f64" or info.bits == 64 else 0)
            elif np.isinf(v):
                want.append(info.max if v > 0 else info.min)
            else:
                want.append(min(max(int(rounding(float(v))), info.min), info.max))
        got = apply(f"cvt.{mode}.{to}.{source}", to, [source], x)
        np.testing.assert_array_equal(got, np.array(want, DTYPES[to]))


@pytest.mark.parametrize("to", FLOATS)
@pytest.mark.parametrize("source", ["s8", "u8", *WORDS])
def test_integer_to_real(source, to):
    x = integers(source)
    with np.errstate(over="ignore"):
        want = x.astype("f8").astype("f2") if to == "f16" else x.astype(DTYPES[to])
    np.testing.assert_array_equal(apply(f"cvt.rn.{to}.{source}", to, [source], x), want)


@pytest.mark.parametrize("to", ["s8", "u8", *WORDS])
@pytest.mark.parametrize("source", WORDS)
def test_integer_to_integer(source, to):
    x = integers(source)
    np.testing.assert_array_equal(apply(f"cvt.{to}.{source}", to, [source], x), x.astype(DTYPES[to]))
    info = np.iinfo(DTYPES[to])
    want = np.array([min(max(int(v), int(info.min)), int(info.max)) for v in x], DTYPES[to])
    np.testing.assert_array_equal(apply(f"cvt.sat.{to}.{source}", to, [source], x), want)


def test_real_to_real():
    x = reals("f8")
    with np.errstate(all="ignore"):
        single = x.astype("f4")
        np.testing.assert_array_equal(apply("cvt.rn.f32.f64", "f32", ["f64"], x), single)
        np.testing.assert_array_equal(apply("cvt.f64.f32", "f64", ["f32"], single), single.astype("f8"))
        np.testing.assert_array_equal(apply("cvt.rn.f16.f32", "f16", ["f32"], single), single.astype("f2"))
        np.testing.assert_array_equal(apply("cvt.f32.f16", "f32", ["f16"], single.astype("f2")), single.astype("f2").astype("f4"))
        np.testing.assert_array_equal(apply("cvt.rzi.f32.f32", "f32", ["f32"], single), np.trunc(single))
        half = single.astype(ml_dtypes.bfloat16)
        got = apply("cvt.rn.bf16.f32", "bf16", ["f32"], single).view(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(got.astype("f4"), half.astype("f4"))
        pair = apply("cvt.rn.bf16x2.f32", "b32", ["f32", "f32"], single, np.roll(single, 1)).view(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(pair[1::2].astype("f4"), half.astype("f4"))
        np.testing.assert_array_equal(pair[::2].astype("f4"), np.roll(half, 1).astype("f4"))
        pair = apply("cvt.rn.f16x2.f32", "b32", ["f32", "f32"], single, np.roll(single, 1)).view("f2")
        np.testing.assert_array_equal(pair[1::2], single.astype("f2"))
        sat = apply("cvt.sat.f32.f32", "f32", ["f32"], single)
        np.testing.assert_array_equal(sat, np.where(np.isnan(single), 0, np.clip(single, 0, 1)))


def test_pairs_of_halves():
    x, y = (reals("f2", i).astype("f2") for i in (0, 1))
    with np.errstate(all="ignore"):
        got = apply("fma.rn.f16x2", "b32", ["b32"] * 3, x.view("u4"), y.view("u4"), x.view("u4")).view("f2")
        wide = x.astype("f8") * y.astype("f8") + x.astype("f8")
        np.testing.assert_array_equal(got, wide.astype("f2"))
        got = apply("add.rn.f16x2", "b32", ["b32"] * 2, x.view("u4"), y.view("u4")).view("f2")
        np.testing.assert_array_equal(got, x + y)


def test_carries():
    x, y = (integers("u64", i) for i in range(2))
    low = apply("add.cc.u64 %d20, %d1, %d2; addc.u64", "u64", ["u64"] * 2, x, y)
    want = [(int(a) + int(b) + (int(a) + int(b) >> 64)) & (1 << 64) - 1 for a, b in zip(x, y)]
    np.testing.assert_array_equal(low, np.array(want, "u8"))
    borrow = apply("sub.cc.u32 %r20, %r1, %r2; subc.u32", "u32", ["u32"] * 2, x.astype("u4"), y.astype("u4"))
    a, b = x.astype("u4").astype("i8"), y.astype("u4").astype("i8")
    np.testing.assert_array_equal(borrow, ((a - b - (a < b)) & 0xFFFFFFFF).astype("u4"))


def test_an_unknown_instruction_is_named():
    gpu = Emulator(text("frobnicate.f32 %f1, %f2;"))
    with pytest.raises(EmulatorError, match=r"does not know frobnicate\.f32"):
        gpu.launch("k", 1, 32)
