"""StreamingPCA compared with scikit-learn's PCA and IncrementalPCA: time, accuracy and memory.

    python benchmarks/pca.py [--rows 400000] [--width 384] [--pairs 5]

Times are measured alternately in one process, and ratios computed per pair of runs. The reference for accuracy is
scikit-learn's PCA of the same rows in float64. Memory is the growth of the peak resident size after the imports, each
in a separate process that makes its rows batch by batch.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

BATCH = 8192


def batches(rows: int, width: int):
    """The same random rows every time, with a decaying spectrum and a mean of a few deviations, like patch tokens."""
    rng = np.random.default_rng(0)
    deviations = (1 + np.arange(width, dtype=np.float32)) ** -0.7
    for start in range(0, rows, BATCH):
        yield rng.standard_normal(
            (min(BATCH, rows - start), width), dtype=np.float32
        ) * deviations + np.float32(0.5)


def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def peak(rows: int, width: int) -> None:
    """Print the growth of the peak resident size while this many rows are fitted, in MB."""
    from patchprism import StreamingPCA

    StreamingPCA(3).fit(np.eye(width, dtype=np.float32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pca = StreamingPCA(3)
    for batch in batches(rows, width):
        pca.partial_fit(batch)
    pca.components_  # noqa: B018 - computed on access
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak(args.rows, args.width)
        return
    from sklearn.decomposition import PCA, IncrementalPCA

    from patchprism import StreamingPCA

    rows = np.concatenate(list(batches(args.rows, args.width)))
    StreamingPCA(3).fit(rows[:2000]), PCA(3).fit(rows[:8000])
    pairs = []
    for _ in range(args.pairs):
        ours, pca = timed(lambda: (lambda p: (p.components_, p)[1])(StreamingPCA(3).fit(rows)))
        theirs, full = timed(lambda: PCA(3).fit(rows))
        pairs.append((ours, theirs))
    slow, _ = timed(lambda: IncrementalPCA(3, batch_size=BATCH).fit(rows))
    exact = PCA(3, svd_solver="covariance_eigh").fit(rows.astype(np.float64))

    def off(fitted) -> str:
        return (
            f"components off by {np.abs(fitted.components_ - exact.components_).max():.1e}, "
            f"variances by {np.abs(fitted.explained_variance_ / exact.explained_variance_ - 1).max():.1e}"
        )

    ratios = sorted(a / b for a, b in pairs)
    ours = statistics.median(a for a, _ in pairs)
    print(f"{args.rows:,} x {args.width} float32, three components, median of {args.pairs} pairs")
    print(f"  StreamingPCA    {ours:.2f} s; {off(pca)}")
    print(
        f"  PCA             {statistics.median(b for _, b in pairs):.2f} s, ratio {statistics.median(ratios):.2f} "
        f"(from {ratios[0]:.2f} to {ratios[-1]:.2f}); {off(full)}"
    )
    print(f"  IncrementalPCA  {slow:.2f} s, ratio {ours / slow:.3f}")
    for count in (args.rows // 8, args.rows):
        command = [sys.executable, __file__, "--peak", "--rows", str(count), "--width", str(args.width)]
        grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(f"  memory for {count:,} rows in batches: {float(grown):.0f} MB above the imports")


if __name__ == "__main__":
    main()
