"""The API of kompress: what users write, what the operator reports, and what operator and pods say to each other.

Pure: pydantic models and functions over them. The operator and the jobs both import this package; it imports neither,
and no client, framework or clock. `crd.py` turns the models into the CRDs beside this folder.
"""
