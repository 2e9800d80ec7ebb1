"""Runs one piece of a user's code inside the project and tells what came of it, as one line of JSON.

The code comes on standard input. What it assigns to `result` is reported, with its warnings and its exception.
"""

import json
import os
import sys
import traceback
import types
import warnings
from typing import Any

from shopapp.effects import label

REPORT = "snippet-report: "


def main() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
    django.setup()

    report: dict[str, Any] = {"result": None, "error": None}
    # A module like any other: what it defines can be found by its name, as multiprocessing does.
    module = sys.modules["snippet"] = types.ModuleType("snippet")
    names = vars(module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(compile(sys.stdin.read(), "<snippet>", "exec"), names)
        except Exception as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            report["error"] = {"kinds": kinds, "text": str(error), "traceback": traceback.format_exc()}
    report["result"] = label(names.get("result"))
    report["warnings"] = [
        {
            "kinds": [kind.__name__ for kind in found.category.__mro__],
            "text": str(found.message),
            "file": found.filename,
            "line": found.lineno,
        }
        for found in caught
    ]
    print(REPORT + json.dumps(report, default=str), flush=True)


if __name__ == "__main__":
    main()
