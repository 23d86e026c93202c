"""Parquet files as notebooks write them, for the tests of gainsay-core's reader.

    python scripts/goldens/parquet.py crates/gainsay-core/tests/goldens

Needs pandas and pyarrow. Writes:
    pandas.parquet       prompts with candidates, from a data frame with pandas' defaults
    nan.parquet          the second prompt's second candidate has the reward NaN
    preferences.parquet  TRL preference rows in the conversational form
"""

import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

folder = Path(sys.argv[1])

# n_tokens is missing once, and so a float: that is what becomes of such columns in pandas.
candidates = [
    {"text": "So.", "token_ids": [5, 6], "logp": -2.5, "n_tokens": 2.0, "reward": 0.5, "gold": None},
    {"text": "No.", "token_ids": None, "logp": -1.25, "n_tokens": None, "reward": None, "gold": 1.0},
]
prompts = pd.DataFrame(
    {
        "id": ["p0", "p1"],
        "prompt": ["Why?", "How?"],
        "completions": [candidates, []],
        "tau_b": [0.25, None],
        "topic": ["sky", "sea"],
    }
)
prompts.to_parquet(folder / "pandas.parquet")

# pandas turns NaN into null on the way out; Arrow itself and Polars keep it.
rows = [
    {"id": f"p{i}", "prompt": "Why?", "completions": [{"text": "a", "reward": r} for r in rewards]}
    for i, rewards in enumerate([[0.5, 1.5], [0.5, float("nan")]])
]
pq.write_table(pa.Table.from_pylist(rows), folder / "nan.parquet")


def turn(role, content):
    return [{"role": role, "content": content}]


preferences = pd.DataFrame(
    {
        "prompt": [turn("user", "q"), turn("user", "r")],
        "chosen": [turn("assistant", "a"), turn("assistant", "c")],
        "rejected": [turn("assistant", "b"), turn("assistant", "d")],
        "margin": [0.5, None],
    }
)
preferences.to_parquet(folder / "preferences.parquet")
