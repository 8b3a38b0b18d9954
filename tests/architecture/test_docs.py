import re

import pytest

from optical_scale.cli.main import VERBS
from optical_scale.config.loading import load
from tests.architecture.config_schema import ROOTS
from tests.architecture.tree import ROOT, name_of

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for folder in ("docs", "launch", "tools", "benchmarks") for page in (ROOT / folder).rglob("*.md")),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page):
    words = re.findall(r"^(?:\$ )?optical-scale (\w+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(words) <= set(VERBS)


def test_configurations_in_the_readme_are_valid(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    for block, root in zip(blocks, ("distill", "evaluate"), strict=True):
        path = tmp_path / f"{root}.yaml"
        path.write_text(block, encoding="utf-8")
        load(ROOTS[root], path)
