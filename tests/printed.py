"""What a page of documentation prints: its files and its commands, to be run as they stand there."""

import re
import shlex
from pathlib import Path

from command import TINY, run_bundle


def printed_files(page):
    """Content of each file that the page shows, by name: a fenced block behind a line that names the file first."""
    return dict(re.findall(r"^`([\w.]+)`[^\n]*:\n\n```\w+\n(.*?)```$", page.read_text(), re.MULTILINE | re.DOTALL))


def printed_commands(page, heading):
    """Words of each command for MONAI in a section of the page, behind ``python -m monai.bundle``."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    section = text.partition(f"\n{heading}\n")[2]
    section = re.split(rf"\n#{{1,{heading.count('#')}}} ", section)[0]
    lines = re.sub(r" \\\n +", " ", section).splitlines()
    commands = [line.strip() for line in lines if line.startswith("    python -m monai.bundle ")]
    return [command.removeprefix("python -m monai.bundle ") for command in commands]


def run_printed(command, bundle, **keys):
    """Run a printed command, with :data:`TINY` keys where its configuration has them, and ``keys``.

    ``$BUNDLE`` is the bundle's folder; as the interpreter is told of a command that is typed, the current folder is
    where modules are looked for.
    """
    words = shlex.split(command.replace("$BUNDLE", str(bundle)))
    if words[0] == "run":
        config = re.search(r"[\w/.-]+\.yaml", words[words.index("--config_file") + 1]).group()
        known = Path(config).read_text()
        keys = {**{key: value for key, value in TINY.items() if f"\n{key}:" in known}, **keys}
    return run_bundle(*words, *(str(word) for key in keys for word in (f"--{key}", keys[key])))
