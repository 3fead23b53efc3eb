"""``--scratch DIR``: make DIR on the host, with the container's PID in it, and remove it at the end."""

import os
import shutil

import pluggy

from mydocker import LimitError, ResourceField

hookimpl = pluggy.HookimplMarker("mydocker")


def parse_directory(text):
    if not text.startswith("/"):
        raise ValueError(f'"{text}" is not an absolute path')
    return text


class Scratch:
    def __init__(self):
        self.made = []

    @hookimpl
    def mydocker_fields(self):
        yield ResourceField(
            name="scratch", flags=("--scratch",), parse=parse_directory, metavar="DIR", help="Directory to make."
        )

    @hookimpl
    def mydocker_validate(self, config):
        if os.path.exists(config["scratch"]):
            raise LimitError("scratch", f"{config['scratch']} exists")

    @hookimpl
    def mydocker_prepare(self, config):
        os.mkdir(config["scratch"])
        self.made.append(config["scratch"])

    @hookimpl(tryfirst=True)
    def mydocker_apply(self, config, pid):
        with open(os.path.join(config["scratch"], "pid"), "w") as file:
            file.write(str(pid))

    @hookimpl
    def mydocker_usage(self, config):
        raise RuntimeError("nobody measured")

    @hookimpl
    def mydocker_remove(self):
        for directory in self.made:
            shutil.rmtree(directory)


plugin = Scratch()
