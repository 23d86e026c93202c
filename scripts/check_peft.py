"""What transformers and PEFT say about a folder that Gainsay wrote, as JSON on stdout.

    python scripts/check_peft.py --adapter DIR --base DIR --ids FILE            rewards with a LoRA adapter
    python scripts/check_peft.py --full DIR --ids FILE                          rewards of a whole reward model
    python scripts/check_peft.py --policy --adapter DIR --base DIR --ids FILE   log-probs with a LoRA adapter
    python scripts/check_peft.py --policy --full DIR --ids FILE                 log-probs of a whole policy

FILE is a JSON list: of token id lists for rewards, of {"ids": [...], "prompt_len": n} for
log-probs (n >= 1). The answer is a list of as many numbers: the scalar head at the last real
token of each sequence, found by the mask of a right-padded batch, or the sum over ids[n..] of
the natural log-prob. float32 on the CPU. --base is a folder or a .gguf file; without it the
adapter's own base_model_name_or_path is taken, relative to the adapter's folder where it is
a relative path. A parameter that the folder lacks, or one too many, is an error: the libraries
themselves would only warn and go on with random values.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from peft import PeftConfig, PeftModel, get_peft_model_state_dict  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification  # noqa: E402
from transformers import logging as transformers_logging  # noqa: E402

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
torch.set_num_threads(1)

# Head parameters that a base model of one kind rightly lacks or has too many for the other.
HEADS = ("score.", "lm_head.", "embed_out.")


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--adapter", type=Path, help="PEFT adapter folder")
    what.add_argument("--full", type=Path, help="whole Hugging Face folder")
    p.add_argument("--base", type=Path, help="base model of the adapter: folder or .gguf file")
    p.add_argument("--ids", type=Path, required=True, help="JSON file, see above")
    p.add_argument("--policy", action="store_true", help="causal language model: sequence log-probs")
    args = p.parse_args()
    if args.full and args.base:
        p.error("--base goes with --adapter; a whole folder has no base")
    return args


def load(path, policy, is_base):
    """The model in float32; fails where a parameter is missing or left over."""
    path = path.resolve()
    source = dict(pretrained_model_name_or_path=str(path))
    if path.suffix == ".gguf":
        source = dict(pretrained_model_name_or_path=str(path.parent), gguf_file=path.name)
    kind = AutoModelForCausalLM if policy else AutoModelForSequenceClassification
    more = {} if policy else {"num_labels": 1}
    model, info = kind.from_pretrained(**source, **more, dtype=torch.float32, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = [str(n) for n in info.get(problem, ())]
        wrong = [n for n in names if not (is_base and n.startswith(HEADS))]
        if wrong:
            sys.exit(f"{path}: {problem.replace('_', ' ')}: {', '.join(wrong)}")
    return model


def with_adapter(folder, base, policy):
    """Base model plus adapter; fails unless the adapter's tensors are exactly the ones PEFT expects."""
    config = PeftConfig.from_pretrained(str(folder))
    task = "CAUSAL_LM" if policy else "SEQ_CLS"
    if str(config.task_type).split(".")[-1] != task:
        sys.exit(f"{folder}/adapter_config.json: task_type is {config.task_type}, expected {task}")
    if base is None:
        if not config.base_model_name_or_path:
            sys.exit(f"{folder}/adapter_config.json names no base model; pass --base")
        base = folder / config.base_model_name_or_path
    try:
        model = PeftModel.from_pretrained(load(base, policy, is_base=True), str(folder))
    except KeyError as missing:
        sys.exit(f"{folder}/adapter_model.safetensors: no tensor {missing}")
    expected = {n: tuple(t.shape) for n, t in get_peft_model_state_dict(model).items()}
    with safe_open(folder / "adapter_model.safetensors", "pt") as f:
        found = {n: tuple(f.get_slice(n).get_shape()) for n in f.keys()}
    if found != expected:
        odd = sorted(set(found.items()) ^ set(expected.items()))
        sys.exit(f"{folder}/adapter_model.safetensors: tensors differ from what PEFT expects: {odd}")
    return model


def pad(sequences):
    """Right-padded (ids, mask); what the padding holds does not matter."""
    longest = max(map(len, sequences))
    ids = torch.tensor([s + [0] * (longest - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
    return ids, mask


def rewards(model, sequences):
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    ids, mask = pad(sequences)
    hidden = inner.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return inner.score(hidden[torch.arange(len(ids)), mask.sum(-1) - 1]).squeeze(-1).tolist()


def sequence_logps(model, rows):
    ids, mask = pad([r["ids"] for r in rows])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    # float64 from here on: summing a large vocabulary in float32 biases every log-prob.
    logps = torch.log_softmax(logits.double(), -1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return [logps[i, r["prompt_len"] - 1 : len(r["ids"]) - 1].sum().item() for i, r in enumerate(rows)]


def main():
    args = parse()
    rows = json.loads(args.ids.read_text())
    if args.full:
        model = load(args.full, args.policy, is_base=False)
    else:
        model = with_adapter(args.adapter, args.base, args.policy)
    model.eval()
    with torch.no_grad():
        values = sequence_logps(model, rows) if args.policy else rewards(model, rows)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
