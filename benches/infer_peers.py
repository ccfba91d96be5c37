#!/usr/bin/env python3
"""Inference beside Python's onnxruntime, and the line beside its own stages: the same model, library version, threads and sizes, in one run.

usage: infer_peers.py --ssds target/release/ssds --model models/ssds.onnx [--library runtime/libonnxruntime.so] [--threads 1]
                      [--sizes 256,640] [--rounds 7] [--frames 20] [--idle-seconds 20] [--json OUT]

A round runs `ssds bench` and then the same number of Python session runs for each size; the order changes from round to round. Ours is the
whole stage (8-bit pictures in, defect map out: conversion, tiling, run, checks, blending); Python's is `session.run` alone on a ready
float32 array. Beside wall-clock time stands the processor time of the running thread, which other work on the machine blurs less; it is
the whole cost only with one thread. `in session` is the share of our stage's time within ONNX Runtime, from the same process. Then `ssds bench --line` at the largest size, and the processor time of an idle daemon, read from
/proc. Needs numpy and onnxruntime (of the same version as the library, else it says so).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort

ROOT = pathlib.Path(__file__).resolve().parent.parent


def bench(args, size, *more):
    command = [args.ssds, "bench", "--model", args.model, "--providers", "cpu", "--threads", str(args.threads), "--size", str(size),
               "--warm-up", "3", "--tile-px", str(max(size, 64)), "--overlap-px", "16", "--json", *more]
    if args.library:
        command += ["--library", args.library]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["benches"][0]


def ours(args, size):
    answer = bench(args, size, "--frames", str(args.frames))
    stage = answer["stages"]["infer"]
    return stage["p50_ms"], stage["processor_mean_ms"], answer["infer_in_session"], answer["runtime"]["runtime_version"]


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


def idle(args):
    """Share of one core that a daemon takes whose camera delivers one frame and then nothing."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        library = f'inference.library = "{pathlib.Path(args.library).resolve()}"\n' if args.library else ""
        (folder / "ssds.toml").write_text(
            'station.name = "idle"\nproduct.name = "board"\npaths.state_dir = "state"\npaths.cache_dir = "cache"\n'
            'camera.backend = "replay"\ncamera.path = "frames"\ncamera.rate_hz = 0.01\ncamera.loop = true\nmqtt.enabled = false\n'
            f'http.listen = "127.0.0.1:0"\ninference.model = "{pathlib.Path(args.model).resolve()}"\n{library}')
        (folder / "frames").mkdir()
        template = ROOT / "tests/data/demo/template.png"
        (folder / "frames/0.png").write_bytes(template.read_bytes())
        config = ["--config", str(folder / "ssds.toml")]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([args.ssds, "teach", "board", str(template), *config], check=True, **quiet)
        daemon = subprocess.Popen([args.ssds, "run", *config], **quiet)

        def used():
            fields = pathlib.Path(f"/proc/{daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        try:
            time.sleep(8)
            before, begun = used(), time.perf_counter()
            time.sleep(args.idle_seconds)
            return (used() - before) / (time.perf_counter() - begun)
        finally:
            daemon.terminate()
            daemon.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ssds", required=True)
    parser.add_argument("--model", default="models/ssds.onnx")
    parser.add_argument("--library")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", default="256,640")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--idle-seconds", type=float, default=20)
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
                wall, processor, inside, version = ours(args, size)
            else:
                wall, processor, inside, version = ours(args, size)
                peer = python(args, session, size)
            rows[size].append((wall, processor, *peer, inside))
    if version != ort.__version__:
        print(f"note: the library is {version}, Python's onnxruntime {ort.__version__}", file=sys.stderr)
    print(f"ONNX Runtime {version}, {args.threads} threads, {args.rounds} rounds of {args.frames} frames; medians over rounds; load "
          f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'size':>6} {'ours ms':>9} {'python ms':>10} {'ratio':>7}   {'ours cpu':>9} {'python cpu':>11} {'ratio':>7} {'in session':>11}")
    answer = {"runtime_version": version, "threads": args.threads, "sizes": {}}
    for size, samples in rows.items():
        mid = [statistics.median(column) for column in zip(*samples)]
        # The ratio of each round first: both sides of a round saw the same machine.
        wall = statistics.median(a / c for a, _, c, _, _ in samples)
        processor = statistics.median(b / d for _, b, _, d, _ in samples)
        print(f"{size:>6} {mid[0]:>9.2f} {mid[2]:>10.2f} {wall:>7.3f}   {mid[1]:>9.2f} {mid[3]:>11.2f} {processor:>7.3f} {100 * mid[4]:>9.1f} %")
        answer["sizes"][size] = {"ours_ms": mid[0], "python_ms": mid[2], "ratio": wall, "ours_cpu_ms": mid[1], "python_cpu_ms": mid[3],
                                 "cpu_ratio": processor, "in_session": mid[4]}
    del session

    whole = bench(args, sizes[-1], "--frames", str(args.frames * 2), "--line", "--rounds", str(args.rounds))
    line = whole["line"]
    answer["line"] = line
    print(f"line at {sizes[-1]}²: {line['frames_per_second']:.2f} frames/s, {line['throughput_ratio']:.3f} of its slowest stage alone "
          f"({line['slowest_stage']}, {line['slowest_stage_per_second']:.2f} frames/s)")
    print(f"one frame at a time: picture to committed result p50 {line['latency']['p50_ms']:.1f} ms, p99 {line['latency']['p99_ms']:.1f} ms; "
          f"{line['latency_ratio']:.3f} of the sum of its stages ({line['stages_sum_ms']:.1f} ms)")
    answer["stages"] = whole["stages"]
    for name, stage in whole["stages"].items():
        print(f"  {name:<8} p50 {stage['p50_ms']:>8.2f} ms, p99 {stage['p99_ms']:>8.2f} ms, processor {stage['processor_mean_ms']:>8.2f} ms")
    answer["idle_share"] = idle(args)
    print(f"idle daemon: {100 * answer['idle_share']:.2f} % of one core over {args.idle_seconds:.0f} s")
    if args.json:
        with open(args.json, "w") as out:
            json.dump(answer, out, indent=1)


if __name__ == "__main__":
    main()
