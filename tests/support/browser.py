"""A real browser without a window, where one is installed: what a page is after its script has run."""

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")


def visit(page: Path, script: str, folder: Path) -> str:
    """Open a copy of ``page``, run ``script`` (body of an async function) after its own, and return what it returns.

    Raises:
        AssertionError: the page or the script raised an error, or the page asked for anything on the network.
    """
    assert BROWSER is not None
    text = page.read_text(encoding="utf-8")
    watch = "<script>window.problems = []; window.onerror = message => { window.problems.push(message); };</script>"
    # A page that is complete in itself works under a policy that forbids to load anything.
    policy = """<meta http-equiv="Content-Security-Policy" content="default-src 'unsafe-inline' data:">"""
    probe = (
        "<script>(async () => {" + script + "})().catch(error => 'PROBLEMS ' + error).then(found => {"
        "const out = document.createElement('pre'); out.id = 'found';"
        "out.textContent = found + (window.problems.length ? ' PROBLEMS ' + window.problems : '');"
        "document.body.append(out); });</script>"
    )
    copy = folder / "visited.html"
    text = text.replace("<head>", f"<head>{policy}{watch}", 1).replace("</body>", f"{probe}</body>", 1)
    copy.write_text(text, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert match, done.stderr[-2000:]
    found = unescape(match.group(1))
    assert "PROBLEMS" not in found, found
    return found
