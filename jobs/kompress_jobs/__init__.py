"""What runs in a pod. The rooms, from the door inwards:

| room | what it holds |
| --- | --- |
| `pod/` | the life of a pod: its environment, torchrun's agent, the workers, the last word |
| `stages/` | one module a kind of stage; those of users work at the `Bench` (`bench.py`) |
| `planning/` | what can be told before anything runs: keys, fingerprints, sizes, memory; written by the preflight, read by stages |
| `training/` | the one loop, its checkpoints and its gang |
| `tasks/`, `models/`, `data/`, `builtins/`, `preprocessing/` | registries: a name of the API is a module there (`registry.py`) |
| `strategies/`, `losses/`, `regularizers/`, `granularities/`, `importances/`, `fusions/`, `quantizers/`, `exporters/` | likewise |
| `pruning/` | what granularities and importances share: budgets, search, sensitivity, recovery |
| `evaluation/` | finished models that answer once more: other data, other seeds |
| `samples/` | how labelled samples are read, wherever they lie |
| `loading/` | from an address to a model with its description, and back to a bundle |
| `modules/` | what is done to an `nn.Module`, whatever the stage |
| `measure/` | figures of predictions, models and engines |
| `report/`, `tracking/`, `storage/` | what people read, what MLflow keeps, what S3 keeps |

What several modules of a registry share lies at the top, since each file in a registry is a method.
"""
