"""Runs many commands in one process, since starting one takes seconds: `python in_one_process.py ANSWERS COMMANDS`.

COMMANDS is a JSON list. Each entry is a list of words for `icrl`, or a string of Python code. The answers are written
to the file ANSWERS as a JSON list of [exit code, stdout, stderr].
"""

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path

from icrl import cli


def answer(words):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = cli.main(words) if isinstance(words, list) else exec(words, {"__name__": "__main__"})
        except SystemExit as exit_:
            code = exit_.code
        except BaseException:
            traceback.print_exc()
            code = "raised"
    return code or 0, out.getvalue(), error.getvalue()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps([answer(words) for words in json.loads(sys.argv[2])]))
