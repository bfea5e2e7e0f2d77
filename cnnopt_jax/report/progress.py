"""Progress of long work: bars on a terminal, lines elsewhere."""

from collections.abc import Callable

from rich import console, progress


class Progress:
  """The bars of one run.

      with report.Progress() as progress:
        at = progress.bar('training', steps)
        for step in range(steps):
          ...
          at(step + 1)

  Attributes:
    is_terminal: whether bars are drawn; elsewhere a line stands for each.
  """

  def __init__(self):
    self._console = console.Console()
    self.is_terminal = self._console.is_terminal
    self._bars = progress.Progress(
      progress.TextColumn('{task.description}'),
      progress.BarColumn(),
      progress.TaskProgressColumn(),
      progress.TimeElapsedColumn(),
      progress.TextColumn('left'),
      progress.TimeRemainingColumn(),
      console=self._console,
      disable=not self.is_terminal,
    )

  def __enter__(self):
    self._bars.start()
    return self

  def __exit__(self, *exc):
    self._bars.stop()

  def bar(
    self, description: str, total: float, *, announce: bool = True
  ) -> Callable[[float, str | None], None]:
    """Adds a bar.

    Args:
      description: stands before it.
      total: how much there is to do, in any unit.
      announce: off a terminal, print the description as a line.

    Returns:
      A function that takes how much of `total` is done and, if it has changed, the description.
    """
    if announce and not self.is_terminal:
      self.line(description)
    task = self._bars.add_task(description, total=total)

    def at(done: float, description: str | None = None) -> None:
      self._bars.update(task, completed=done, description=description)

    return at

  def line(self, text: str) -> None:
    """Prints a line, above the bars if there are any."""
    self._bars.print(text, soft_wrap=True)
