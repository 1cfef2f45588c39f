"""What runs in a pod. The rooms, from the door inwards:

| room | what it holds |
| --- | --- |
| `pod/` | the life of a pod: its environment, torchrun's agent, the workers, the last word |
| `stages/` | one module a kind of stage; all of them work at the `Bench` of `engine.py` |
| `planning/` | what the preflight tells before anything runs: keys, fingerprints, sizes, memory |
| `training/` | the one loop, its checkpoints and its gang |
| `tasks/`, `models/`, `data/`, `builtins/`, `strategies/`, `losses/`, `regularizers/`, `granularities/`, `importances/`, `fusions/`, \
`quantizers/`, `exporters/`, `preprocessing/` | the methods: a name of the API is a module there (`registry.py`) |
| `pruning/` | what granularities and importances share |
| `samples/` | how labelled samples are read, wherever they lie |
| `loading/` | from an address to a model with its description, and back to a bundle |
| `modules/` | what is done to an `nn.Module`, whatever the stage |
| `measure/` | figures of predictions, models and engines |
| `report/`, `tracking/`, `storage/` | what people read, what MLflow keeps, what S3 keeps |
"""
