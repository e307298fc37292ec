"""What is kept of an answer: the words and shapes that mean something, without ids, times and addresses that differ each time."""

import json
import re

RULES = [
    (re.compile(r"\bsuite-([a-z]+)\d+"), r"suite-\1"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "SHORT"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d| [+-]\d{4} UTC)?"), "TIME"),
    (re.compile(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "MAC"),
    (re.compile(r"\b172\.(1[6-9]|2\d|3[01])\.\d+\.\d+"), "ADDRESS"),
    (re.compile(r"\b192\.168\.\d+\.\d+"), "ADDRESS"),
]


def words(text):
    """Text without what differs each time."""
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return text.strip()


def plain(value):
    """A value with the words of its texts and keys made comparable."""
    if isinstance(value, dict):
        return {words(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return words(value) if isinstance(value, str) else value


def shape(value):
    """Keys and types: texts are `str`, numbers `int`, lists the shape of their first entry."""
    if isinstance(value, dict):
        return {words(key): shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if value is None or isinstance(value, bool):
        return "null" if value is None else "bool"
    return "str" if isinstance(value, str) else "int"


def observation(answer):
    """Status with the message of an error, or with the shape of a body."""
    seen = {"status": answer.status}
    text = answer.body.decode(errors="replace").strip()
    if not text:
        return seen
    try:
        body = json.loads(text)
    except ValueError:
        seen["text"] = words(text)[:300]
        return seen
    if isinstance(body, dict) and set(body) == {"message"}:
        seen["message"] = words(body["message"])
    else:
        seen["shape"] = shape(body)
    return seen


def pick(value, *paths):
    """Some values of a body: `State.Status`; a missing one is told as `(none)`."""
    found = {}
    for path in paths:
        at = value
        for key in path.split("."):
            if isinstance(at, list) and key.isdigit():
                at = at[int(key)] if int(key) < len(at) else "(none)"
            else:
                at = at.get(key, "(none)") if isinstance(at, dict) else "(none)"
        found[path] = plain(at)
    return found


def difference(expected, got, path=""):
    """The first few ways in which two observations differ, in one line."""
    found = []
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in [*expected, *(key for key in got if key not in expected)]:
            at = f"{path}.{key}" if path else str(key)
            if key not in got:
                found.append(f"{at} missing (there: {brief(expected[key])})")
            elif key not in expected:
                found.append(f"{at} is extra: {brief(got[key])}")
            else:
                found += difference(expected[key], got[key], at)
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for index, (one, other) in enumerate(zip(expected, got)):
            found += difference(one, other, f"{path}[{index}]")
    elif expected != got:
        found.append(f"{path}: there {brief(expected)}, here {brief(got)}")
    return found


def brief(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 240 else text[:237] + "…"
