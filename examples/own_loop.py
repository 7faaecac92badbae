"""A training loop of one's own, watched without any trainer.

    pip install 'adapter-scanner[build]'
    python examples/own_loop.py MODEL DATA.jsonl OUTPUT

Each line of DATA has a `prompt` and a `completion`.
"""

import argparse
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from scanner.integrations.watching import AdapterWatch
from scanner.reports.training_html import render

parser = argparse.ArgumentParser(description="A loop of one's own, watched.")
parser.add_argument("model")
parser.add_argument("data")
parser.add_argument("output")
parser.add_argument("--base-model", help="the model's name on the hub, if MODEL is a local copy")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--learning-rate", type=float, default=2e-4)
arguments = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(arguments.model)
lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
base = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="float32")
model = get_peft_model(base, lora)
rows = [json.loads(line) for line in Path(arguments.data).read_text("utf-8").splitlines()]
trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=arguments.learning_rate)

watch = AdapterWatch(model, base_model=arguments.base_model)
watch.begin(arguments.steps)
for step in range(1, arguments.steps + 1):
    for index in range(16 * step, 16 * step + 16):
        row = rows[index % len(rows)]
        prompt, answer = (tokenizer(row[key])["input_ids"] for key in ("prompt", "completion"))
        labels = torch.tensor([[-100] * len(prompt) + answer])
        (model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss / 16).backward()
    optimizer.step()
    optimizer.zero_grad()
    if watch.is_due(step):
        for scan in watch.scan(step):
            print(step, scan.adapter, scan.result.verdict.value, scan.result.dose)
    if watch.flagged:
        break
model.save_pretrained(arguments.output)
Path(arguments.output, "adapter_scan.html").write_text(render(watch.record(), watch.signatures))
print("flagged" if watch.flagged else "not flagged", "after", step, "steps")
