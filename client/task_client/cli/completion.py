import click

HOW = """\b
bash: taskctl completion bash > ~/.local/share/bash-completion/completions/taskctl
zsh:  taskctl completion zsh > "${fpath[1]}/_taskctl"
fish: taskctl completion fish > ~/.config/fish/completions/taskctl.fish"""


@click.command("completion", epilog=HOW)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print what makes a shell complete taskctl.

    Verbs, options, and the uids, zones, actions and callbacks of the running daemon are completed. To install it:
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "taskctl", "_TASKCTL_COMPLETE").source())
