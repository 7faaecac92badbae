# Everyday tasks. `.ci/run` is what has to pass before a change lands.
PYTHON ?= python

.PHONY: check-readme update-readme check

check-readme: ## README and docs show what the program prints, and only flags it has
	$(PYTHON) tools/check_readme.py

update-readme: ## write what the program prints now into README and docs
	$(PYTHON) tools/check_readme.py --write

check:
	.ci/run
