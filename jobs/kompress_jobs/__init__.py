"""What runs in a pod. The rooms, from the door inwards; an import points down (`layers` in pyproject.toml):

| room | what it holds |
| --- | --- |
| `pod/` | the life of a pod: its environment, torchrun's agent, the workers, the last word |
| `stages/` | one module a kind of stage; those of users work at the `Bench` (`bench.py`) |
| `tracking/` | from the events that a worker writes down (`events.py`) to the run that a person looks at in MLflow |
| `rehearsal/`, `report/` | what stands around the stages: each once without training, its size and memory; what people read |
| `granularities/`, `losses/` | registries: a name of the API is a module there (`registry.py`) |
| `pruning/`, `distillation/` | what pruning needs besides its granularities and importances, and distilling besides its losses |
| `evaluation/` | finished models that answer once more: in their engine, on other data, after other seeds |
| `tasks/`, `strategies/` | registries: how samples of a task are prepared, learned and judged; what of a model is trained |
| `training/` | the one loop, its checkpoints and its order; the processes are a `Gang` (`gang.py`) |
| `measure/` | figures of predictions, models and engines |
| `loading/` | from an address to a model with its description (`description.py`), and back to a bundle |
| `models/`, `exporters/` | registries: where models come from, file formats that they are written in |
| `modules/` | what is done to an `nn.Module`, whatever the stage |
| `planning/` | keys, fingerprints and the plan that the preflight writes and stages read |
| `data/`, `builtins/`, `preprocessing/` | registries: where samples come from, and how they become what a model takes |
| `samples/` | how labelled samples are read, wherever they lie |
| `regularizers/`, `fusions/`, `importances/`, `quantizers/` | registries that lean on no other room |
| `storage/` | objects in a bucket or a folder, and this node's copies of them |

A file in a registry is a method: what several of them share lies in a room of its own, or at the top.
"""
