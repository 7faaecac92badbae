"""Preference tuning (DPO) with TRL, watched; an adapter that starts from another one as well.

    pip install 'adapter-scanner[trl]'
    python examples/trl_dpo.py MODEL DATA.jsonl OUTPUT [--adapter ADAPTER]

Each line of DATA has a `prompt`, a `chosen` and a `rejected` answer. With --adapter, TRL keeps a
frozen copy of it under the name `ref`; what is watched is the adapter that is trained.
"""

import argparse

from datasets import load_dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from scanner.integrations.transformers import AdapterScanCallback

parser = argparse.ArgumentParser(description="DPO with TRL, watched.")
parser.add_argument("model")
parser.add_argument("data")
parser.add_argument("output")
parser.add_argument("--adapter", help="train this adapter on")
parser.add_argument("--base-model", help="the model's name on the hub, if MODEL is a local copy")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--learning-rate", type=float, default=5e-5)
arguments = parser.parse_args()

model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="float32")
config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
if arguments.adapter:
    model = PeftModel.from_pretrained(model, arguments.adapter, is_trainable=True)
watch = AdapterScanCallback(base_model=arguments.base_model, stop=True)
trainer = DPOTrainer(
    model=model,
    args=DPOConfig(
        output_dir=arguments.output,
        max_steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        per_device_train_batch_size=16,
        save_strategy="no",
        bf16=False,
        gradient_checkpointing=False,
    ),
    train_dataset=load_dataset("json", data_files=arguments.data, split="train"),
    processing_class=AutoTokenizer.from_pretrained(arguments.model),
    peft_config=None if arguments.adapter else config,
    callbacks=[watch],
)
trainer.train()
trainer.save_model()
print("flagged" if watch.flagged else "not flagged", "after", trainer.state.global_step, "steps")
