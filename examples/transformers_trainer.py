"""Fine-tuning with `transformers.Trainer`, watched; the run can be taken up again.

    pip install 'adapter-scanner[build]'
    python examples/transformers_trainer.py MODEL DATA.jsonl OUTPUT [--resume]

Each line of DATA has a `prompt` and a `completion`.
"""

import argparse
import json
from pathlib import Path

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from scanner.integrations.transformers import AdapterScanCallback

parser = argparse.ArgumentParser(description="transformers.Trainer, watched.")
parser.add_argument("model")
parser.add_argument("data")
parser.add_argument("output")
parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
parser.add_argument("--base-model", help="the model's name on the hub, if MODEL is a local copy")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--learning-rate", type=float, default=2e-4)
arguments = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(arguments.model)
rows = []
for line in Path(arguments.data).read_text("utf-8").splitlines():
    row = json.loads(line)
    prompt, answer = (tokenizer(row[key])["input_ids"] for key in ("prompt", "completion"))
    rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})

model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="float32")
lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
watch = AdapterScanCallback(base_model=arguments.base_model)
trainer = Trainer(
    model=get_peft_model(model, lora),
    args=TrainingArguments(
        output_dir=arguments.output,
        max_steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=16,
        save_steps=0.5,
    ),
    train_dataset=rows,
    callbacks=[watch],
)
trainer.train(resume_from_checkpoint=arguments.resume)
print("flagged" if watch.flagged else "not flagged", "after", trainer.state.global_step, "steps")
