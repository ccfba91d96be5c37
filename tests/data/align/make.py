#!/usr/bin/env python3
"""Made the pairs in this folder: 40 procedural boards of 128 px (no outside picture in any of them) with the true pose of each.

usage: make.py ../../../../shared/bench      (the folder of make_align_bench.py; needs numpy, scipy, Pillow)

pairs.jsonl: a line a pair; "matrix" maps template to frame pixels, null where template and frame show different boards.
24 pairs of the generator's level "std", 8 of "hard", 8 that do not match.
"""
import glob
import os
import shutil
import sys
import tempfile

sys.path.insert(0, sys.argv[1])
import make_align_bench as bench
from PIL import Image

here = os.path.dirname(os.path.abspath(__file__))
shift = bench.T
bench.SETS = {
    "std": ("proc", 128, 24, "crop", (0, 360), shift, (0.8, 1.2), "std", True),
    "hard": ("proc", 128, 8, "crop", (0, 360), shift, (0.8, 1.2), "hard", True),
    "other": ("proc", 128, 8, "crop", (0, 360), shift, (0.8, 1.2), "std", False),
}
bench.Photo = lambda root: (_ for _ in ()).throw(SystemExit("no photographs"))
with tempfile.TemporaryDirectory() as out:
    sys.argv = ["make_align_bench.py", out, "--seed", "2026"]
    bench.main()
    for old in glob.glob(os.path.join(here, "*.png")):
        os.remove(old)
    with open(os.path.join(out, "pairs.jsonl")) as source, open(os.path.join(here, "pairs.jsonl"), "w") as manifest:
        for line in source:
            manifest.write(line.replace("/00", "_"))
    for path in glob.glob(os.path.join(out, "*", "*.png")):
        folder, name = path.split(os.sep)[-2:]
        Image.open(path).save(os.path.join(here, f"{folder}_{name[2:]}"), optimize=True)
