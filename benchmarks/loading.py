"""Processor time to load a network: the embedded ViT from its ONNX file, and DINOv2's ViT-S/14 from a .pth file.

    python benchmarks/loading.py [RUNS]

Each load is in a separate process, after torch and PatchPrism are imported. The .pth file contains the tensors of the
ONNX file, and both networks are checked to give the same tokens. Times are medians of alternating runs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CODE = """
import sys, time, torch
import patchprism.backbones.focus
from patchprism import load_backbone
name, weights = sys.argv[1], sys.argv[2] or None
start = time.process_time()
backbone = load_backbone(name, weights=weights, device="cpu")
seconds = time.process_time() - start
pixels = torch.linspace(-2, 2, 3 * 28 * 42).reshape(1, 3, 28, 42)
print(seconds, float(backbone.patch_tokens(pixels, layer=8).double().sum()))
"""


def main() -> None:
    """Print the table."""
    import torch

    from patchprism.backbones import find_record
    from patchprism.backbones.focus import read_focus
    from patchprism.backbones.layouts import official_names
    from patchprism.backbones.weights import obtain_weights

    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    onnx = obtain_weights(find_record("focus_vits14")).path
    with tempfile.TemporaryDirectory() as folder:
        pth = Path(folder) / "vits14.pth"
        state = official_names(read_focus(Path(onnx), purpose="the benchmark"))
        torch.save({name: tensor.contiguous() for name, tensor in state.items()}, pth)
        cases = {
            "focus_vits14, .onnx": ("focus_vits14", ""),
            "dinov2_vits14, .pth": ("dinov2_vits14", str(pth)),
        }
        found: dict[str, list[list[float]]] = {case: [] for case in cases}
        for _ in range(runs):
            for case, words in cases.items():
                done = subprocess.run(
                    [sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True
                )
                found[case].append([float(word) for word in done.stdout.split()])
    sums = {tokens for each in found.values() for _, tokens in each}
    for case, each in found.items():
        print(f"{case:24}{statistics.median(seconds for seconds, _ in each):.3f} s")
    print(f"the tokens are {'the same' if len(sums) == 1 else f'not the same: {sums}'}")


if __name__ == "__main__":
    main()
