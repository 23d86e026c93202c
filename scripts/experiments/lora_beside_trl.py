"""The same LoRA training of a reward model here and in TRL, and the paired difference of their accuracies.

    python scripts/experiments/lora_beside_trl.py DATA [--train 900] [--test 900] [--last-layers 10] [--out FOLDER]
                                                  [--own-template]

DATA is a file of preferences in any format that `gainsay data convert` reads. Its first --train pairs in a seeded
order train, the next --test judge. Both train SmolLM2-135M in f32 with r = 8 on q and v of the last layers (0: of all),
alpha 16, a head that starts at zero, AdamW, lr 1e-3 with a warm-up and a cosine, 8 pairs a step, one epoch, centering
0.01, on the same tokens, whose last is the turn end. They differ in where the adapter starts and in the order of the
pairs. With --own-template TRL makes its tokens itself, where a newline of the chat template follows the turn end and is
what the head reads, and its head starts at random. Both models are judged by `gainsay score`, which reads PEFT folders,
on what they were trained to read. Resumable: what stands in --out is not made again. Needs torch, transformers, peft, trl
and datasets (scripts/goldens/requirements.txt) and target/release/gainsay.
"""

import argparse
import json
import math
import os
import random
import subprocess
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent.parent
GAINSAY = os.environ.get("GAINSAY", str(ROOT / "target/release/gainsay"))
CACHE = Path(os.environ.get("GAINSAY_CACHE", Path.home() / ".cache/gainsay"))
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def gainsay(*args):
    done = subprocess.run([GAINSAY, *map(str, args)], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


def split(args):
    """Writes train.jsonl and test.jsonl: decided pairs, first and second as they stand."""
    whole = args.out / "all.jsonl"
    if not whole.exists():
        gainsay("data", "convert", args.data, "--to", "preferences", "--out", whole)
    rows = [row for row in map(json.loads, whole.open()) if row["p_first"] in (0, 1)]
    random.Random(args.seed).shuffle(rows)
    parts = {"train": rows[: args.train], "test": rows[args.train : args.train + args.test]}
    for name, part in parts.items():
        (args.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return parts


def write_answers(args, rows):
    """The answers to judge, for each model with what it was trained to read at their end."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CACHE, gguf_file=GGUF)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    tails = {"gainsay": ids("<|im_end|>"), "trl": ids("<|im_end|>\n" if args.own_template else "<|im_end|>")}
    for name, tail in tails.items():
        with (args.out / f"test-answers-{name}.jsonl").open("w") as file:
            for number, row in enumerate(rows):
                sides = [{"text": row[s]["text"], "token_ids": ids(row[s]["text"]) + tail} for s in ("first", "second")]
                file.write(json.dumps({"schema": 1, "id": f"t{number}", "prompt": row["prompt"], "completions": sides}) + "\n")


def train_here(args):
    folder = args.out / "gainsay"
    if not folder.exists():
        gainsay("train", "reward", "--model", "smollm2-135m", "--method", "lora", "--in", args.out / "train.jsonl",
                "--out", folder, "--head-init", "zero", "--heldout", 0, "--max-tokens", args.max_tokens,
                "--seed", args.seed, "--last-layers", args.last_layers, "--dtype", "f32")  # fmt: skip
    return folder


def train_there(args, rows):
    folder = args.out / "trl"
    if folder.exists():
        return folder
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(CACHE, gguf_file=GGUF)
    loaded = AutoModelForSequenceClassification.from_pretrained(CACHE, gguf_file=GGUF, num_labels=1, dtype=torch.float32)
    # The trainer refuses a model that came from quantized weights, though these are f32 by now.
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    model = type(loaded)(loaded.config)
    model.load_state_dict(loaded.state_dict())
    # The head reads the last token that is not the padding: SmolLM2's padding is its turn end.
    tokenizer.pad_token = "<|endoftext|>"
    model.config.pad_token_id = tokenizer.pad_token_id
    if not args.own_template:
        torch.nn.init.zeros_(model.score.weight)

    def turns(row):
        prompt = row["prompt"]
        prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        sides = [row[side]["text"] for side in ("first", "second")]
        chosen, rejected = sides if row["p_first"] == 1 else sides[::-1]
        if args.own_template:
            answer = lambda text: [{"role": "assistant", "content": text}]
            return {"prompt": prompt, "chosen": answer(chosen), "rejected": answer(rejected)}
        asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = lambda text: asked + tokenizer(text + "<|im_end|>", add_special_tokens=False)["input_ids"]
        return {"chosen_ids": ids(chosen), "rejected_ids": ids(rejected)}

    config = RewardConfig(
        output_dir=str(args.out / "trl-work"),
        num_train_epochs=1,
        # Less padding than with 8 at once.
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        gradient_checkpointing=False,
        pad_token=tokenizer.pad_token,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=round(0.1 * math.ceil(len(rows) / 8)),
        weight_decay=0.0,
        max_grad_norm=1.0,
        center_rewards_coefficient=0.01,
        max_length=args.max_tokens,
        seed=args.seed,
        use_cpu=True,
        bf16=False,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
    )
    layers = model.config.num_hidden_layers
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=8,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj"],
        layers_to_transform=list(range(layers - (args.last_layers or layers), layers)),
        modules_to_save=["score"],
    )
    data = Dataset.from_list([turns(row) for row in rows])
    trainer = RewardTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer, peft_config=lora)
    trainer.train()
    trainer.model.peft_config["default"].base_model_name_or_path = "smollm2-135m"
    trainer.model.save_pretrained(str(folder))
    return folder


def right(args, folder, rows):
    """1 a pair that the model orders as its label does, 1/2 a tie, 0 else."""
    out = folder.with_suffix(".jsonl")
    if not out.exists():
        answers = args.out / f"test-answers-{folder.name}.jsonl"
        gainsay("score", "--reward", folder, "--in", answers, "--out", out, "--truncate", "--dtype", "f32")
    found = {row["id"]: [c["reward"] for c in row["completions"]] for row in map(json.loads, out.open())}
    values = []
    for number, row in enumerate(rows):
        first, second = found[f"t{number}"]
        values.append(0.5 if first == second else float((first > second) == (row["p_first"] == 1)))
    return values


def interval(values, draws=2000):
    """Mean and its 95 % bootstrap interval over pairs, in percent."""
    rng = random.Random(0)
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(draws))
    low, high = means[int(0.025 * draws)], means[int(0.975 * draws)]
    return f"{100 * sum(values) / len(values):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--train", type=int, default=900)
    parser.add_argument("--test", type=int, default=900)
    parser.add_argument("--last-layers", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--own-template", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/lora-beside-trl")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in vars(args).items() if name != "out"}
    noted = args.out / "settings.json"
    if noted.exists() and json.loads(noted.read_text()) != settings:
        parser.error(f"{args.out} holds results of other settings; name another --out")
    noted.write_text(json.dumps(settings))
    parts = split(args)
    write_answers(args, parts["test"])
    judged = {}
    for name, folder in (("gainsay", lambda: train_here(args)), ("trl", lambda: train_there(args, parts["train"]))):
        started = time.perf_counter()
        trained = folder()
        print(f"{name}: trained in {time.perf_counter() - started:.0f} s", flush=True)
        judged[name] = right(args, trained, parts["test"])
        print(f"{name}: {interval(judged[name])} % of {len(parts['test'])} pairs right", flush=True)
    paired = [a - b for a, b in zip(judged["gainsay"], judged["trl"])]
    print(f"gainsay - trl, paired: {interval(paired)} points")


if __name__ == "__main__":
    main()
