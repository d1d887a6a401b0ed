# make env: the virtual environment; make lint: ruff and shellcheck; make test: all checks;
# make fuzz: 10,000 damaged files, read by all readers;
# make oldest: the tests with the oldest versions that setup.py allows, in .venv.oldest; make wheels: asks the package
# index whether every pin has a wheel for every Python; make clean: removes environments and caches, not what recipes made

.PHONY: env lint test fuzz oldest wheels clean

env:
	@local/setup_env.sh

lint:
	@local/check.sh lint

test:
	@local/check.sh

fuzz oldest wheels:
	@local/check.sh $@

clean:
	rm -rf .venv .venv.lock .venv.oldest .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
