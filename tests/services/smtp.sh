#!/usr/bin/env bash
# usage: tests/services/smtp.sh install | run OPTIONS…
# A real SMTP server that keeps what it gets: aiosmtpd in a virtual environment of its own under target/.
#   install   makes the environment when it is missing
#   run       starts the server in the foreground (see smtp.py); it ends with its standard input
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv="$here/../../target/test-services/venv"
version=1.4.6

installed() { "$venv/bin/python" -c "import aiosmtpd, sys; sys.exit(aiosmtpd.__version__ != '$version')" 2>/dev/null; }

install() {
  installed && return
  echo "smtp.sh: installing aiosmtpd $version into target/test-services/venv" >&2
  rm -rf "$venv"
  python3 -m venv "$venv" || { echo "smtp.sh: python3 -m venv failed; install python3-venv" >&2; exit 1; }
  "$venv/bin/pip" install --quiet --disable-pip-version-check "aiosmtpd==$version" || { echo "smtp.sh: pip could not install aiosmtpd $version" >&2; exit 1; }
}

case "${1:-}" in
  install) install ;;
  run)
    shift
    installed || { echo "smtp.sh: aiosmtpd is missing; run tests/services/smtp.sh install" >&2; exit 1; }
    exec "$venv/bin/python" "$here/smtp.py" "$@"
    ;;
  *) sed -n 2,5p "$0" >&2; exit 2 ;;
esac
