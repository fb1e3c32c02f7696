"""Every error that Mélange raises, in one tree, each with the exit code the command line gives it.

MelangeError                 1  something failed that is nobody's input
├── InputError               2  bad usage or bad input: what, where, what to do
│   └── MissingExtraError    2  an optional dependency is not installed
├── InfeasibleError          3  no fleet satisfies the limits
└── EngineError              1  a serving engine could not be started, reached or trusted
"""

from __future__ import annotations

import os


class MelangeError(Exception):
    """Root of the tree. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class InputError(MelangeError):
    """Bad input: says what is wrong, where it stands, and what to do.

    ``file``, ``line`` and ``column`` (1-based) locate it where that is known; ``fix`` is the advice.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        file: str | os.PathLike[str] | None = None,
        line: int | None = None,
        column: int | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else os.fspath(file)
        self.line = line
        self.column = column
        self.fix = fix
        super().__init__(self._message())

    def _message(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        text = f"{place}: {self.problem}" if place else self.problem
        text = text if self.fix is None else f"{text}; {self.fix}"
        return " ".join(text.split())

    def located(self, file: str | os.PathLike[str], line: int | None = None, column: int | None = None) -> InputError:
        """The same error with its place filled in where it had none."""
        return type(self)(
            self.problem,
            file=self.file or file,
            line=self.line if self.line is not None else line,
            column=self.column if self.column is not None else column,
            fix=self.fix,
        )


class MissingExtraError(InputError):
    """An optional dependency is missing; the message prints the command that installs it."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtraError:
        return cls(f"{purpose} needs the package {package}", fix=f"pip install '.[{extra}]'")


class InfeasibleError(MelangeError):
    """No fleet within the limits serves the workload. The message explains which limit and the nearest way out."""

    exit_code = 3


class EngineError(MelangeError):
    """A serving engine could not be started, reached, or gave answers that cannot be trusted."""
