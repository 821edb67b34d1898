"""Our DINOv2 forward pass compared with that of transformers with SDPA: same weights, alternating runs, with accuracy.

    python benchmarks/forward.py [MODEL ...] [--size 448 518] [--batch 4] [--rounds 9]

For every model and size, it prints the median time of both and their ratio, the relative error of the patch
tokens, and the share of this machine's float32 peak that our forward pass reaches (the peak is the best of
several large matrix products between the rounds). Then it prints the relative error of bfloat16 and float16.
The weights are random, because neither speed nor arithmetic error depends on training.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

from patchprism.backbones import WeightsOrigin, find_record
from patchprism.backbones.dinov2 import DinoV2Backbone, build, interpolate_positions, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchprism.backbones import BackboneRecord

_PEAK_SIDE = 2048


def main() -> None:
    """Parse the options and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=["dinov2_vits14"])
    parser.add_argument("--size", type=int, nargs="+", default=[448, 518])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{'model':20} {'size':>4} {'ours':>9} {'theirs':>9} {'ratio':>6} {'error':>8} {'of peak':>8}")
    for name in options.models:
        record = find_record(name)
        with tempfile.TemporaryDirectory() as folder:
            model = reference(record)
            model.save_pretrained(folder)
            weights = WeightsOrigin(source="stand-in", path=str(Path(folder) / "model.safetensors"))
            backbone = load(record, weights, torch.device("cpu"), torch.float32)
            for size in options.size:
                compare(record, backbone, model, size, options.batch, options.rounds)
            for dtype in (torch.bfloat16, torch.float16):
                half = load(record, weights, torch.device("cpu"), dtype)
                pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
                error = relative_error(half.patch_tokens(pixels), backbone.patch_tokens(pixels))
                print(f"{name:20}  224 {str(dtype).removeprefix('torch.')} beside float32: error {error:.1e}")


def reference(record: BackboneRecord) -> torch.nn.Module:
    """The network of transformers with SDPA; random matrices keep the scale of their input, so that tokens differ."""
    kind = "Dinov2WithRegisters" if record.prefix_tokens > 1 else "Dinov2"
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=record.width,
        num_hidden_layers=record.depth,
        num_attention_heads=record.heads,
        patch_size=record.patch_size,
        image_size=518,
        use_swiglu_ffn=record.name.startswith("dinov2_vitg"),
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}Model")(config)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.named_parameters():
        if "norm" in name or "lambda" in name:
            tensor.fill_(0.3 if "lambda" in name else float(name.endswith("weight")))
        else:
            scale = tensor[0].numel() ** -0.5 if name.endswith("weight") else 0.3
            tensor.normal_(0.0, scale, generator=generator)
    return model


def compare(
    record: BackboneRecord,
    backbone: DinoV2Backbone,
    model: torch.nn.Module,
    size: int,
    batch: int,
    rounds: int,
) -> None:
    """Print one row."""
    pixels = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))

    def theirs() -> torch.Tensor:
        with torch.inference_mode():
            return model(pixel_values=pixels).last_hidden_state[:, record.prefix_tokens :]

    times: dict[str, list[float]] = {"ours": [], "theirs": [], "product": []}
    matrix = torch.randn(_PEAK_SIDE, _PEAK_SIDE)
    runs = {
        "ours": lambda: backbone.patch_tokens(pixels),
        "theirs": theirs,
        "product": lambda: matrix @ matrix,
    }
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(timed(run))
    ours, other = statistics.median(times["ours"]), statistics.median(times["theirs"])
    peak = 2 * _PEAK_SIDE**3 / min(times["product"])
    share = n_operations(record, batch, size // record.patch_size) / ours / peak
    # For sizes other than 518, transformers interpolates positions differently; for the error, both use ours.
    model.embeddings.interpolate_pos_encoding = positions_of(record, model)
    error = relative_error(backbone.patch_tokens(pixels).flatten(1, 2), theirs())
    del model.embeddings.interpolate_pos_encoding
    print(
        f"{record.name:20} {size:4} {ours * 1e3:6.0f} ms {other * 1e3:6.0f} ms {ours / other:6.3f} "
        f"{error:8.1e} {share:8.0%}"
    )


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def positions_of(record: BackboneRecord, model: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """A function that replaces transformers' interpolation of positions with ours."""
    table = model.embeddings.position_embeddings

    def positions(_embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        grid = (height // record.patch_size, width // record.patch_size)
        ours = interpolate_positions(table[0, 1:], *grid, registers=record.prefix_tokens > 1)
        return torch.cat([table[:, :1], ours[None]], dim=1)

    return positions


def n_operations(record: BackboneRecord, batch: int, grid: int) -> float:
    """Floating-point operations of the matrix products: linear layers, attention, patch embedding."""
    tokens = grid * grid + record.prefix_tokens
    block_of_one = build(dataclasses.replace(record, depth=1)).blocks
    linear = sum(parameter.numel() for parameter in block_of_one.parameters() if parameter.ndim == 2)
    block = 2 * tokens * linear + 4 * tokens * tokens * record.width
    return batch * (record.depth * block + 2 * grid * grid * 3 * record.patch_size**2 * record.width)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


if __name__ == "__main__":
    main()
