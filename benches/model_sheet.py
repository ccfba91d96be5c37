#!/usr/bin/env python3
"""The pictures of models/README.md: model_sheet.py PAIRS.jsonl MAPS --out FOLDER [--threshold 0.5] [--min-area 6]

Writes hits.png (the first pairs whose every defect is found, with nothing else) and misses.png (the pairs with the most missed defects
and false alarms that registration did not refuse), four each: template, frame, frame with truth (green) and found (red). PAIRS as `ssds-train simulate` writes them, MAPS
as `ssds inspect --pairs PAIRS --maps MAPS` does. Needs numpy, scipy, Pillow.
"""
import argparse
import json
import pathlib

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE, GAP, SHOWN = 160, 4, 4


def regions(mask, least):
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    return [labels == i for i in range(1, n + 1) if sizes[i] >= least]


def triptych(template, frame, truth, found):
    small = lambda picture, how: np.array(Image.fromarray(picture).resize((SIDE, SIDE), how))
    template, frame = small(template, Image.LANCZOS), small(frame, Image.LANCZOS)
    marked = np.repeat(frame[..., None], 3, axis=2)
    for mask, colour, around in ((truth, (40, 220, 60), 2), (found, (240, 50, 40), 1)):
        mask = small(mask.astype(np.uint8) * 255, Image.BOX) > 0
        inner, outer = (ndimage.binary_dilation(mask, iterations=n) if n else mask for n in (around - 1, around))
        marked[outer & ~inner] = colour
    parts = [np.repeat(template[..., None], 3, axis=2), np.repeat(frame[..., None], 3, axis=2), marked]
    return np.concatenate(parts, axis=1)


def sheet(rows, path):
    width = 3 * SIDE
    out = np.full((GAP + 2 * (SIDE + GAP), 3 * GAP + 2 * width, 3), 90, np.uint8)
    for i, row in enumerate(rows):
        y, x = GAP + i // 2 * (SIDE + GAP), GAP + i % 2 * (width + GAP)
        out[y : y + SIDE, x : x + width] = row
    Image.fromarray(out).quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=pathlib.Path)
    parser.add_argument("maps", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--min-area", type=int, default=6)
    args = parser.parse_args()
    good, bad, refused = [], [], 0
    for line in args.pairs.read_text().splitlines():
        pair = json.loads(line)
        grey = lambda name: np.asarray(Image.open(args.pairs.parent / name).convert("L"))
        template, frame, mask = grey(pair["template"]), grey(pair["image"]), grey(pair["mask"])
        truth, seen = mask > 191, (mask < 64) | (mask > 191)  # between: not covered by the template
        scores = np.asarray(Image.open(args.maps / f"{pair['pair']}.png")) / 65535
        wanted, got = regions(truth, 1), regions((scores >= args.threshold) & seen, args.min_area)
        found = np.any(got, axis=0) if got else np.zeros_like(truth)
        missed, false = sum(not (w & found).any() for w in wanted), sum(not (g & truth).any() for g in got)
        picture = (missed + false, triptych(template, frame, truth, found))
        if not scores.any():
            refused += 1
        elif missed + false:
            bad.append(picture)
        elif wanted:
            good.append(picture)
    bad.sort(key=lambda p: -p[0])
    sheet([p for _, p in good[:SHOWN]], args.out / "hits.png")
    sheet([p for _, p in bad[:SHOWN]], args.out / "misses.png")
    print(f"{len(good)} pairs all found and nothing else, {len(bad)} with misses or false alarms, {refused} refused by registration")


if __name__ == "__main__":
    main()
