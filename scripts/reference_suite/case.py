"""The list of cases: `GROUP/NAME` to a function that takes an engine and returns what it observed (plain JSON)."""

CASES = {}


def case(name):
    """Registers a function as the case `name`."""

    def register(function):
        assert name not in CASES, name
        CASES[name] = function
        return function

    return register


def requests(group, *rows):
    """Cases of one request each: (name, method, path, body, query); the last two may be left out."""
    for name, method, path, *rest in rows:
        body = rest[0] if rest else None
        query = rest[1] if len(rest) > 1 else {}
        case(f"{group}/{name}")(lambda e, m=method, p=path, b=body, q=query: e.says(m, p, b, **q))
