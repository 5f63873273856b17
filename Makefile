# Needs make, git, Python 3.11 to 3.13, and for the embedded Kafka a Java 17 or newer and Maven; nothing else.
# Python's packages go into .venv, exactly as uv.lock says; uv itself comes from the PATH or goes into .tools.

.DEFAULT_GOAL := help

# A Python to use instead of the first fitting one on the PATH: make test PYTHON=python3.12
PYTHON ?=
ARGS ?=

export UV_PROJECT_ENVIRONMENT := .venv
export UV_HTTP_TIMEOUT ?= 300
unexport VIRTUAL_ENV

uv := $(or $(PYTHON),python3) deploy/uv.py
use_python := $(if $(PYTHON),--python $(PYTHON))
bin := .venv/bin

# Make .venv hold what uv.lock says for the flags $(1), and say nothing when it does already. Only `test` removes what
# is not its own, and it has all that the others need: `make demo` after `make test` changes nothing.
define sync
@$(uv) --version >/dev/null
@$(uv) sync --locked $(use_python) $(1) --check --quiet 2>/dev/null || $(uv) sync --locked $(use_python) $(1)
endef

.PHONY: help
help: ## List what there is to make.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  ARGS="..." passes arguments on, as in: make demo ARGS="--for 30", make test ARGS="tests/stream -x"'
	@echo '  PYTHON=python3.12 chooses a Python.'

.PHONY: demo
demo: .venv-demo ## Run everything on this machine and watch it; needs no set-up.
	@$(bin)/tickloom demo $(ARGS)

.PHONY: test
test: .venv-test ## Run all tests, with real Kafka, ClickHouse and Valkey servers.
	@$(bin)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

.PHONY: chaos
chaos: .venv-demo ## Kill, pause and restart every part during a replay, and judge what comes out; ARGS="--short" is quicker.
	@$(bin)/python tests/chaos/run.py $(ARGS)
	@$(bin)/python tests/chaos/feed_run.py $(ARGS)

.PHONY: train
train: .venv-train ## Train a model on simulated ticks, or on recorded ones with ARGS="--replay DIR".
	@$(bin)/tickloom train --out .tickloom/trained/model.onnx $(ARGS)

.PHONY: bench
bench: .venv-demo ## Measure the latency from tick to prediction at several rates.
	@$(bin)/python -m bench.latency $(ARGS)

.PHONY: bench-spine
bench-spine: .venv-demo ## Send a recorded day through everything as fast as it goes: ARGS="--ticks DIR --day DAY".
	@$(bin)/python -m bench.spine $(ARGS)

.PHONY: bench-lanes
bench-lanes: .venv-bench ## Measure lanes and their peers on the same ticks: ARGS="--ticks DIR --day DAY".
	@$(bin)/python -m bench.lanes $(ARGS)

.PHONY: soak
soak: .venv-bench ## Run a worker at a steady rate for an hour and look for growth: ARGS="--minutes 60".
	@$(bin)/python -m bench.soak $(ARGS)

.PHONY: lint
lint: .venv-lint ## Check style and types: ruff, mypy --strict.
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@$(bin)/mypy

.PHONY: format
format: .venv-lint ## Rewrite the code in our style.
	@$(bin)/ruff check --fix-only --quiet .
	@$(bin)/ruff format .

.PHONY: env
env: ## Write .env with fresh secrets for `docker compose up`; keeps what is there.
	@$(or $(PYTHON),python3) deploy/make_env.py

.PHONY: vendor
vendor: ## Fetch what the page bundles anew, as it is pinned; needs npm. ARGS="--update" takes another version in.
	@deploy/vendor_page.sh $(ARGS)

.PHONY: compose-check
compose-check: env ## Check docker-compose.yml with the Compose that is installed.
	@if docker compose version >/dev/null 2>&1; then docker compose config --quiet; \
	  elif command -v docker-compose >/dev/null; then docker-compose config --quiet; \
	  else echo 'there is neither `docker compose` nor docker-compose on the PATH' >&2; exit 1; fi
	@echo 'docker-compose.yml is right'

.PHONY: clean
clean: ## Remove caches and build output; keeps .venv, .env and the demo's data.
	@find . -name __pycache__ -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis dist ./*.egg-info

.PHONY: distclean
distclean: clean ## Also remove .venv and .tools; keeps .env and the demo's data.
	@rm -rf .venv .tools

.PHONY: .venv-demo .venv-train .venv-bench .venv-lint .venv-test
.venv-demo:
	$(call sync,--extra embedded --no-dev --inexact)
.venv-train:
	$(call sync,--extra train --no-dev --inexact)
.venv-bench:
	$(call sync,--extra embedded --group bench --no-dev --inexact)
.venv-lint:
	$(call sync,--extra embedded --inexact)
.venv-test:
	$(call sync,--extra embedded --extra train --group bench)
