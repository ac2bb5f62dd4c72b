"""The command line of the lab: ``pdimage lab`` with its verbs.

Results go to stdout, what is being done and errors to stderr. Verbs that wait for machines end well only once these can
be used. A verb that SIGHUP, SIGINT or SIGTERM ends undoes what it has not finished.
"""

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fussy.commands import command, start_logging
from pdimage.lab import constants, ending
from pdimage.lab.powercutcli import crash_states_command, powercut_command

_prefix = click.option("-p", "--prefix", type=click.Path(path_type=Path, file_okay=False), envvar="PDIMAGE_LAB_PREFIX",
                       help=f"Directory of the environment.  [default: {constants.DEFAULT_PREFIX} here or above]")
_vm = click.argument("vm_name", metavar="VM")
_vms = click.argument("vm_names", nargs=-1, metavar="[VM]...")
_format = click.option("-f", "--out-format", type=click.Choice(["default", "json", "yaml", "flat"]), default="default",
                       show_default=True, help="How to show it.")


def _found(prefix: Path | None) -> Any:
    """Return the prefix that is named, or the nearest."""
    from pdimage.lab.prefix import Prefix, find
    from pdimage.lab.utils import setup_logging

    place = prefix or find(Path.cwd(), constants.DEFAULT_PREFIX)
    found = Prefix(place)
    if found.initialized():
        setup_logging(found.paths.logs())
    return found


def _verb(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a verb of a function whose first argument is the prefix."""

    def made(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def called(prefix: Path | None, **arguments: Any) -> Any:
            start_logging(False)
            # a command that is interrupted amid QEMU's protocol leaves tasks that nobody asks for their end
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            return function(_found(prefix), **arguments)

        return command(name, **settings)(_prefix(called))

    return made


@command("init")
@click.argument("init_file", type=click.Path(path_type=Path, dir_okay=False), default=constants.INIT_FILE,
                metavar="[FILE]")
@click.option("-p", "--prefix", type=click.Path(path_type=Path, file_okay=False), envvar="PDIMAGE_LAB_PREFIX",
              default=constants.DEFAULT_PREFIX, show_default=True, help="Directory to make.")
@click.option("--template-repo-path", metavar="FILE", help="What describes a repository of templates: file or address.")
@click.option("--template-store", type=click.Path(path_type=Path), help="Directory for fetched templates.")
def init_command(init_file: Path, prefix: Path, template_repo_path: str | None, template_store: Path | None) -> None:
    """Make the environment that FILE (default: LagoInitFile) describes, ready to be started.

    The system that its machines boot is built first if it is not in the cache, which takes a minute or two and root.
    """
    from pdimage.lab import config, description, images, utils
    from pdimage.lab.prefix import Prefix
    from pdimage.lab.templates import TemplateRepository, TemplateStore

    start_logging(False)
    conf = description.load(init_file)
    images.debian(config.cache(), progress=lambda step: click.echo(f"building: {step}", err=True))
    repo = TemplateRepository.from_url(template_repo_path) if template_repo_path else None
    store = TemplateStore(template_store or config.cache() / "store")
    made = Prefix(prefix)
    with utils.RollbackContext() as rollback:
        made.initialize()
        rollback.prependDefer(made.destroy)
        made.virt_conf(conf, repo, store)
        rollback.clear()
    click.echo(made.paths.prefix())


@_verb("start")
@_vms
def start_command(prefix: Any, vm_names: tuple[str, ...]) -> None:
    """Start all machines and networks, or some machines, and wait until they can be reached."""
    prefix.virt_env.start(vm_names)


@_verb("stop")
@_vms
def stop_command(prefix: Any, vm_names: tuple[str, ...]) -> None:
    """Stop some machines, or everything. What they hold back is written first."""
    prefix.virt_env.stop(vm_names)


@_verb("shutdown")
@_vms
@click.option("-r", "--reboot", is_flag=True, help="Boot again.")
def shutdown_command(prefix: Any, vm_names: tuple[str, ...], reboot: bool) -> None:
    """Shut machines down in good order."""
    from pdimage.lab import utils
    from pdimage.lab.virt import VM

    vms = [prefix.virt_env.get_vm(name) for name in vm_names or prefix.virt_env.get_vms()]
    utils.invoke_in_parallel(VM.reboot if reboot else VM.shutdown, vms)


@_verb("destroy")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def destroy_command(prefix: Any, yes: bool) -> None:
    """Stop everything and delete the environment."""
    if not yes:
        click.confirm(f"Delete {prefix.paths.prefix()} with all its machines?", abort=True, err=True)
    prefix.destroy()


@_verb("cleanup")
def cleanup_command(prefix: Any) -> None:
    """Stop everything and give subnets back; files stay, but the environment can't be used again."""
    prefix.cleanup()


@_verb("snapshot")
@click.argument("name", required=False)
@click.option("-l", "--list", "listing", is_flag=True, help="Show what snapshots there are.")
def snapshot_command(prefix: Any, name: str | None, listing: bool) -> None:
    """Keep all machines as they are, under NAME: disks, and memory of those that run."""
    if listing:
        for vm_name, vm in prefix.virt_env.get_vms().items():
            for snapshot, kept in vm.spec["snapshots"].items():
                click.echo(f"{vm_name}  {snapshot}  {'running' if kept['memory'] else 'stopped'}")
    elif name:
        prefix.create_snapshots(name)
    else:
        raise click.UsageError("give the snapshot a name, or use --list")


@_verb("revert")
@click.argument("name")
def revert_command(prefix: Any, name: str) -> None:
    """Bring all machines back to the snapshot NAME."""
    prefix.revert_snapshots(name)


@_verb("status")
@_format
def status_command(prefix: Any, out_format: str) -> None:
    """Show machines and networks."""
    from pdimage.lab import status

    click.echo(status.shown(status.of(prefix), out_format), nl=False)


@_verb("shell", context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@_vm
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.option("-c", "--command", "line", metavar="LINE", help="Run this line of shell.")
def shell_command(prefix: Any, vm_name: str, words: tuple[str, ...], line: str | None) -> None:
    """Open a shell in a machine, or run a command there; ends with its exit code.

    COMMAND is words of one command; a single word is a line for the shell.
    """
    vm = prefix.virt_env.get_vm(vm_name)
    if line is not None:
        status = vm.ssh(line, None if sys.stdin.isatty() else sys.stdin.read())
    elif words and not sys.stdin.isatty():
        status = vm.ssh(words[0] if len(words) == 1 else list(words))
    else:
        status = vm.interactive_ssh(*words)
    raise click.exceptions.Exit(status.code)


@_verb("console")
@_vm
def console_command(prefix: Any, vm_name: str) -> None:
    """Join the terminal with the serial line of a machine, until Ctrl-] is typed."""
    from pdimage.lab.console import interact

    vm = prefix.virt_env.get_vm(vm_name)
    click.echo(vm.console.tail(), err=True)
    interact(Path(prefix.paths.virt()), vm.name())


@_verb("copy-to-vm")
@_vm
@click.argument("local_path", type=click.Path(path_type=Path, exists=True))
@click.argument("remote_path")
def copy_to_vm_command(prefix: Any, vm_name: str, local_path: Path, remote_path: str) -> None:
    """Copy a file or directory into a machine."""
    prefix.virt_env.get_vm(vm_name).copy_to(local_path, remote_path)


@_verb("copy-from-vm")
@_vm
@click.argument("remote_path")
@click.argument("local_path", type=click.Path(path_type=Path))
def copy_from_vm_command(prefix: Any, vm_name: str, remote_path: str, local_path: Path) -> None:
    """Copy a file or directory out of a machine."""
    prefix.virt_env.get_vm(vm_name).copy_from(remote_path, local_path)


@_verb("collect")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="Directory, made if missing.")
def collect_command(prefix: Any, output: Path) -> None:
    """Copy logs, and the artifacts of machines that run, into a directory."""
    prefix.collect_artifacts(output)


@_verb("ip")
@_vm
@click.argument("network", required=False)
def ip_command(prefix: Any, vm_name: str, network: str | None) -> None:
    """Print the address of a machine, in the network that it is reached over or in another."""
    vm = prefix.virt_env.get_vm(vm_name)
    click.echo(prefix.virt_env.get_net(network).resolve(vm_name) if network else vm.ip())


@_verb("ansible_hosts")
def ansible_hosts_command(prefix: Any) -> None:
    """Print the machines as an inventory for Ansible, which reaches them through our ssh connections."""
    from pdimage.lab import status

    click.echo(status.inventory(prefix), nl=False)


@_verb("list")
def list_command(prefix: Any) -> None:
    """Print the names of the machines."""
    click.echo("".join(f"{name}\n" for name in prefix.virt_env.get_vms()), nl=False)


@click.group("lab", context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def lab_command(context: click.Context) -> None:
    """Virtual routers: make, start, enter, snapshot and destroy environments."""
    context.with_resource(ending.cleanly())


for _made in (ansible_hosts_command, cleanup_command, collect_command, console_command, copy_from_vm_command,
              copy_to_vm_command, crash_states_command, destroy_command, init_command, ip_command, list_command,
              powercut_command, revert_command, shell_command, shutdown_command, snapshot_command, start_command,
              status_command, stop_command):
    lab_command.add_command(_made)
lab_command.add_command(shell_command, "ssh")


def get_options() -> click.Group:
    """Return the command with all its verbs."""
    return lab_command
