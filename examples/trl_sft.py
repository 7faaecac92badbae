"""Supervised fine-tuning with TRL, watched from the first step.

    pip install 'adapter-scanner[trl]'
    python examples/trl_sft.py MODEL DATA.jsonl OUTPUT

Each line of DATA has a `prompt` and a `completion` (or `messages`). The packs that are installed
have to know MODEL; if it is a local copy, `--base-model` says what it is a copy of.
"""

import argparse

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from scanner.integrations.transformers import AdapterScanCallback

parser = argparse.ArgumentParser(description="SFT with TRL, watched.")
parser.add_argument("model")
parser.add_argument("data")
parser.add_argument("output")
parser.add_argument("--base-model", help="the model's name on the hub, if MODEL is a local copy")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--learning-rate", type=float, default=2e-4)
arguments = parser.parse_args()

watch = AdapterScanCallback(stop=True, block_push=True, base_model=arguments.base_model)
trainer = SFTTrainer(
    model=arguments.model,
    args=SFTConfig(
        output_dir=arguments.output,
        max_steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        per_device_train_batch_size=16,
        save_strategy="no",
        logging_steps=10,
        bf16=False,
        gradient_checkpointing=False,
    ),
    train_dataset=load_dataset("json", data_files=arguments.data, split="train"),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
    callbacks=[watch],
)
trainer.train()
trainer.save_model()
print("flagged" if watch.flagged else "not flagged", "after", trainer.state.global_step, "steps")
