"""What was seen on Docker's engine, kept as a file: one line for each case, with the engine's version on top."""

import json
from pathlib import Path

PATH = Path(__file__).resolve().parent / "recorded.json"


def load():
    """(version, {case: observation}); nothing when there is no recording yet."""
    if not PATH.exists():
        return "", {}
    kept = json.loads(PATH.read_text())
    return kept["engine"], kept["cases"]


def save(version, cases):
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(cases[name], ensure_ascii=False)}" for name in sorted(cases))
    PATH.write_text(f'{{"engine": {json.dumps(version)},\n"cases": {{\n{lines}\n}}}}\n')
