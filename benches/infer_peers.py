#!/usr/bin/env python3
"""Inference beside Python's onnxruntime: the same model, library version, threads and sizes, in one run on one machine.

usage: infer_peers.py --ssds target/release/ssds --model models/ssds.onnx [--library runtime/libonnxruntime.so] [--threads 1]
                      [--sizes 256,640] [--rounds 7] [--frames 20] [--json OUT]

A round runs `ssds bench` and then the same number of Python session runs for each size; the order changes from round to round. Ours is the
whole stage (8-bit pictures in, defect map out: conversion, tiling, run, checks, blending); Python's is `session.run` alone on a ready
float32 array. Beside wall-clock time stands the processor time of the running thread, which other work on the machine blurs less; it is
the whole cost only with one thread. Needs numpy and onnxruntime (of the same version as the library, else it says so).
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime as ort


def ours(args, size):
    command = [args.ssds, "bench", "--model", args.model, "--providers", "cpu", "--threads", str(args.threads), "--size", str(size),
               "--frames", str(args.frames), "--warm-up", "3", "--tile-px", str(max(size, 64)), "--overlap-px", "16", "--json"]
    if args.library:
        command += ["--library", args.library]
    bench = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["benches"][0]
    stage = bench["stages"]["infer"]
    return stage["p50_ms"], stage["processor_mean_ms"], bench["runtime"]["runtime_version"]


def python(args, session, size):
    pair = np.random.default_rng(1).random((1, 2, size, size), dtype=np.float32)
    for _ in range(3):
        session.run(None, {"pair": pair})
    wall, processor = [], []
    for _ in range(args.frames):
        t, c = time.perf_counter(), time.thread_time()
        session.run(None, {"pair": pair})
        wall.append((time.perf_counter() - t) * 1e3)
        processor.append((time.thread_time() - c) * 1e3)
    return statistics.median(wall), statistics.fmean(processor)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ssds", required=True)
    parser.add_argument("--model", default="models/ssds.onnx")
    parser.add_argument("--library")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", default="256,640")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--json")
    args = parser.parse_args()

    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    sizes = [int(s) for s in args.sizes.split(",")]
    rows = {size: [] for size in sizes}
    version = None
    for number in range(args.rounds):
        for size in sizes:
            if number % 2:
                peer = python(args, session, size)
                wall, processor, version = ours(args, size)
            else:
                wall, processor, version = ours(args, size)
                peer = python(args, session, size)
            rows[size].append((wall, processor, *peer))
    if version != ort.__version__:
        print(f"note: the library is {version}, Python's onnxruntime {ort.__version__}", file=sys.stderr)
    print(f"ONNX Runtime {version}, {args.threads} threads, {args.rounds} rounds of {args.frames} frames; medians over rounds")
    print(f"{'size':>6} {'ours ms':>9} {'python ms':>10} {'ratio':>7}   {'ours cpu':>9} {'python cpu':>11} {'ratio':>7}")
    answer = {"runtime_version": version, "threads": args.threads, "sizes": {}}
    for size, samples in rows.items():
        mid = [statistics.median(column) for column in zip(*samples)]
        # The ratio of each round first: both sides of a round saw the same machine.
        wall = statistics.median(a / c for a, _, c, _ in samples)
        processor = statistics.median(b / d for _, b, _, d in samples)
        print(f"{size:>6} {mid[0]:>9.2f} {mid[2]:>10.2f} {wall:>7.3f}   {mid[1]:>9.2f} {mid[3]:>11.2f} {processor:>7.3f}")
        answer["sizes"][size] = {"ours_ms": mid[0], "python_ms": mid[2], "ratio": wall, "ours_cpu_ms": mid[1], "python_cpu_ms": mid[3],
                                 "cpu_ratio": processor}
    if args.json:
        with open(args.json, "w") as out:
            json.dump(answer, out, indent=1)


if __name__ == "__main__":
    main()
