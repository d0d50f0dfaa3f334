"""Errors a user can act on: one sentence that says what, where and what to do, and an exit code.

`EXIT_CODES` is the one table of exit codes; the documentation and ``--help`` repeat it.
"""

from __future__ import annotations

OK, INTERNAL, BAD_INPUT, UNREADABLE_MARK, NOT_MARKED, PARTIAL, TRACE_FOUND, NOT_VERIFIED, UNVOUCHED = range(9)
UNCHANGED, SUPPRESSED, INCOMPLETE, OVER_ERASED, NOT_MEASURABLE = range(10, 15)

#: What the exit codes of every verb mean.
EXIT_CODES = {
    OK: "done",
    INTERNAL: "a claim is not shown, or an internal error",
    BAD_INPUT: "bad usage, or an input that cannot be read",
    UNREADABLE_MARK: "read: marked, but the payload cannot be read",
    NOT_MARKED: "read: not marked with this key; nobody in the registry",
    PARTIAL: "finished, but some of the files failed",
    TRACE_FOUND: "find --exit-code: a trace was found; a model file that can run code",
    NOT_VERIFIED: "verify: a certificate was changed, or does not fit what it is checked against",
    UNVOUCHED: "find: a model file that cannot be vouched for",
    UNCHANGED: "audit, erase: unchanged, the model forgot nothing",
    SUPPRESSED: "audit, erase: suppressed, hidden in the answers and still in the features",
    INCOMPLETE: "audit, erase: incomplete, some of it is left",
    OVER_ERASED: "audit, erase: erased too much, the forgotten pictures stand out",
    NOT_MEASURABLE: "audit, erase: not measurable with this little",
    130: "interrupted by Ctrl-C; what was finished is kept",
}


class VestigeError(Exception):
    """Base of every error that is shown to the user as one sentence, without a traceback."""

    exit_code = BAD_INPUT


class InputError(VestigeError):
    """The input is missing, corrupt, unsupported or beyond a limit."""


class WriteError(InputError):
    """Something cannot be written (a full disk, no permission); nothing half-written is left."""


class NothingInsideError(InputError):
    """A file is whole, and holds nothing of what is sought (a table without pictures)."""


class LimitError(InputError):
    """The input is larger than a safety limit; the message names the option that raises it."""


class UsageError(VestigeError):
    """Options that do not fit together, or a value out of range."""


class KeyFileError(VestigeError):
    """A key file is missing, malformed or readable by other users."""


class MissingDependencyError(VestigeError):
    """An optional package is needed; the message says which extra installs it."""


class NotVerifiedError(VestigeError):
    """A certificate was changed, is another signer's, or speaks of other files."""

    exit_code = NOT_VERIFIED


class Interrupted(VestigeError):  # noqa: N818 - not a fault: the run can go on
    """The user stopped a run; the message says how to continue."""

    exit_code = 130
