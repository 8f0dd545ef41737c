# Two commands are all a newcomer needs: `make demo` (the main job) and `make test`.
.PHONY: demo test setup-tests lint check-types tests bench bench-peers performance-page screenshots site setup lock clean

demo: setup            ## the main job, visibly: a real backup, a daemon killed in the middle, one callback
	.venv/bin/python docs/demo.py

test: setup-tests lint check-types tests  ## everything CI runs

setup:
	@.ci/setup

setup-tests:
	@.ci/setup tests

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

check-types:
	.venv/bin/mypy

tests:
	.venv/bin/pytest -q -n 2

bench: setup           ## every row of the table, at most 20 minutes; one row: .venv/bin/python -m benchmarks p01
	.venv/bin/python -m benchmarks

bench-peers: setup     ## Huey, RQ, Celery and Dramatiq beside this daemon, in a venv of their own; about 10 minutes
	benchmarks/setup peers
	.venv/bin/python -m benchmarks.peers

performance-page: setup ## docs/performance.md and its plots from the results of `make bench` and `make bench-peers`
	@benchmarks/setup
	.bench-venv/bin/python -m benchmarks.page

screenshots: setup-tests ## docs/images: the dashboard in Chromium
	.venv/bin/python docs/screenshots.py

site: setup            ## the documentation as a site, in site/
	.venv/bin/mkdocs build --strict --config-file docs/mkdocs/mkdocs.yml

lock: setup            ## renew requirements.lock; needs uv on the PATH
	uv pip compile pyproject.toml --extra test --extra docs --extra keystone --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o requirements.lock
	uv pip compile benchmarks/requirements.in --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o benchmarks/requirements.txt

clean:
	rm -rf .venv site .bench-venv .keystone-venv .mypy_cache .ruff_cache .pytest_cache dist build
