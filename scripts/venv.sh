#!/bin/sh
# Makes an environment when it is missing or broken and installs locked sets into it, into .venv the project too, and with
# the tests' set the client:
#   scripts/venv.sh .venv|.venv-bench LOCKFILE...
# Uses uv when it is there, else python3 -m venv and pip. Every file that is installed has to match its hash.
set -eu
cd "$(dirname "$0")/.."

venv=$1
shift

fail() {
    echo "$*" >&2
    exit 1
}

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

# Two runs of make in one clone wait for each other. (Where there is no flock, they are on their own.)
if command -v flock >/dev/null 2>&1; then
    exec 9>.venv.lock
    flock 9
fi

if command -v uv >/dev/null 2>&1; then
    if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        uv venv --quiet --clear --python "$(find_python | grep . || echo '>=3.11')" "$venv"
    fi
    install() { uv pip install --quiet --python "$venv/bin/python" "$@"; }
else
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        [ -n "$python" ] || fail "postbackd needs Python 3.11 or later; no python3 here is as new (Debian 12 or later: apt install python3 python3-venv; elsewhere: install uv, which brings a Python along)"
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "Python $version is here, but not its ensurepip, without which no environment can be made: apt install python3-venv (or python$version-venv), or install uv"
        "$python" -m venv --clear "$venv"
    fi
    install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
fi

# A locked set is whole, so nothing is resolved (--no-deps): pip takes "coverage[toml]" in a dependency for a
# demand of its own that the lock does not pin, and refuses it as soon as the registry has a newer release.
for lockfile in "$@"; do
    install --no-deps --require-hashes --requirement "$lockfile"
done
# The build backend is in the locked sets: nothing that is not locked is fetched to build the project.
if [ "$venv" = .venv ]; then
    install --no-deps --no-build-isolation --editable .
fi
# The client is no part of the server: only the tests need it.
case " $* " in
    *" requirements-dev.txt "*) install --no-deps --no-build-isolation --editable clients/python ;;
esac
