# Everyday tasks. `.ci/run` is what has to pass before a change lands.
PYTHON ?= python

.PHONY: lab-quick check-readme update-readme check

lab-quick: ## a small real run of lab and detection benchmark, from the committed checkpoint
	$(PYTHON) -m benchmarks.organisms quick
	$(PYTHON) -m benchmarks.detection --quick

check-readme: ## README and docs show what the program prints, and only flags it has
	$(PYTHON) -m tools.command_line --check
	$(PYTHON) -m tools.check_readme

update-readme: ## write what the program prints now into README, docs and man pages
	$(PYTHON) -m tools.command_line
	$(PYTHON) -m tools.check_readme --write

check:
	.ci/run
