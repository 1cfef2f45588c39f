"""The reader of the pages: a command that it overlooks would be one that nobody runs."""

import pytest

from docs.pages import Step, pages, steps, unseen
from testcluster.places import REPOSITORY

PAGE = """# Title
Type `kompress get` or, over
two lines, `kubectl get
pods`; not `kubectl`, not `a make b`.
<!-- `make nothing` -->

```sh
make run
```
```text
ends … well
```

```yaml
# job.yaml
kind: X
```
```yaml
kind: Y
```
```
just drawn: `make art`
```
"""


def test_every_command_and_manifest_is_found_in_the_order_of_the_page() -> None:
    found = steps("a.md", PAGE)
    assert found == [
        Step("a.md", 2, "inline", "kompress get"),
        Step("a.md", 3, "inline", "kubectl get pods"),
        Step("a.md", 7, "block", "make run\n", "ends … well\n"),
        Step("a.md", 14, "yaml", "# job.yaml\nkind: X\n"),
        Step("a.md", 18, "yaml", "kind: Y\n"),
    ]
    assert [step.file for step in found] == ["", "", "", "job.yaml", ""]


def test_a_block_that_nobody_would_run_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"b\.md:1: nobody runs a block of `bash`"):
        steps("b.md", "```bash\nrm\n```\n")


def test_shown_lines_must_be_printed_in_order() -> None:
    printed = "stage    state\nadapt    Reused   0.99\nship     Failed\n"
    assert unseen("stage … state\nadapt … Reused\n", printed) == []
    assert unseen("ship … Reused\n", printed) == ["ship … Reused"]
    assert unseen("ship\nadapt\n", printed) == ["adapt"]


def test_no_page_is_left_out() -> None:
    """A page somewhere else than in docs/ would not be executed."""
    ignored = {".venv", "build", "kompress-runs", ".pytest_cache"}
    found = {path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*.md")}
    assert {str(path) for path in found if not ignored & set(path.parts)} == set(pages(REPOSITORY))
    for page in pages(REPOSITORY):
        steps(page, (REPOSITORY / page).read_text())
