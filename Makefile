# make env: the virtual environment; make lint: ruff and shellcheck; make test: all checks;
# make clean: removes the environment and caches, not what recipes made

.PHONY: env lint test clean

env:
	@local/setup_env.sh

lint:
	@local/check.sh lint

test:
	@local/check.sh

clean:
	rm -rf .venv .venv.lock .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
