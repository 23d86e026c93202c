"""Trainers' own reward clients, and TRL itself, against `gainsay serve`."""

import asyncio
import re
import sys
import types
import zipfile
from unittest import mock

from common import REMOTE, ROOT, gguf, head, post, reward_server


def unpacked(name):
    """The folder of a wheel's files."""
    target = REMOTE / "unpacked" / name
    if not target.exists():
        [wheel] = (REMOTE / "wheels").glob(f"{name}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    return target


def package(name, path):
    """An empty package at a place: its own __init__ may import what is not needed here."""
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    sys.modules[name] = module


def openrlhf(folder):
    root = next(unpacked("openrlhf").rglob("openrlhf/utils")).parent
    package("openrlhf", root)
    package("openrlhf.utils", root / "utils")
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    with reward_server(folder, head(folder)) as url:
        client = SingleTurnAgentExecutor(f"{url}/get_reward")
        text = "<|im_start|>user\nSay a.<|im_end|>\n<|im_start|>assistant\na, of course.<|im_end|>"
        got = asyncio.run(client._fetch_rewards_via_http([text], ["Say a."], [""]))
        own = post(f"{url}/v1/reward", {"items": [{"text": text}]})["rewards"]
        assert got[0]["rewards"] == own and got[0]["scores"] == own, (got, own)
        print(f"  OpenRLHF's own client: reward {own[0]:.6f}, equal to /v1/reward")


def verl(folder):
    root = unpacked("verl") / "verl"
    # The client is one plain class; what surrounds it (ray, tensordict) plays no part here.
    for name in ["ray", "ray.actor", "omegaconf", "tensordict", "verl.protocol", "verl.single_controller.ray.base",
                 "verl.trainer.ppo.reward", "verl.utils", "verl.utils.fs", "verl.utils.ray_utils",
                 "verl.experimental.reward_loop.reward_model"]:
        sys.modules[name] = mock.MagicMock()
    package("verl", root)
    package("verl.experimental", root / "experimental")
    package("verl.experimental.reward_loop", root / "experimental/reward_loop")
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    with reward_server(folder, head(folder)) as url:
        own = post(f"{url}/v1/reward", {"items": [{"prompt": "Say a.", "completion": "a, of course."}]})["rewards"][0]
        rendered = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" \
            "<|im_start|>user\nSay a.<|im_end|>\n<|im_start|>assistant\na, of course.<|im_end|>\n"
        for engine in ["vllm", "sglang"]:
            worker = object.__new__(RewardLoopWorker)
            worker.reward_router_address = url.removeprefix("http://")
            worker.config = mock.MagicMock()
            worker.config.reward.reward_model.rollout.name = engine
            worker.config.reward.reward_model.model_path = "rm"

            async def text(_data):
                # As verl's own preprocessing leaves it: without the leading beginning-of-sequence token.
                return rendered.removeprefix("<|im_start|>")

            worker._preprocess_reward_inputs = text
            got = asyncio.run(worker.compute_score_disrm(None))
            assert got["reward_score"] == own, (engine, got, own)
            print(f"  verl's own client ({engine}): reward {own:.6f}, equal to prompt and completion apart")


def trl(folder):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    path = gguf()
    kind = {"gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(path.parent, **kind)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **kind)
    with reward_server(folder, head(folder)) as url:
        def reward(prompts, completions, **_):
            items = [{"prompt": p, "completion": c} for p, c in zip(prompts, completions)]
            return post(f"{url}/v1/reward", {"items": items})["rewards"]

        config = GRPOConfig(output_dir=str(folder / "grpo"), max_steps=2, num_generations=2, max_completion_length=8,
                            per_device_train_batch_size=2, use_cpu=True, bf16=False, report_to=[], logging_steps=1)
        data = Dataset.from_dict({"prompt": ["Say a.", "Say b.", "Say c.", "Say d."]})
        trainer = GRPOTrainer(model=model, reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer)
        trainer.train()
        rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
        assert trainer.state.global_step == 2 and len(rewards) == 2, trainer.state.log_history
        print(f"  TRL's GRPOTrainer: 2 steps, mean rewards {rewards}")


def options(_folder):
    """Every option of the exported scripts is one that the trainer's package knows."""
    exported = ROOT / "crates/gainsay/src/recipes/export"
    [parser] = unpacked("openrlhf").rglob("cli/train_ppo_ray.py")
    [rm_parser] = unpacked("openrlhf").rglob("cli/train_rm.py")
    for script, source in [("openrlhf_train_policy.sh", parser), ("openrlhf_train_reward.sh", rm_parser)]:
        used = set(re.findall(r"(?<=\s)--([a-z]+\.[a-z_.]+)", (exported / script).read_text()))
        known = set(re.findall(r"add_argument\(\s*\"--([a-z_.]+)\"", source.read_text()))
        assert used and used <= known, f"{script}: unknown to OpenRLHF: {sorted(used - known)}"
        print(f"  {script}: {len(used)} options, all known to OpenRLHF")
    import yaml

    config = yaml.safe_load((unpacked("verl") / "verl/trainer/config/_generated_ppo_trainer.yaml").read_text())
    used = set(re.findall(r"(?<=\s)([a-z_]+(?:\.[a-z_]+)+)=", (exported / "verl_train_policy.sh").read_text()))
    for name in used:
        place = config
        for part in name.split("."):
            assert part in place, f"verl_train_policy.sh: unknown to verl: {name}"
            place = place[part]
    assert used
    print(f"  verl_train_policy.sh: {len(used)} options, all known to verl")
