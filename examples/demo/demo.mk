# The demo: see examples/demo/demo.py.
.PHONY: demo demo-down
demo: testcluster ## a real cluster with two nodes, the operator by Helm, and examples/digits.yaml on it
	PYTHONPATH=tests $(BIN)/python examples/demo/demo.py

demo-down: setup ## takes the demo down; nothing of it is left
	$(TESTCLUSTER) --name demo down
