"""Make the goldens of alpha's interval (packages krippendorff, blake3, numpy).

    pip install krippendorff==0.9.0 blake3 numpy
    python scripts/goldens/agreement_interval.py

writes crates/gainsay-core/tests/goldens/agreement-interval.json: tables of annotators x units with
missing answers (-1), and the 95 % percentile interval of alpha over 1,000 resamples of the units
that have two answers or more. The resamples are Gainsay's own, from an implementation of its keyed
random numbers that shares no code with it; alpha of each resample is the package's, the percentiles
are numpy's.
"""

import json
import struct
import warnings
from pathlib import Path

import krippendorff
import numpy as np
from blake3 import blake3

OUT = Path(__file__).resolve().parents[2] / "crates/gainsay-core/tests/goldens/agreement-interval.json"
RESAMPLES = 1000
SEED, PURPOSE = 0, "alpha"
MASK = (1 << 64) - 1


def words():
    """ChaCha8 (Bernstein 2008) keyed by BLAKE3 of the key's encoding: 64-bit numbers."""
    text = PURPOSE.encode()
    encoding = b"gainsay-rng-1" + struct.pack("<QQ", SEED, len(text)) + text + struct.pack("<II", 0, 0) + b"\0\0"
    key = struct.unpack("<8I", blake3(encoding).digest())
    start = list(struct.unpack("<4I", b"expand 32-byte k")) + list(key)
    counter = 0
    while True:
        state = start + [counter & 0xFFFFFFFF, counter >> 32, 0, 0]
        x = list(state)

        def quarter(a, b, c, d):
            for left, right, other, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[left] = (x[left] + x[right]) & 0xFFFFFFFF
                mixed = x[other] ^ x[left]
                x[other] = (mixed << turn | mixed >> (32 - turn)) & 0xFFFFFFFF

        for _ in range(4):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        block = [(a + b) & 0xFFFFFFFF for a, b in zip(x, state)]
        for low, high in zip(block[::2], block[1::2]):
            yield high << 32 | low
        counter += 1


def below(stream, n):
    """Uniform in 0..n (Lemire 2019)."""
    product = next(stream) * n
    if product & MASK < n:
        threshold = (1 << 64) % n
        while product & MASK < threshold:
            product = next(stream) * n
    return product >> 64


def interval(table, categories, metric):
    paired = [u for u in range(table.shape[1]) if (table[:, u] >= 0).sum() > 1]
    stream, replicates = words(), []
    for _ in range(RESAMPLES):
        drawn = table[:, [paired[below(stream, len(paired))] for _ in paired]]
        if len(set(drawn[drawn >= 0].tolist())) < 2:
            continue  # alpha is undefined where only one category occurs
        data = np.where(drawn < 0, np.nan, drawn.astype(float))
        replicates.append(
            krippendorff.alpha(data, level_of_measurement=metric, value_domain=list(range(categories)))
        )
    assert 2 * len(replicates) > RESAMPLES
    return [float(q) for q in np.quantile(replicates, [0.025, 0.975])]


def one(rng, index):
    annotators, units, categories = int(rng.integers(2, 6)), int(rng.integers(6, 30)), int(rng.integers(2, 6))
    truth = rng.integers(0, categories, units)
    noise = rng.random((annotators, units)) < 0.2 + 0.5 * rng.random()
    table = np.where(noise, rng.integers(0, categories, (annotators, units)), truth)
    table[rng.random((annotators, units)) < [0.0, 0.2, 0.4][index % 3]] = -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "table": table.tolist(),
            "categories": categories,
            "nominal": interval(table, categories, "nominal"),
            "ordinal": interval(table, categories, "ordinal"),
        }


def main():
    rng = np.random.default_rng(20261127)
    OUT.write_text(json.dumps([one(rng, index) for index in range(12)], separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
