#!/usr/bin/env python3
"""Time of a training step of `ssds-train` and of PyTorch on the same network, side by side on this machine.

usage: train_peers.py SSDS_TRAIN [--preset base|tiny] [--threads 1] [--steps 10] [--rounds 3]

Needs PyTorch (pip install torch numpy). Both train the two U-Nets of the preset on 16 crops of 128 px: forward, MSE + BCE + Dice (no
L_irr), backward, clipping, AdamW. The programs take turns, `rounds` times each; printed are each round's medians and the ratio of the
best medians, which other work on the machine disturbs least.
"""
import argparse
import json
import os
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = {"base": ([16, 32, 64, 96], [16, 16, 32]), "tiny": ([8, 16, 32, 48], [8, 8, 16])}
CROPS, SIDE = 16, 128


def block(inputs, outputs):
    def conv(i):
        return [nn.Conv2d(i, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(*conv(inputs), *conv(outputs))


class UNet(nn.Module):
    """Space-to-depth stem by 2, half-resolution body, depth-to-space head: src/train/spec.rs."""

    def __init__(self, outputs, widths):
        super().__init__()
        below = [8] + widths
        self.down = nn.ModuleList(block(below[k], w) for k, w in enumerate(widths))
        self.up = nn.ModuleList(block(widths[k] + widths[k + 1], widths[k]) for k in range(len(widths) - 1))
        self.head = nn.Conv2d(widths[0], 4 * outputs, 1)

    def forward(self, x):
        x, skips = F.pixel_unshuffle(x, 2), []
        for k, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if k else x)
            skips.append(x)
        for k in reversed(range(len(self.up))):
            x = self.up[k](torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips[k]], 1))
        return F.pixel_shuffle(self.head(x), 2)


def torch_step(preset, threads, steps):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    differ, mask = WIDTHS[preset]
    net = nn.Sequential(UNet(2, differ), UNet(1, mask))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, weight_decay=1e-3)
    x, y = torch.randn(CROPS, 2, SIDE, SIDE), (torch.rand(CROPS, 1, SIDE, SIDE) < 0.02).float()
    times = []
    for k in range(steps + 1):
        began = time.perf_counter()
        z = net(x)
        p = torch.sigmoid(z)
        bce = F.binary_cross_entropy_with_logits(z, y, pos_weight=torch.tensor(2.0))
        dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        loss = ((p - y) ** 2).mean() + 2 * bce + dice
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if k:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def ours(program, preset, threads, steps):
    command = [program, "measure", "--preset", preset, "--steps", str(steps), "--pairs", "1", "--json"]
    env = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    found = json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    assert (found["batch"], found["crop_px"]) == (CROPS, SIDE), found
    return found["step_without_irrelevance_secs"], found["step_secs"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--preset", choices=sorted(WIDTHS), default="base")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    theirs, mine, whole = [], [], []
    for _ in range(args.rounds):
        theirs.append(torch_step(args.preset, args.threads, args.steps))
        plain, full = ours(args.program, args.preset, args.threads, args.steps)
        mine.append(plain)
        whole.append(full)
        print(f"round: PyTorch {1e3 * theirs[-1]:.0f} ms, ssds-train {1e3 * plain:.0f} ms, with L_irr {1e3 * full:.0f} ms")
    print(f"torch {torch.__version__}, preset {args.preset}, {args.threads} threads, {CROPS} crops of {SIDE} px")
    print(f"best medians: PyTorch {1e3 * min(theirs):.0f} ms, ssds-train {1e3 * min(mine):.0f} ms, with L_irr {1e3 * min(whole):.0f} ms")
    print(f"ssds-train / PyTorch = {min(mine) / min(theirs):.2f}")


if __name__ == "__main__":
    main()
