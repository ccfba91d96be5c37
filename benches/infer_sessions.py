#!/usr/bin/env python3
"""How threads and sessions share the cores: one session or two, one thread in each run or two, in one run on one machine.

usage: infer_sessions.py [--model models/ssds.onnx] [--size 640] [--rounds 5] [--frames 12]

Prints for each arrangement, with the CPU provider and spinning off as the daemon has it: frames a second of all threads together, the
median time of one frame, processor time a frame, and the memory that the process gained for it. The order changes from round to round;
rates are the median of the rounds. Each arrangement runs in a process of its own, so that memory is its own. Needs numpy and onnxruntime.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import threading
import time

ARRANGEMENTS = {
    "one session, one thread": (1, 1, 1),
    "one session, two threads within a run": (1, 1, 2),
    "one session shared by two callers": (1, 2, 1),
    "two sessions, one caller each": (2, 2, 1),
}


def resident_mib():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


def child(args):
    import numpy as np
    import onnxruntime as ort

    sessions, callers, threads = ARRANGEMENTS[args.child]
    pair = np.random.default_rng(1).random((1, 2, args.size, args.size), dtype=np.float32)
    before = resident_mib()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    made = [ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"]) for _ in range(sessions)]
    times, lock = [], threading.Lock()

    def work(session, frames):
        own = []
        for _ in range(frames):
            begun = time.perf_counter()
            session.run(None, {"pair": pair})
            own.append(time.perf_counter() - begun)
        with lock:
            times.extend(own)

    def all_callers(frames):
        running = [threading.Thread(target=work, args=(made[i % sessions], frames)) for i in range(callers)]
        for t in running:
            t.start()
        for t in running:
            t.join()

    all_callers(3)
    times.clear()
    used, begun = time.process_time(), time.perf_counter()
    all_callers(args.frames)
    took, used = time.perf_counter() - begun, time.process_time() - used
    n = callers * args.frames
    print(json.dumps({"rate": n / took, "ms": statistics.median(times) * 1e3, "processor_ms": used / n * 1e3,
                      "mib": resident_mib() - before}))


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=str(root / "models/ssds.onnx"))
    parser.add_argument("--size", type=int, default=640, help="side of the square pictures, px")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=12, help="frames a caller and round")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    names = list(ARRANGEMENTS)
    found = {name: [] for name in names}
    for r in range(args.rounds):
        for name in names[r % len(names):] + names[:r % len(names)]:
            command = [sys.executable, __file__, "--model", args.model, "--size", str(args.size), "--frames", str(args.frames), "--child", name]
            found[name].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    print(f"sessions and threads, {args.size}x{args.size}, median of {args.rounds} rounds of {args.frames} frames a caller")
    first = None
    for name in names:
        of = lambda key: statistics.median(run[key] for run in found[name])
        first = first or of("rate")
        print(f"  {name:<40} {of('rate'):6.2f} frames/s ({of('rate') / first:.2f} times)  one frame {of('ms'):6.1f} ms  "
              f"processor {of('processor_ms'):6.1f} ms  memory {of('mib'):4.0f} MiB")


if __name__ == "__main__":
    main()
