"""``python -m melange`` is the ``melange`` command."""

from melange.cli.entry import main

main()
