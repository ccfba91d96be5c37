#!/usr/bin/env python3
"""Pairs and maps for the test of the classical comparators, computed with numpy and scipy from the definitions.

    python3 make.py        writes pairs.bin and maps.bin beside this file (numpy 2.4.6, scipy 1.17)

20 pairs of 40x28 px. pairs.bin: a pair is template, frame, valid, mean16, deviation16; u8 pictures, the last two little-endian u16
(gray value times 256). maps.bin: a pair is the maps of absdiff, ssim, variation from one picture, variation learnt; little-endian u16,
score times 65535. Nothing here is taken from the Rust code; rounding of the relit template (floor(x + 0.5), clamped) is part of the
definition.
"""
import os
import numpy as np
from scipy import ndimage

W, H, N = 40, 28, 20
here = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(20261123)


def line(t, f, valid):
    """gain, offset that give t the mean and standard deviation of f over the valid pixels"""
    t, f = t[valid].astype(np.float64), f[valid].astype(np.float64)
    if t.size == 0:
        return 1.0, 0.0
    gain = 1.0 if t.var() < 1 else np.clip(np.sqrt(f.var() / t.var()), 0.5, 2.0)
    return gain, f.mean() - gain * t.mean()


def relit(t, f, valid):
    gain, offset = line(t, f, valid)
    r = np.clip(np.floor(gain * t.astype(np.float64) + offset + 0.5), 0, 255)
    return np.where(valid, r, f).astype(np.float64)


def absdiff(t, f, k=2, gray=60.0):
    p = np.pad(t, k, mode="edge")
    d = np.min([np.abs(f - p[k + dy:k + dy + H, k + dx:k + dx + W]) for dy in range(-k, k + 1) for dx in range(-k, k + 1)], axis=0)
    return d / (d + gray)


def ssim(t, f):
    g = lambda a: ndimage.gaussian_filter(a, 1.5, mode="reflect", truncate=5 / 1.5)
    mt, mf = g(t), g(f)
    vt, vf, cov = g(t * t) - mt * mt, g(f * f) - mf * mf, g(t * f) - mt * mf
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    s = ((2 * mt * mf + c1) * (2 * cov + c2)) / ((mt ** 2 + mf ** 2 + c1) * (vt + vf + c2))
    return np.clip((1 - s) / 2, 0, 1)


def ratio(r):
    return r / (1 + r)


def variation_one(t, f, a=10.0, b=2.0):
    dx, dy = ndimage.sobel(t, axis=1, mode="nearest"), ndimage.sobel(t, axis=0, mode="nearest")
    return ratio(np.abs(f - t) / np.maximum(a, b * (np.abs(dx) + np.abs(dy)) / 4))


def variation_learnt(mean, deviation, f, valid, a=10.0, b=2.0):
    gain, offset = line(mean, f, valid)
    return ratio(np.abs(f - (gain * mean + offset)) / np.maximum(a, b * gain * deviation))


pairs, maps = bytearray(), bytearray()
for n in range(N):
    t = rng.integers(20, 60) + np.zeros((H, W))
    for _ in range(12):
        x, y = rng.integers(0, W), rng.integers(0, H)
        t[y:y + rng.integers(2, 12), x:x + rng.integers(2, 16)] = rng.integers(0, 256)
    t = ndimage.gaussian_filter(t, 0.5)
    f = ndimage.shift(t, rng.uniform(-1.2, 1.2, 2), order=1, mode="nearest") * rng.uniform(0.7, 1.3) + rng.uniform(-20, 20)
    for _ in range(rng.integers(0, 4)):
        x, y = rng.integers(0, W - 4), rng.integers(0, H - 4)
        f[y:y + rng.integers(2, 5), x:x + rng.integers(2, 5)] += rng.uniform(-120, 120)
    f = f + rng.normal(0, 3, f.shape)
    u8 = lambda a: np.clip(np.round(a), 0, 255).astype(np.uint8)
    t, f = u8(t), u8(f)
    if n == 17:
        t[:] = 90  # one gray
    valid = np.ones((H, W), bool)
    if n % 3 == 1:
        valid[:, :rng.integers(1, 9)] = False
        valid[:rng.integers(1, 5), :] = False
    if n == 18:
        valid[:] = False
    mean16 = np.clip(t * 256.0 + rng.normal(0, 200, t.shape), 0, 65535).astype(np.uint16)
    dev16 = np.abs(rng.normal(0, 1200, t.shape)).astype(np.uint16)
    pairs += t.tobytes() + f.tobytes() + (valid * 255).astype(np.uint8).tobytes() + mean16.astype("<u2").tobytes() + dev16.astype("<u2").tobytes()
    ff, tt = f.astype(np.float64), relit(t, f, valid)
    for m in (absdiff(tt, ff), ssim(tt, ff), variation_one(tt, ff), variation_learnt(mean16 / 256.0, dev16 / 256.0, ff, valid)):
        maps += np.round(np.where(valid, m, 0) * 65535).astype("<u2").tobytes()
open(os.path.join(here, "pairs.bin"), "wb").write(pairs)
open(os.path.join(here, "maps.bin"), "wb").write(maps)
