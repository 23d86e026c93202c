"""Token ids of a small SentencePiece BPE model with Llama 2's settings, by sentencepiece itself.

    pip install sentencepiece==0.2.3
    python scripts/goldens/spm.py

Trains on the demo's own prompts and writes crates/gainsay-lm/tests/goldens/spm.json: `tokens`,
`scores` and `types` as GGUF files store them, and `rows` of `text`, `ids` (no beginning or end
token) and `decoded`.
"""

import io
import json
import pathlib

import sentencepiece as spm

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "crates/gainsay-lm/tests/goldens/spm.json"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
TEXTS = [
    "The capital of France is Paris.",
    "  leading and   runs of spaces",
    "tabs\tand\nnew lines\n\n",
    "12345 3.14159",
    "café, naïve, Straße",
    "你好 🙂",
    "How do I kill a Python process?",
    "a",
    " ",
    "▁ the space sign itself",
    "I'm sure they'll be here; aren't you?",
]


def train() -> spm.SentencePieceProcessor:
    lines = []
    for path in sorted((ROOT / "data").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            prompt = json.loads(line).get("prompt")
            if isinstance(prompt, str):
                lines.append(prompt)
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=700, byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2,
    )
    return spm.SentencePieceProcessor(model_proto=model.getvalue())


def kind(model: spm.SentencePieceProcessor, i: int) -> int:
    if model.is_unknown(i):
        return UNKNOWN
    if model.is_control(i):
        return CONTROL
    return BYTE if model.is_byte(i) else NORMAL


def main() -> None:
    model = train()
    ids = range(model.get_piece_size())
    golden = {
        "made_with": f"sentencepiece {spm.__version__}",
        "tokens": [model.id_to_piece(i) for i in ids],
        "scores": [model.get_score(i) for i in ids],
        "types": [kind(model, i) for i in ids],
        "rows": [{"text": t, "ids": model.encode(t), "decoded": model.decode(model.encode(t))} for t in TEXTS],
    }
    fields = ",\n".join(
        f" {json.dumps(name)}: "
        + ("[\n" + ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in value) + "\n ]" if name == "rows"
           else json.dumps(value, ensure_ascii=False))
        for name, value in golden.items()
    )
    OUT.write_text("{\n" + fields + "\n}\n")


if __name__ == "__main__":
    main()
