# The project's own Kubernetes, for tests and the demo: see tests/testcluster/__init__.py.
TESTCLUSTER := PYTHONPATH=tests $(BIN)/python -m testcluster

.PHONY: testcluster
testcluster: setup ## what cluster tests need: Debian packages and the programs of the test cluster
	$(TESTCLUSTER) install
