"""Files that are written as a whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


def write_atomically(path: pathlib.Path, content: str) -> None:
  """Replaces `path` as a whole: a kill or a full disk leaves the old file or the new one."""
  with replacing(path) as temporary, open(temporary, 'w') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the name of a file that takes the place of `path` once it is written.

  Where writing fails nothing of it is left.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  try:
    yield temporary
    os.replace(temporary, path)
  except OSError:
    with contextlib.suppress(OSError):
      temporary.unlink()
    raise
