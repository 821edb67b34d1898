"""The seed's job as a plain script, as people usually write it; main_job.py compares PatchPrism with it.

It uses torch, preprocessing without torchvision, three scikit-learn PCAs and three Matplotlib figures. The network is
DINOv2 ViT-S/14 in plain torch modules; ``--attention matmul`` does the same as the official code at the time of
the post, and ``--attention sdpa`` uses today's fused attention.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.decomposition import PCA
from torch import nn

SIZE, PATCH, WIDTH, DEPTH, HEADS, NATIVE = 448, 14, 384, 12, 6, 37


class Attention(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.qkv, self.proj, self.fused = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), fused

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if self.fused:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = (q * (WIDTH // HEADS) ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(out.transpose(1, 2).reshape(b, n, WIDTH))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return x * self.gamma


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn, self.mlp, self.ls1, self.ls2 = Attention(fused), Mlp(), Scale(), Scale()

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)


class Dinov2(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + NATIVE**2, WIDTH))
        self.mask_token = nn.Parameter(torch.zeros(1, WIDTH))
        self.patch_embed = PatchEmbed()
        self.blocks = nn.ModuleList(Block(fused) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, pixels):
        x = self.patch_embed.proj(pixels)
        h, w = x.shape[-2:]
        grid = self.pos_embed[:, 1:].reshape(1, NATIVE, NATIVE, WIDTH).permute(0, 3, 1, 2)
        scale = ((h + 0.1) / NATIVE, (w + 0.1) / NATIVE)
        grid = (
            F.interpolate(grid, scale_factor=scale, mode="bicubic")
            .permute(0, 2, 3, 1)
            .reshape(1, h * w, WIDTH)
        )
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        x = x + torch.cat([self.pos_embed[:, :1], grid], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:]


def preprocess(path):
    image = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    height, width = image.shape[-2:]
    edge = SIZE + int(SIZE * 0.01) * 10
    size = (edge, int(edge * width / height)) if height <= width else (int(edge * height / width), edge)
    image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
    top, left = round((size[0] - SIZE) / 2), round((size[1] - SIZE) / 2)
    return image[0, :, top : top + SIZE, left : left + SIZE]


def minmax(values):
    return (values - values.min(axis=0)) / (values.max(axis=0) - values.min(axis=0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--attention", choices=("matmul", "sdpa"), default="matmul")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    model = Dinov2(args.attention == "sdpa")
    model.load_state_dict(torch.load(args.weights, weights_only=True))
    model.eval()
    crops = torch.stack([preprocess(path) for path in args.photos])
    with torch.no_grad():
        tokens = model((crops - 0.5) / 0.5)
    side, count = SIZE // PATCH, len(crops)
    rows = tokens.reshape(-1, WIDTH).numpy()

    score = minmax(PCA(n_components=3).fit_transform(rows)[:, 0])
    mask = score > 0.6
    colors = np.zeros((len(rows), 3))
    colors[mask] = minmax(PCA(n_components=3).fit_transform(rows[mask]))
    raw = PCA(n_components=3).fit_transform(rows)
    for i in range(count):
        mine = raw[i * side * side : (i + 1) * side * side]
        mine[~mask[i * side * side : (i + 1) * side * side]] = mine.min()
    raw = minmax(raw)
    np.savez(out / "arrays.npz", score=score, mask=mask, colors=colors, raw=raw)

    shown = crops.permute(0, 2, 3, 1).numpy()
    for i in range(count):
        plt.subplot(2, (count + 1) // 2, i + 1)
        plt.imshow(shown[i])
        laid = (score * mask).reshape(count, side, side)[i]
        plt.imshow(np.kron(laid, np.ones((PATCH, PATCH))), alpha=0.5)
    plt.savefig(out / "fg_mask.jpg")
    plt.close()
    for name, values in (("results", colors), ("results_raw", raw)):
        plt.figure(figsize=(8, 8))
        for i in range(count):
            for column, picture in enumerate((shown[i], values.reshape(count, side, side, 3)[i])):
                plt.subplot(count, 2, 2 * i + column + 1)
                plt.imshow(picture)
                plt.axis("off")
        plt.savefig(out / f"{name}.jpg")
        plt.close()


if __name__ == "__main__":
    main()
