#!/usr/bin/env bash
# usage: tests/services/checks.sh install | schema FILE | compose FILE | sigma DIR [PIPELINE...] | modifiers
# Judges of our own files that are not ours, in a virtual environment under target/.
#   install        makes the environment when it is missing
#   schema FILE    FILE is a JSON Schema (draft 2020-12); the documents, one a line on standard input, are of it and hold nothing that it does not name
#   compose FILE   FILE is of the compose specification (the JSON schema that docker-compose 1.29 ships, whose keys later versions only add to)
#   sigma DIR [PIPELINE...]   what pySigma makes of the rules in DIR by the pipelines: file, product, category, service, fields; one JSON list a line
#   modifiers      whether pySigma takes each pair of modifiers, over values of several types: field and value, true or false; one JSON list a line
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv="$here/../../target/test-services/checks"
packages=(jsonschema==4.26.0 rfc3339-validator==0.1.4 PyYAML==6.0.3 pySigma==2.0.1)

installed() { [ "$(cat "$venv/packages" 2>/dev/null)" = "${packages[*]}" ]; }

install() {
  installed && return
  echo "checks.sh: installing ${packages[*]} into target/test-services/checks" >&2
  rm -rf "$venv"
  python3 -m venv "$venv" || { echo "checks.sh: python3 -m venv failed; install python3-venv" >&2; exit 1; }
  # docker-compose only for the schema that it ships.
  { "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" &&
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps docker-compose==1.29.2; } || { echo "checks.sh: pip could not install the packages" >&2; exit 1; }
  echo "${packages[*]}" >"$venv/packages"
}

case "${1:-}" in
  install) install ;;
  schema | compose | sigma | modifiers)
    installed || { echo "checks.sh: its packages are missing; run tests/services/checks.sh install" >&2; exit 1; }
    exec "$venv/bin/python" "$here/checks.py" "$@"
    ;;
  *) sed -n 2,8p "$0" >&2; exit 2 ;;
esac
