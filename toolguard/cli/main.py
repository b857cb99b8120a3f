"""The command `toolguard`."""

from __future__ import annotations

import typer

from .classify import classify
from .demo import demo
from .diagnose import diagnose
from .formats import formats
from .profile import profile
from .repair import repair
from .serve import serve
from .sweep import sweep
from .watch import watch

app = typer.Typer(
    name="toolguard",
    help="Gives RL-damaged models their tool calls back, at inference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command()(demo)
app.command()(classify)
app.command()(diagnose)
app.command()(formats)
app.command()(profile)
app.command()(repair)
app.command()(sweep)
app.command()(watch)
# What is no option of ours is one of vLLM's, and goes through as it is.
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(serve)


@app.callback()
def main() -> None:
    """Gives RL-damaged models their tool calls back, at inference."""
