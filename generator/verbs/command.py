"""How the command line ends: exit codes of diff, and a reader of its output that has gone."""

import os
import sys
import traceback

import click

from generator.errors import EvpnHostError, Refused, text_of

TROUBLE = 2  # of diff, and of a wrong command line


class Verbs(click.Group):
    """Ends as other commands do when the reader of its output has gone; click's 1 means refused."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb, with the same umask whoever runs it."""
        os.umask(0o022)  # networkd and FRR read our files as users of their own
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)


class Diff(click.Command):
    """Ends with 2 in trouble, as diff(1) does: its 1 says that something differs."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except Refused as refused:
            refused.exit_code = TROUBLE
            raise
        except BrokenPipeError:
            raise
        except OSError as error:
            trouble = Refused(text_of(error))
            trouble.exit_code = TROUBLE
            raise trouble from None
        except (EvpnHostError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:  # noqa: BLE001  # a fault of ours is trouble, and no difference
            traceback.print_exc()
            sys.exit(TROUBLE)
