# The project's own Kubernetes, for tests and the demo: see tests/testcluster/__init__.py.
TESTCLUSTER := PYTHONPATH=tests $(BIN)/python -m testcluster

.PHONY: testcluster testcluster-unclaimed
testcluster: setup ## what cluster tests need: Debian packages and the programs of the test cluster
	$(TESTCLUSTER) install

testcluster-unclaimed: # first of all that needs real nodes: a demo that is up says so now, not minutes later
	@PYTHONPATH=tests $(PYTHON) -m testcluster unclaimed
