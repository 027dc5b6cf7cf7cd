"""Options of the command line that several verbs share."""

from pathlib import Path

import click

from generator.activation.backends import NAMES
from generator.verbs.command import Address, Filled, Folder, a_number

TEXT = Filled()
ADDRESS = Address()
FILE = click.Path(path_type=Path, dir_okay=False)
DIR = Folder(path_type=Path, file_okay=False)
STALE = 15  # minutes without a report after which a host needs a person

output = click.option(
    "-o",
    "--output",
    required=True,
    metavar="DIR",
    type=DIR,
    help="the folder for the files",
)
payload = click.option(
    "-p",
    "--payload",
    "source",
    metavar="SRC",
    type=TEXT,
    help="the payload: a path, - for standard input, or an http(s) URL [config.yaml: controller]",
)
host = click.option(
    "-H",
    "--host",
    metavar="HOST",
    type=TEXT,
    help="which host of a Fleet [config.yaml: host; else this machine's name]",
)
backend = click.option(
    "-b",
    "--backend",
    type=click.Choice(NAMES),
    help="which tool activates the files [default: the one that this machine uses]",
)
root = click.option(
    "--root",
    type=DIR,
    metavar="DIR",
    help="act on the tree below DIR instead of this machine, and activate nothing",
)
confirm = click.option(
    "--confirm",
    "seconds",
    type=click.FloatRange(1, 86400),
    callback=a_number,
    metavar="SECONDS",
    help="go back unless evpn-host confirm is run within SECONDS",
)
no_guard = click.option(
    "--no-guard", is_flag=True, help="do not go back if the host can't be reached afterwards"
)
verbose = click.option("-v", "--verbose", is_flag=True, help="show each command and why")
