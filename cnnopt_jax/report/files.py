"""Files that are written as a whole or not at all."""

import os
import pathlib


def write_atomically(path: pathlib.Path, content: str) -> None:
  """Replaces `path` as a whole, so that a kill leaves the old file or the new one."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  with open(temporary, 'w') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
