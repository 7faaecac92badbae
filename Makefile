# Everyday tasks. `.ci/run` is what has to pass before a change lands.
PYTHON ?= python

.PHONY: lab-quick check-readme update-readme check

lab-quick: ## a small real run of lab and detection benchmark, from the committed checkpoint
	$(PYTHON) -m benchmarks.organisms quick
	$(PYTHON) -m benchmarks.detection --quick

check-readme: ## README and docs show what the program prints, and only flags it has
	$(PYTHON) -m tools.command_line --check
	$(PYTHON) tools/check_readme.py

update-readme: ## write what the program prints now into README, docs and man pages
	$(PYTHON) -m tools.command_line
	$(PYTHON) tools/check_readme.py --write

check:
	.ci/run
