"""Errors a user can act on: one sentence that says what, where and what to do, and an exit code.

Exit codes of the command line:
  0  done            1  internal error        2  bad usage or unreadable input
  3  marked, but the payload is unreadable    4  not marked
  5  a batch finished, but some of its files failed
  6  ``find --exit-code``: a trace was found
  7  ``verify``: a certificate was changed or does not fit what it is checked against
  130  interrupted by Ctrl-C; what was finished is kept
"""

from __future__ import annotations

OK, INTERNAL, BAD_INPUT, UNREADABLE_MARK, NOT_MARKED, PARTIAL, TRACE_FOUND, NOT_VERIFIED = range(8)


class VestigeError(Exception):
    """Base of every error that is shown to the user as one sentence, without a traceback."""

    exit_code = BAD_INPUT


class InputError(VestigeError):
    """The input is missing, corrupt, unsupported or beyond a limit."""


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
