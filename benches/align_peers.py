#!/usr/bin/env python3
"""Registration beside its peers: the same pairs with known truth, one run on one machine, processor time of one thread.

usage: align_peers.py --ssds target/release/ssds --bench ../shared/bench --deeppcb ../shared/data/deeppcb/PCBData --work DIR
                      [--seed 11] [--quick] [--page docs/bench/align.md] [--json OUT]

Pairs come from the generator in --bench (made once for each seed, below --work). Peers, all of OpenCV with one thread:
  FM            Hann window, |DFT| with high-pass, warpPolar (log), phaseCorrelate, both half turns, phaseCorrelate for the shift
  FM + ECC-MS   the same, then findTransformECCMultiScale (affine)
  SIFT, AKAZE   brute-force matches, ratio test 0.8, estimateAffinePartial2D (RANSAC, 2 px)
What depends on the template alone is prepared beforehand and not timed, for us and for the peers. Each call is made once to warm up and
then --repeat times; the fastest counts, by the thread's own processor time (other work on the machine hardly moves it).
Error: largest distance of the template's four outer corners from where the truth puts them, frame px.
With --page the tables are written between the page's two markers. Needs numpy, scipy, Pillow, scikit-image (for its photographs)
and opencv-python-headless 4.13 or 4.14 (5 has no AKAZE).
"""
import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import cv2
import numpy as np

cv2.setNumThreads(1)

# Set of the generator, share of its pairs, timed calls of each pair, whether the peers run on it.
SETS = [
    ("pcb256_360", 1.0, 3, True),
    ("proc256_360", 1.0, 3, True),
    ("photo256_360", 0.6, 3, False),
    ("pcb256_fill", 1.0, 3, False),
    ("pcb256_small", 0.6, 3, False),
    ("pcb256_hard", 1.0, 3, True),
    ("pcb640_360", 0.75, 2, True),
    ("proc640_360", 0.5, 2, False),
    ("pcb1024_360", 0.6, 2, True),
    ("proc1024_360", 0.5, 2, False),
    ("pcb2048_360", 0.75, 1, True),
    ("proc2048_360", 0.5, 1, False),
    ("neg256_pcb", 1.0, 1, False),
    ("neg256_mixed", 1.0, 1, False),
    ("neg256_blank", 1.0, 1, False),
]
STD256 = ("pcb256_360", "proc256_360", "photo256_360", "pcb256_fill", "pcb256_small")
LARGE = ("pcb640_360", "proc640_360", "pcb1024_360", "proc1024_360", "pcb2048_360", "proc2048_360")
NEGATIVE = ("neg256_pcb", "neg256_mixed", "neg256_blank")
BEGIN, END = "<!-- tables: make bench-align -->", "<!-- end of tables -->"


def about_centres(rotation, scale, shift, n):
    """Similarity of n x n pictures: turn and scale about the centres, then shift; maps template to frame pixels."""
    c = (n - 1) / 2.0
    r = scale * np.array([[math.cos(rotation), -math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]])
    return np.column_stack([r, np.array([c, c]) + shift - r @ [c, c]])


class FourierMellin:
    """The usual OpenCV recipe; `refine` adds the multi-scale ECC."""

    def __init__(self, template, refine):
        self.n = n = template.shape[0]
        self.template, self.refine = template, refine
        self.window = cv2.createHanningWindow((n, n), cv2.CV_32F)
        f = np.fft.fftshift(np.fft.fftfreq(n))
        x = np.outer(np.cos(np.pi * f), np.cos(np.pi * f))
        self.high_pass = ((1 - x) * (2 - x)).astype(np.float32)
        self.angles, self.radii = max(n, 256), n
        self.log_window = np.tile(np.hanning(self.radii).astype(np.float32), (self.angles // 2, 1))
        self.float_template = template.astype(np.float32)
        self.log_polar_template = self.log_polar(self.float_template)

    def log_polar(self, picture):
        n = self.n
        spectrum = cv2.dft((picture - picture.mean()) * self.window, flags=cv2.DFT_COMPLEX_OUTPUT)
        magnitude = np.log1p(np.fft.fftshift(cv2.magnitude(spectrum[..., 0], spectrum[..., 1])) * self.high_pass)
        polar = cv2.warpPolar(magnitude, (self.radii, self.angles), (n / 2, n / 2), n / 2, cv2.WARP_POLAR_LOG | cv2.INTER_LINEAR)
        half = np.ascontiguousarray(polar[: self.angles // 2])
        return half - half.mean()

    def __call__(self, frame):
        n, picture = self.n, frame.astype(np.float32)
        (dx, dy), _ = cv2.phaseCorrelate(self.log_polar_template, self.log_polar(picture), self.log_window)
        rotation, scale = dy * 2 * math.pi / self.angles, math.exp(-dx * math.log(n / 2) / self.radii)
        if not 0.3 < scale < 3:
            return None
        best = None
        for turn in (rotation, rotation + math.pi):
            m = about_centres(turn, scale, [0, 0], n)
            back = cv2.warpAffine(picture, m, (n, n), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101)
            shift, response = cv2.phaseCorrelate(self.float_template, back, self.window)
            if best is None or response > best[0]:
                best = (response, np.column_stack([m[:, :2], m[:, 2] + m[:, :2] @ np.array(shift)]))
        m = best[1]
        if self.refine:
            parameters = cv2.ECCParameters()
            parameters.motionType = cv2.MOTION_AFFINE
            try:
                _, warp = cv2.findTransformECCMultiScale(self.template, frame, m.astype(np.float32), parameters)
                m = warp.astype(float)
            except cv2.error:
                pass  # it did not converge: the start stands
        return m


class Features:
    """Key points, brute-force matches, RANSAC."""

    def __init__(self, template, kind):
        self.detector = cv2.SIFT_create(2000) if kind == "sift" else cv2.AKAZE_create()
        self.matcher = cv2.BFMatcher(cv2.NORM_L2 if kind == "sift" else cv2.NORM_HAMMING)
        self.points, self.descriptors = self.detector.detectAndCompute(template, None)

    def __call__(self, frame):
        points, descriptors = self.detector.detectAndCompute(frame, None)
        if descriptors is None or self.descriptors is None or min(len(points), len(self.points)) < 4:
            return None
        pairs = [p for p in self.matcher.knnMatch(self.descriptors, descriptors, 2) if len(p) == 2]
        good = [p[0] for p in pairs if p[0].distance < 0.8 * p[1].distance]
        if len(good) < 4:
            return None
        a = np.float32([self.points[m.queryIdx].pt for m in good])
        b = np.float32([points[m.trainIdx].pt for m in good])
        return cv2.estimateAffinePartial2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=2.0, maxIters=5000, confidence=0.999)[0]


PEERS = {
    "FM": lambda t: FourierMellin(t, False),
    "FM + ECC-MS": lambda t: FourierMellin(t, True),
    "SIFT": lambda t: Features(t, "sift"),
    "AKAZE": lambda t: Features(t, "akaze"),
}


def corner_error(m, truth, size):
    w, h = size
    corners = [(-0.5, -0.5), (w - 0.5, -0.5), (w - 0.5, h - 0.5), (-0.5, h - 0.5)]
    d = np.asarray(m, float) - np.asarray(truth, float)
    return max(math.hypot(*(d @ [x, y, 1.0])) for x, y in corners)


def run_peer(method, pairs, folder, repeat):
    out = {}
    for p in pairs:
        t, f = (cv2.imread(os.path.join(folder, p[k]), cv2.IMREAD_GRAYSCALE) for k in ("template", "image"))
        aligner, best = PEERS[method](t), math.inf
        for k in range(repeat + 1):
            start = time.thread_time()
            m = aligner(f)
            took = (time.thread_time() - start) * 1e3
            if k > 0:
                best = min(best, took)
        ok = m is not None and np.all(np.isfinite(m))
        out[p["pair"]] = {"matrix": m if ok else None, "ms": best}
    return out


def run_ours(args, folder, pairs, repeat, extra=()):
    manifest, results = os.path.join(folder, "set.jsonl"), os.path.join(folder, "results.jsonl")
    with open(manifest, "w") as f:
        f.writelines(json.dumps(p) + "\n" for p in pairs)
    # One timed call means two calls: the first is the warm-up.
    command = [args.ssds, "align", "--pairs", manifest, "--out", results, "--repeat", str(max(repeat, 2)), *extra]
    subprocess.run(command, check=True)
    with open(results) as f:
        return {r["pair"]: r for r in map(json.loads, f)}


def summary(pairs, answers):
    errors = [corner_error(answers[p["pair"]]["matrix"], p["matrix"], p["size"]) for p in pairs
              if p["match"] and answers[p["pair"]]["matrix"] is not None]
    right, n = [e for e in errors if e < 3], len(pairs)
    times = [answers[p["pair"]]["ms"] for p in pairs]
    return {
        "pairs": n,
        "answered": sum(answers[p["pair"]]["matrix"] is not None for p in pairs),
        "wrong": len(errors) - len(right),
        "under_1px": sum(e < 1 for e in errors) / n,
        "under_0.1px": sum(e < 0.1 for e in errors) / n,
        "median_px": statistics.median(right) if right else math.nan,
        "ms": statistics.median(times),
        "ms_most": max(times),
    }


def few_groups(pcb):
    """The generator's boards, templates from three board designs at most: it looks for a frame of none of them and would not end."""

    class FewGroups(pcb):
        def make(self, rng, need, other=False):
            if other:
                return super().make(rng, need, True)
            groups = sorted({os.path.basename(os.path.dirname(p[0])) for p in self.pairs})
            kept, every = set(rng.permutation(groups)[:3]), self.pairs
            self.pairs = [p for p in every if os.path.basename(os.path.dirname(p[0])) in kept]
            try:
                return super().make(rng, need)
            finally:
                self.pairs = every

    return FewGroups


def generate(args, name, share):
    folder = os.path.join(args.work, f"seed{args.seed}", name)
    share *= 0.2 if args.quick else 1.0
    stamp = os.path.join(folder, "bench.json")
    if os.path.exists(stamp):
        with open(stamp) as f:
            if json.load(f)["n_scale"] == share and os.path.exists(os.path.join(folder, "complete")):
                return folder
    sys.path.insert(0, args.bench)
    import make_align_bench as bench

    saved, pcb = sys.argv, bench.Pcb
    command = ["make_align_bench.py", folder, "--deeppcb", args.deeppcb, "--sets", name, "--seed", str(args.seed), "--n-scale", str(share)]
    sys.argv, bench.Pcb = command, few_groups(pcb) if name in NEGATIVE else pcb
    try:
        bench.main()
    finally:
        sys.argv, bench.Pcb = saved, pcb
    open(os.path.join(folder, "complete"), "w").close()
    return folder


def processor():
    with open("/proc/cpuinfo") as f:
        return next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())


def percent(v):
    return f"{100 * v:.1f} %" if v < 1 else "100 %"


def table_of_peers(rows):
    lines = ["| set (pairs) | method | < 1 px | median px | wrong | ms | ours faster | ours closer |", "|---|---|---|---|---|---|---|---|"]
    for name, results in rows.items():
        ours = results.get("ssds")
        for method, s in results.items():
            first = f"{name} ({s['pairs']})" if method == "ssds" else ""
            ratio = ["", ""] if s is ours else [f"{s['ms'] / ours['ms']:.1f}x", f"{s['median_px'] / ours['median_px']:.0f}x"]
            mark = "**" if s is ours else ""
            cells = [first, f"{mark}{method}{mark}", percent(s["under_1px"]), f"{s['median_px']:.4f}", str(s["wrong"]), f"{s['ms']:.2f}", *ratio]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def pooled(pairs, answers, names):
    chosen = [p for name in names for p in pairs.get(name, [])]
    return summary(chosen, answers) if chosen else None


def table_of_goals(pairs, answers, single):
    lines = ["| goal | wanted | reached |", "|---|---|---|"]
    rows = []

    def goal(text, wanted, reached, met):
        rows.append({"goal": text, "wanted": wanted, "reached": reached, "met": bool(met)})
        lines.append(f"| {text} | {wanted} | {reached}{'' if met else ' **missed**'} |")

    std, large = pooled(pairs, answers, STD256), pooled(pairs, answers, LARGE)
    goal(f"std sets at 256 px ({std['pairs']} pairs): under 1 px", ">= 99.8 %", percent(std["under_1px"]), std["under_1px"] >= 0.998)
    goal("the same: under 0.1 px", ">= 95 %", percent(std["under_0.1px"]), std["under_0.1px"] >= 0.95)
    goal("the same: median", "<= 0.015 px", f"{std['median_px']:.4f} px", std["median_px"] <= 0.015)
    goal("the same: right ones refused", "<= 0.5 %", percent(1 - std["answered"] / std["pairs"]), std["answered"] >= 0.995 * std["pairs"])
    goal("the same: wrong (>= 3 px) yet accepted", "<= 0.1 %", percent(std["wrong"] / std["pairs"]), std["wrong"] <= 0.001 * std["pairs"])
    hard = single["pcb256_hard"]
    goal(f"hard set ({hard['pairs']} pairs): under 1 px", ">= 97 %", percent(hard["under_1px"]), hard["under_1px"] >= 0.97)
    goal(f"640 to 2048 px ({large['pairs']} pairs): under 1 px", "100 %", percent(large["under_1px"]), large["under_1px"] == 1)
    goal("the same: median", "<= 0.03 px", f"{large['median_px']:.4f} px", large["median_px"] <= 0.03)
    negative = pooled(pairs, answers, NEGATIVE)
    goal(f"pairs that do not match ({negative['pairs']}): accepted", "0", str(negative["answered"]), negative["answered"] == 0)
    for name, size, most in (("pcb256_360", 256, 1.0), ("pcb1024_360", 1024, 1.5), ("pcb2048_360", 2048, 2.5)):
        goal(f"time at {size} px, median", f"<= {most} ms", f"{single[name]['ms']:.2f} ms", single[name]["ms"] <= most)
    slow = [answers[p["pair"]]["ms"] for name in NEGATIVE for p in pairs[name] if answers[p["pair"]].get("used_fallback")]
    reached = f"{statistics.median(slow):.1f} ms, at most {max(slow):.1f} ms" if slow else "never ran"
    goal(f"fallback, one thread (whole call, {len(slow)} pairs): median", "<= 60 ms", reached, not slow or statistics.median(slow) <= 60)
    return lines, rows


def table_of_sets(single):
    lines = ["| set | pairs | answered | < 0.1 px | < 1 px | median px | wrong | ms | ms at most |", "|---|---|---|---|---|---|---|---|---|"]
    for name, s in single.items():
        positive = name not in NEGATIVE
        figures = [percent(s["under_0.1px"]), percent(s["under_1px"]), f"{s['median_px']:.4f}", str(s["wrong"])] if positive else ["", "", "", ""]
        lines.append("| " + " | ".join([name, str(s["pairs"]), str(s["answered"]), *figures, f"{s['ms']:.2f}", f"{s['ms_most']:.2f}"]) + " |")
    return lines


def write_page(path, text):
    with open(path) as f:
        page = f.read()
    if BEGIN not in page or END not in page:
        sys.exit(f"align_peers: {path} lacks the markers {BEGIN} and {END}")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    with open(path, "w") as f:
        f.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ssds", required=True)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--deeppcb", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="a fifth of the pairs")
    parser.add_argument("--sets", help="only these, comma-separated")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--page")
    parser.add_argument("--json")
    parser.add_argument("--ours", default="", help="further arguments of ssds align, for ablations")
    args = parser.parse_args()
    wanted = args.sets.split(",") if args.sets else None
    pairs, answers, single, beside = {}, {}, {}, {}
    for name, share, repeat, peers in SETS:
        if wanted and name not in wanted:
            continue
        folder = generate(args, name, share)
        with open(os.path.join(folder, "pairs.jsonl")) as f:
            pairs[name] = [json.loads(line) for line in f]
        ours = run_ours(args, folder, pairs[name], repeat, args.ours.split())
        answers.update(ours)
        single[name] = summary(pairs[name], ours)
        if peers and not args.no_peers:
            beside[name] = {"ssds": single[name]}
            for method in PEERS:
                beside[name][method] = summary(pairs[name], run_peer(method, pairs[name], folder, repeat))
        print(f"{name}: {single[name]}", file=sys.stderr, flush=True)
    share = ", a fifth of the pairs (QUICK=1)" if args.quick else ""
    lines = [f"Seed {args.seed}{share}, {processor()}, OpenCV {cv2.__version__}, one thread each; ms are processor time, median over the pairs.", ""]
    rows = []
    if beside:
        lines += table_of_peers(beside) + [""]
    if not wanted:
        goals, rows = table_of_goals(pairs, answers, single)
        lines += goals + [""]
    lines += table_of_sets(single)
    text = "\n".join(lines)
    print(text)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"beside": beside, "sets": single, "goals": rows}, f, indent=1)
    if args.page:
        write_page(args.page, text)


if __name__ == "__main__":
    main()
