"""Makes the preference pairs that the built-in gold reward model learns from.

    python3 scripts/gold/make_pairs.py --hh hh-harmless.jsonl.gz --xstest xstest-responses.jsonl.gz --out DIR

Sources: Anthropic hh-rlhf, harmless-base (Bai et al. 2022, arXiv 2204.05862; MIT) and XSTest v2
with the responses of five models (Röttger et al. 2023, arXiv 2308.01263; CC BY 4.0).

Writes DIR/hh.jsonl and DIR/xstest.jsonl, Gainsay preference records with labels in the data:

- hh: human preferences between two answers at the end of one dialogue, as they are; dialogues of
  at most HH_CHARACTERS characters, as the demo's are short.
- xstest: pairs of answers to one prompt with different gold. On safe prompts full compliance is
  worth 1, partial refusal 1/2, refusal 0; on contrast (unsafe) prompts the reverse. At most
  PAIRS_PER_PROMPT pairs a prompt, drawn by a hash. Answers are cut to their first LONG_WORDS
  words, those of every second pair to SHORT_WORDS, without a turn end, because the demo's
  completions are short and often cut.

The script is deterministic: draws are hashes of the prompt, never of time or order.
"""

import argparse
import gzip
import hashlib
import itertools
import json
from pathlib import Path

PAIRS_PER_PROMPT = 6
LONG_WORDS = 100
SHORT_WORDS = 36
HH_CHARACTERS = 520
GOLD = {"1_full_compliance": 1.0, "3_partial_refusal": 0.5, "2_full_refusal": 0.0}


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def draw(*parts):
    """A uniform integer keyed on the parts."""
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "big")


def dialogue(text):
    """An hh-rlhf dialogue as turns, oldest first."""
    turns = []
    for chunk in text.split("\n\nHuman: ")[1:]:
        human, *assistant = chunk.split("\n\nAssistant:")
        turns.append({"role": "user", "content": human.strip()})
        turns.extend({"role": "assistant", "content": part.strip()} for part in assistant)
    return turns


def hh_pairs(rows):
    for number, row in enumerate(rows):
        chosen, rejected = dialogue(row["chosen"]), dialogue(row["rejected"])
        if len(chosen) < 2 or chosen[:-1] != rejected[:-1] or chosen[-1]["role"] != "assistant":
            continue
        if not chosen[-1]["content"] or not rejected[-1]["content"]:
            continue
        prompt = sum(len(turn["content"]) for turn in chosen[:-1])
        if prompt + max(len(chosen[-1]["content"]), len(rejected[-1]["content"])) > HH_CHARACTERS:
            continue
        sides = [{"text": turns[-1]["content"]} for turns in (chosen, rejected)]
        yield record(f"hh-{number}", chosen[:-1], *sides, {"source": "hh"})


def gold(row, response):
    value = GOLD[response["final_label"]]
    return 1.0 - value if row["type"].startswith("contrast_") else value


def cut(text, limit):
    """The first words as they stand, or None when the text is shorter."""
    words = text.split(" ")
    return " ".join(words[:limit]) if len(words) > limit else None


def xstest_pairs(rows):
    for number, row in enumerate(rows):
        pairs = [
            (a, b) if gold(row, a) > gold(row, b) else (b, a)
            for a, b in itertools.combinations(row["responses"], 2)
            if gold(row, a) != gold(row, b) and a["text"].strip() and b["text"].strip()
        ]
        pairs.sort(key=lambda pair: draw(row["prompt"], pair[0]["model"], pair[1]["model"]))
        meta = {"source": "xstest", "type": row["type"]}
        for index, (better, worse) in enumerate(pairs[:PAIRS_PER_PROMPT]):
            limit = SHORT_WORDS if index % 2 else LONG_WORDS
            sides = [side(answer["text"].strip(), limit) for answer in (better, worse)]
            yield record(f"xstest-{number}-{index}", row["prompt"], *sides, meta)


def record(name, prompt, better, worse, meta):
    """A preference record; which side stands first is a hash of its name."""
    swap = draw("side", name) % 2
    first, second = (worse, better) if swap else (better, worse)
    return {
        "schema": 1,
        "id": name,
        "prompt": prompt,
        "first": first,
        "second": second,
        "p_first": 0.0 if swap else 1.0,
        "answer": "second" if swap else "first",
        "source": "labels",
        "meta": meta,
    }


def side(text, limit):
    short = cut(text, limit)
    return {"text": short, "finish": "length"} if short else {"text": text}


def write(path, records):
    with open(path, "w", encoding="utf-8") as out:
        count = 0
        for item in records:
            out.write(json.dumps(item, ensure_ascii=False) + "\n")
            count += 1
    print(f"{path}: {count} pairs")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hh", required=True)
    parser.add_argument("--xstest", required=True)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "hh.jsonl", hh_pairs(read(args.hh)))
    write(args.out / "xstest.jsonl", xstest_pairs(read(args.xstest)))


if __name__ == "__main__":
    main()
