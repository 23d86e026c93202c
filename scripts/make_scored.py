"""Writes a scored file of random groups, to measure `gainsay conflicts` on.

    python3 scripts/make_scored.py --prompts 1000000 --out scored.jsonl

Eight completions a prompt, with reward, logp and n_tokens and an empty text; deterministic.
"""

import argparse
import random


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    draw = random.Random(7).random
    with open(args.out, "w", encoding="ascii") as out:
        for number in range(args.prompts):
            group = ",".join(
                f'{{"text":"","logp":{-80 * draw() - 1:.4f},"n_tokens":{int(60 * draw()) + 1},"reward":{6 * draw() - 3:.4f}}}'
                for _ in range(args.completions)
            )
            out.write(f'{{"schema":1,"id":"p{number}","prompt":"q","completions":[{group}]}}\n')


if __name__ == "__main__":
    main()
