# Commands for a checkout. Each one first installs what it needs into $(VENV), once.
#
#   make demo [PYTHON=python3.12] [TORCH_INDEX=URL]
#             [VIDEO=my.mp4 QUESTION="what happens?" MODEL=Qwen/Qwen3-VL-2B-Instruct]
#
# VENV=path uses an environment of your own, with the torch that is in it; `make clean` leaves it.
# TORCH_INDEX is an index of PyTorch's own, as its installation page names them: CPU or CUDA builds.

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; \
	done; echo python3)
endif
VENV ?= .venv
PY := "$(VENV)/bin/python"
INSTALL := "$(PYTHON)" .ci/install.py "$(VENV)"
VIDEO ?= sample
export TORCH_INDEX VIDEO QUESTION MODEL

.PHONY: help demo test test-transformers lint bench docs install clean
.DEFAULT_GOAL := help

help:           ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-18s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo:           ## ask the bundled model a question about the bundled video
	@$(INSTALL)
	@"$(VENV)/bin/mmkv" ask "$$VIDEO" $${QUESTION:+"$$QUESTION"} $${MODEL:+--model "$$MODEL"}

test:           ## run the tests (PYTEST_ARGS="tests/store -k kill")
	@$(INSTALL) dev decord demo scenes ray
	@$(PY) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-transformers: ## adapters with the oldest and the newest transformers, in fresh environments
	@PYTHON="$(PYTHON)" .ci/transformers

lint:           ## ruff and mypy
	@$(INSTALL) dev decord demo scenes ray
	@$(PY) -m ruff check .
	@$(PY) -m mypy

bench:          ## the measurements that the documentation quotes, and its charts
	@$(INSTALL) dev
	@$(PY) -m benchmarks.run

docs:           ## build the documentation site; a dead link is an error
	@$(INSTALL) docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "the site is in $(CURDIR)/site: open index.html there, or, to have the search as well,"
	@echo "$(PY) -m http.server --directory site 8000"

install:        ## only install (editable, with the tools for development)
	@$(INSTALL) dev decord demo scenes ray

clean:          ## remove .venv and everything built
	rm -rf .venv .venv.lock build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
