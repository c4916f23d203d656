#!/bin/sh
# Makes .venv with everything that the project and its development need; does nothing if it is up to date.
# PYTHON names the interpreter; by default it is the first Python 3.11 or newer that is found.
set -eu

cd "$(dirname "$0")/.."

# Written last. It records the path of the clone, which an editable install contains too, and pyproject.toml.
stamp=.venv/provgate-installed
wanted() { pwd && cat pyproject.toml; }

die() {
    echo "Error: $*" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed, and none of ${PYTHON:-python3, python3.11 to python3.14} is one"
}

# Debian and Ubuntu ship `venv` as a package of its own.
need_venv_module() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    as_root=
    if ! command -v apt-get >/dev/null; then
        die "the Python module venv is missing: install it with your system's package manager"
    elif [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "the Python module venv is missing: run \`apt-get install $package\` as root"
        as_root=sudo
    fi
    echo "Installing $package"
    $as_root apt-get --quiet update
    # An interrupted dpkg leaves packages that must be repaired by hand.
    trap '' INT TERM HUP
    $as_root setsid --wait env DEBIAN_FRONTEND=noninteractive apt-get --quiet \
        install --yes --no-install-recommends "$package"
    trap - INT TERM HUP
}

main() {
    # Two targets may run at the same time.
    exec 9<stack
    if command -v flock >/dev/null; then flock 9; fi

    if [ -f "$stamp" ] && wanted | cmp -s - "$stamp"; then
        return
    fi
    if [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$(pwd)" ]; then
        rm "$stamp"
    else
        # There is none, or one whose creation was interrupted, or one of another path.
        python=$(find_python)
        need_venv_module "$python"
        echo "Making .venv with $("$python" --version)"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    echo "Installing the project and its development tools into .venv"
    # --group came with pip 25.1.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group dev
    wanted >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

main
