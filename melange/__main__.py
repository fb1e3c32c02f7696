"""``python -m melange`` is the ``melange`` command."""

from melange.cli.main import main

main()
