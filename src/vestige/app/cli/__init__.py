"""The command line: a file a verb. Commands import what they need when they run, so that ``--help`` is instant."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from vestige.app.cli.audit import audit, verify
from vestige.app.cli.bench import bench_app
from vestige.app.cli.data import data
from vestige.app.cli.erase import erase
from vestige.app.cli.find import find
from vestige.app.cli.index import index
from vestige.app.cli.learn import learn
from vestige.app.cli.mark import key, mark, read, stamp, whose
from vestige.app.cli.restore import restore
from vestige.app.cli.systems import calibrate, claims, systems
from vestige.app.cli.use import attack, make, measure, starter
from vestige.app.cli.version import version
from vestige.core import errors
from vestige.core.errors import EXIT_CODES, VestigeError
from vestige.core.guard import check_output, protecting
from vestige.core.printing import complain, visible

#: Options that name what is written; every other path on a command line is an input and is never written over.
_OUTPUTS = {"out", "html", "csv", "sarif", "results", "registry", "pages", "trust"}


#: Verbs whose --out is a folder, or a file that comes with the program.
_OWN_CHECKS = ("find", "calibrate")


class _Command(typer.core.TyperCommand):
    """A verb: while it runs nothing is written over what it was given."""

    def invoke(self, ctx: Any) -> Any:
        given = [value for name, value in ctx.params.items() if name not in _OUTPUTS]
        paths = [p for value in given for p in (value if isinstance(value, list | tuple) else [value])]
        with protecting(p for p in paths if isinstance(p, Path)):
            out = ctx.params.get("out")
            if isinstance(out, Path) and out.is_file() and self.name not in _OWN_CHECKS:
                check_output(out)
            return super().invoke(ctx)


class _Commands(typer.core.TyperGroup):
    """Ctrl-C in a command that says nothing about it itself still ends in a sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise errors.Interrupted("Interrupted; files that were finished are kept.") from None
        except Exception as error:
            if isinstance(getattr(error, "message", None), str):  # bad usage quotes what was typed, or a file's name
                error.message = visible(error.message)  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Plain text in groups: what draws boxes takes longer to import than everything else here together."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        with formatter.section("Options"):
            formatter.write_dl([found for p in self.get_params(ctx) if (found := p.get_help_record(ctx))])
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if not command.hidden:
                first = (command.help or "").split("\n\n")[0]
                groups.setdefault(command.rich_help_panel, []).append((name, " ".join(first.split())))
        for title, commands in groups.items():
            with formatter.section(title):
                formatter.write_dl(commands)
        self.format_epilog(ctx, formatter)


app = typer.Typer(
    name="vestige",
    cls=_Commands,
    help="Find, mark, erase and restore the traces hidden in images and in the models that read and make them.",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(asked: bool) -> None:
    if asked:
        from vestige import __version__

        print(f"vestige {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop."),
    ] = False,
) -> None:
    pass


for _verb in (find, mark, read, erase, restore, attack, measure, make, learn):
    app.command(cls=_Command, rich_help_panel="Verbs")(_verb)
for _other in (index, starter, systems, claims, data, key, audit, verify, calibrate, version):
    app.command(cls=_Command, rich_help_panel="More")(_other)
app.add_typer(bench_app, rich_help_panel="More")
for _alias in (stamp, whose):  # the names that `mark --method wouaf` and `read --registry` had
    app.command(cls=_Command, hidden=True)(_alias)


#: What model libraries say and draw on their own is not for the user of a command.
_QUIET_LIBRARIES = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: errors the user can act on become one sentence and an exit code."""
    for name, value in _QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)
    try:
        try:
            app(arguments, standalone_mode=True)
        finally:
            sys.stdout.flush()
    except VestigeError as error:
        complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        complain(f"Cannot write ({error.strerror}); make room and run the command again.")
        with contextlib.suppress(OSError):
            sys.stdout.close()  # what could not be written is not tried again at exit
        sys.exit(errors.BAD_INPUT)


if __name__ == "__main__":
    main()
