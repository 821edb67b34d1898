"""Videos: steadiness of the colours, and cost of everything outside the network.

    GOMP_SPINCOUNT=3000 python benchmarks/video.py [--quick]

It prints tables. Steadiness: frames show one photo with sensor noise; measured is the change of a patch's colour from
one frame to the next in units of 1/255, the largest of the three channels, before the codec, also if each frame is
scaled by its own extremes. Cost: the complete command compared with the network alone on the same frames, already
decoded and framed; medians of alternating runs. Presets: the cost of H.264's settings.
The command sets GOMP_SPINCOUNT by itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from skimage import data

from patchprism import load_backbone, render_video
from patchprism.features.batching import patches_per_batch
from patchprism.features.extraction import batch_for
from patchprism.jobs.video import sink
from patchprism.jobs.video.frames import Span
from patchprism.jobs.video.source import open_clip
from patchprism.jobs.video.steady import FrameColors, Steady
from patchprism.photos.framing import Framing
from patchprism.prism.estimator import Prism
from patchprism.support.memory import keep_memory


def steps(colors, kept=None):
    """Changes from frame to frame, in units of 1/255, of patches that are foreground in both frames."""
    change = np.abs(np.diff(np.stack(colors), axis=0)).max(axis=-1) * 255
    return change[kept] if kept is not None else change.ravel()


def row(name, change):
    middle, high, top = np.percentile(change, [50, 99, 100])
    print(f"  {name:42} mean {change.mean():5.2f}  median {middle:5.2f}  99% {high:5.2f}  max {top:5.2f}")


def steadiness(backbone, framing, n_frames):
    for photo in ("chelsea", "astronaut", "coffee"):
        clean = getattr(data, photo)()
        for sigma in (0.5, 1.0, 2.0):
            rng = np.random.default_rng(0)
            tokens = []
            for _ in range(n_frames):
                noisy = np.clip(np.rint(clean + rng.normal(0, sigma, clean.shape)), 0, 255).astype(np.uint8)
                tokens.append(backbone.patch_tokens(framing.apply(noisy).pixels[None])[0].cpu().numpy())
            prism = Prism().fit(tokens)
            colors, steady = FrameColors(prism), Steady(prism.threshold_, prism.side_)
            bare = [colors.split(each) for each in tokens]
            shown = [steady(each) for each in bare]
            alone = []  # each frame scaled by its own extremes, with all patches and a fixed basis
            for each in tokens:
                values = prism.object_components(each.reshape(-1, each.shape[-1]))[:, :3]
                low, high = values.min(axis=0), values.max(axis=0)
                alone.append(((values - low) / (high - low)).reshape(*each.shape[:2], 3))
            masks = np.stack([each.foreground for each in bare])
            both = masks[1:] & masks[:-1]
            kept = np.stack([each.foreground for each in shown])
            print(f"{photo}, noise {sigma:g}/255")
            row("rescaled frame by frame", steps(alone))
            row("fixed ranges (--no-steady)", steps([each.colors for each in bare], both))
            row("steady (the default), mask changes included", steps([each.rgb for each in shown]))
            truth = np.mean([each.colors for each in bare], axis=0)
            off = [np.abs(s.colors - truth).max(axis=-1)[s.foreground].mean() * 255 for s in shown]
            print(
                f"  patches that change sides, a frame: {np.mean(masks[1:] != masks[:-1]) * masks[0].size:.2f}, steady "
                f"{np.mean(kept[1:] != kept[:-1]) * masks[0].size:.2f}; steady colours lie {np.mean(off):.2f}/255 from "
                f"the mean of the bare ones"
            )


def codec(backbone, folder, crf):
    """The change that H.264 adds: the steady colours, read from the file and averaged over each patch's middle."""
    rng = np.random.default_rng(0)
    source = folder / "noisy"
    source.mkdir(exist_ok=True)
    for i in range(12):
        noisy = np.clip(np.rint(data.chelsea() + rng.normal(0, 1, (300, 451, 3))), 0, 255).astype(np.uint8)
        Image.fromarray(noisy[:, :448]).save(source / f"{i:03d}.png")
    render_video(source, folder / "noisy.mp4", backbone=backbone, size=288, layout="colors", crf=crf)
    with av.open(str(folder / "noisy.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    means = [
        f[: f.shape[0] // 16 * 16, :448].reshape(-1, 16, 28, 16, 3)[:, 6:10, :, 6:10].mean(axis=(1, 3)) / 255
        for f in frames
    ]
    row(f"read back from H.264, crf {crf}", steps(means))


def make_clip(path, height, width, count):
    photo = Image.fromarray(data.astronaut()).resize((width + 80, height + 80), Image.Resampling.BICUBIC)
    picture = np.asarray(photo)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "20", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(count):
            x, y = int(40 + 40 * np.sin(i / 9)), int(40 + 40 * np.cos(i / 13))
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture[y : y + height, x : x + width]), format="rgb24"
            )
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def cost(backbone, framing, folder, height, width, count, rounds):
    clip = make_clip(folder / f"{height}.mp4", height, width, count)
    frames = [framing.apply(frame.rgb) for frame in open_clip(clip).frames(Span(), planes=False)]
    batch = batch_for(frames[0].grid, patches_per_batch(backbone))
    prism_from = render_video(clip, folder / "first.mp4", backbone=backbone, fit_frames=4)
    whole, alone, whole_cpu, alone_cpu, inside = [], [], [], [], []
    for _ in range(rounds):
        start, cpu = time.perf_counter(), time.process_time()
        for i in range(0, count, batch):
            backbone.patch_tokens(torch.stack([f.pixels for f in frames[i : i + batch]]))
        alone.append((time.perf_counter() - start) / count * 1e3)
        alone_cpu.append((time.process_time() - cpu) / count * 1e3)
        cpu = time.process_time()
        report = render_video(clip, folder / "out.mp4", backbone=backbone, prism=prism_from.prism)
        whole.append(report.seconds["colour and write"] / count * 1e3)
        inside.append(report.network_seconds / count * 1e3)
        whole_cpu.append((time.process_time() - cpu) / count * 1e3)

    def share(parts, wholes):
        return 1 - statistics.median(part / of for part, of in zip(parts, wholes, strict=True))

    print(
        f"  {width:4} x {height:4}: network alone {statistics.median(alone):6.1f} ms a frame, whole command "
        f"{statistics.median(whole):6.1f} ms; of processor time {statistics.median(alone_cpu):.0f} and "
        f"{statistics.median(whole_cpu):.0f} ms; around the network {share(inside, whole):.1%} of the frame's time, "
        f"{share(alone, whole):.1%} with what the network is slowed down by it, {share(alone_cpu, whole_cpu):.1%} of "
        f"the processor time",
        flush=True,
    )


def presets(backbone, folder):
    """Cost of H.264's settings, one thread, layout side, crf 18: time, bytes, and distance from the original frames."""
    tried = {
        "veryfast": {"preset": "veryfast"},
        "superfast": {"preset": "superfast"},
        "ours": sink._OPTIONS["libx264"],
        "ultrafast": {"preset": "ultrafast"},
    }
    for height, width in ((448, 448), (720, 1280)):
        clip = make_clip(folder / "clip.mp4", height, width, 40)
        render_video(clip, folder / "side.mp4", backbone=backbone, fit_frames=4, crf=1)
        with av.open(str(folder / "side.mp4")) as container:
            pictures = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
        for name, options in tried.items():
            times = []
            for _ in range(3):
                with av.open(str(folder / "again.mp4"), "w") as out:
                    stream = out.add_stream("libx264", rate=25, options=options | {"crf": "18"})
                    stream.height, stream.width, stream.pix_fmt = height, 2 * width, "yuv420p"
                    stream.codec_context.thread_count = 1
                    start = time.process_time()
                    for i, picture in enumerate(pictures):
                        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
                        frame.pts = i
                        out.mux(stream.encode(frame))
                    out.mux(stream.encode(None))
                    times.append((time.process_time() - start) / len(pictures) * 1e3)
            with av.open(str(folder / "again.mp4")) as container:
                back = [frame.to_ndarray(format="yuv420p")[:height] for frame in container.decode(video=0)]
            error = np.mean(
                [np.square(a.astype(float) - b[:height]).mean() for a, b in zip(back, pictures, strict=True)]
            )
            print(
                f"  {width} x {height}, {name:10} {min(times):5.1f} ms a frame, "
                f"{(folder / 'again.mp4').stat().st_size / 1e3:5.0f} kB, PSNR {10 * np.log10(255**2 / error):.1f} dB",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("steady", "codec", "cost", "presets"))
    parser.add_argument(
        "--threads", type=int, help="threads of torch; 1 makes processor times comparable on a busy machine"
    )
    options = parser.parse_args()
    keep_memory()  # as the command does
    if options.threads:
        torch.set_num_threads(options.threads)
    backbone = load_backbone("efficientnet_lite2")
    record = backbone.record
    framing = Framing.preset(
        "default", size=448, patch_size=record.patch_size, mean=record.mean, std=record.std
    )
    with tempfile.TemporaryDirectory() as name:
        if options.only in (None, "cost"):
            print(f"cost at --size 448, side by side, H.264 crf 18, {torch.get_num_threads()} threads")
            for height, width in ((448, 448), (448, 800), (720, 1280), (1080, 1920)):
                count, rounds = (12, 2) if options.quick else (60, 5)
                cost(backbone, framing, Path(name), height, width, count, rounds)
        if options.only in (None, "steady"):
            print("steadiness at --size 448")
            steadiness(backbone, framing, 6 if options.quick else 12)
        if options.only in (None, "presets"):
            presets(backbone, Path(name))
        if options.only in (None, "codec"):
            for crf in (18, 10):
                codec(backbone, Path(name), crf)


if __name__ == "__main__":
    main()
