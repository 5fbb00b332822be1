"""Make a virtual environment with this package in it, once. `make` calls it before each command.

    python .ci/install.py VENV [EXTRA ...]

Nothing is installed again until pyproject.toml changes or another extra is asked for. A second
call that runs at the same time waits for the first one. It uses the standard library only, and
syntax that old versions can read, since it is here that they are refused.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"  # installed where there is no torch yet; any from TORCH_MIN on is used as it is
TORCH_MIN = (2, 8)


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def check_python():
    if sys.version_info < (3, 11):
        sys.exit(
            "error: mmkv needs Python 3.11, 3.12 or 3.13, and {} is {}.{}; "
            "name another one, for example: make demo PYTHON=python3.12".format(
                sys.executable, *sys.version_info[:2]
            )
        )
    for name in ("video", "models"):
        if not (ROOT / "mmkv" / name).is_dir():
            sys.exit(
                "error: mmkv/{} is not a folder, because this checkout has no symbolic links; "
                "clone again with `git clone -c core.symlinks=true` "
                "(on Windows inside WSL2)".format(name)
            )


def torch_of(python):
    """Version of the torch that `python` can import, or None if it is missing or too old."""
    found = subprocess.run(
        [str(python), "-c", "import torch; print(torch.__version__)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=str(ROOT / ".ci"),
    )
    version = found.stdout.decode().strip()
    if found.returncode or tuple(int(n) for n in version.split(".")[:2]) < TORCH_MIN:
        return None
    return version


def version_of(python):
    """The (major, minor) of a virtual environment that has pip, or None if it is unusable."""
    code = "import pip, sys; print(*sys.version_info[:2])"
    try:
        found = subprocess.check_output([str(python), "-c", code], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(int(n) for n in found.split())


def create(venv):
    shared = torch_of(sys.executable)
    command = [sys.executable, "-m", "venv", "--clear"]
    if shared and sys.prefix != sys.base_prefix:  # an environment cannot inherit from another
        say("to use the torch {} of {}: make demo VENV={}".format(shared, sys.prefix, sys.prefix))
    elif shared:
        say("using torch {} of {}".format(shared, sys.executable))
        command.append("--system-site-packages")
    say("creating {} with Python {}.{}".format(venv, *sys.version_info[:2]))
    if subprocess.run([*command, str(venv)]).returncode:
        sys.exit(
            "error: {} could not make a virtual environment; on Debian and Ubuntu: "
            "apt install python{}.{}-venv".format(sys.executable, *sys.version_info[:2])
        )


def pip(python, *arguments):
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    if not sys.stderr.isatty():
        command.append("--quiet")
    if subprocess.run([*command, *arguments], cwd=str(ROOT), stdout=sys.stderr).returncode:
        sys.exit("error: pip could not install {} (its own message is above)".format(arguments[-1]))


def wanted():
    """What an installation depends on: the declared requirements and where the code is."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "setup.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def installed(stamp, digest):
    """The extras that a finished installation with this digest has, or None if there is none."""
    try:
        found = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return None
    return set(found["extras"]) if found.get("digest") == digest else None


def main():
    check_python()
    venv, extras = Path(sys.argv[1]).absolute(), set(sys.argv[2:])
    python, stamp = venv / "bin" / "python", venv / "mmkv-installed.json"
    with open(str(ROOT / ".venv.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another installation into {}".format(venv))
            fcntl.flock(lock, fcntl.LOCK_EX)
        version = version_of(python)
        if version is None:
            create(venv)
        elif version != sys.version_info[:2]:
            say("{} has Python {}.{}; `make clean` first to change that".format(venv, *version))
        digest = wanted()
        have = installed(stamp, digest)
        if have is not None and extras <= have:
            return
        extras |= have or set()
        stamp.unlink(missing_ok=True)
        if not torch_of(python):
            index = os.environ.get("TORCH_INDEX")
            say("installing torch {} (once; this can take a few minutes)".format(TORCH))
            pip(python, *(["--index-url", index] if index else []), "torch==" + TORCH)
        say("installing mmkv and what it needs (once)")
        pip(python, "--editable", ".[{}]".format(",".join(sorted(extras))) if extras else ".")
        stamp.write_text(json.dumps({"digest": digest, "extras": sorted(extras)}))


if __name__ == "__main__":
    main()
