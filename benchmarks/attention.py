"""Peak memory, time and accuracy of attention and rollout, compared with the plain forward pass.

    python benchmarks/attention.py [--size 1036] [--model dinov2_vits14]

Each figure comes from a separate process, since a process's peak never falls. Weights are random in the model's
layout, because memory and time do not depend on their values.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

MODES = ("load", "forward", "attention", "rollout")


def measure(mode: str, model: str, size: int) -> None:
    """Run one mode and print the process's peak in MiB, the seconds, and the error."""
    import torch

    from patchprism.backbones import WeightsOrigin, find_record
    from patchprism.backbones.dinov2 import DinoV2Backbone, build

    torch.manual_seed(0)
    record = find_record(model)
    network = build(record).to_empty(device="cpu")
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, std=0.02)
        if "norm" in name and name.endswith("weight"):
            torch.nn.init.ones_(parameter)
    backbone = DinoV2Backbone(
        record, network, WeightsOrigin(source="random"), torch.device("cpu"), torch.float32
    )
    pixels = torch.randn(1, 3, size, size)
    start = time.perf_counter()
    error = 0.0
    if mode == "forward":
        backbone.patch_tokens(pixels)
    elif mode == "attention":
        backbone.attention(pixels)
    elif mode == "rollout":
        backbone.rollout(pixels)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if mode in ("attention", "rollout"):
        error = _error(backbone, mode)
    print(peak, seconds, error)


def _error(backbone, mode: str) -> float:  # type: ignore[no-untyped-def]
    """Relative error against full attention matrices in float64, at a size where these fit into memory."""
    import torch

    pixels = torch.randn(1, 3, 140, 196)
    product, last = None, None
    with torch.inference_mode():
        for layer, tokens in enumerate(backbone.network.block_inputs(pixels, backbone.depth - 1)):
            query, key = backbone.network.query_key(tokens, layer, pixels)
            logits = query.double() @ key.double().transpose(-1, -2) * query.shape[-1] ** -0.5
            last = logits.softmax(-1)
            mixed = 0.5 * last.mean(1)[0] + 0.5 * torch.eye(last.shape[-1], dtype=torch.float64)
            product = mixed if product is None else mixed @ product
    prefix = backbone.record.prefix_tokens
    if mode == "attention":
        ours, exact = backbone.attention(pixels).flatten(2)[0], last[0, :, 0, prefix:]
    else:
        ours, exact = backbone.rollout(pixels).flatten(), product[0, prefix:]
    return float((ours.double() - exact).norm() / exact.norm())


def main() -> None:
    """Run every mode in a separate process and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1036)
    parser.add_argument("--model", default="dinov2_vits14")
    parser.add_argument("--mode", choices=MODES)
    options = parser.parse_args()
    if options.mode:
        measure(options.mode, options.model, options.size)
        return
    n = (options.size // 14) ** 2
    print(f"{options.model} at {options.size} x {options.size}: {n:,} patches, one photo, CPU, float32")
    print(f"{'':10}{'peak MiB':>10}{'over forward':>14}{'seconds':>9}{'relative error':>16}")
    forward = 0.0
    for mode in MODES:
        command = [
            sys.executable,
            __file__,
            "--mode",
            mode,
            "--model",
            options.model,
            "--size",
            str(options.size),
        ]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peak, seconds, error = map(float, output.split())
        forward = peak if mode == "forward" else forward
        over = f"{peak - forward:+.0f}" if forward and mode != "forward" else ""
        shown = f"{error:.1e}" if error else ""
        print(f"{mode:10}{peak:>10.0f}{over:>14}{seconds:>9.2f}{shown:>16}")


if __name__ == "__main__":
    main()
