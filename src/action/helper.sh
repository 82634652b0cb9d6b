#!/bin/sh
# What the key of opmas runs on this device, and all that it can (opmas device enroll). ssh brings
#   SECONDS MARK ACTION REVISION OPERATION NUMBER… [OPERATION NUMBER…]
# and standard input the values of the action, a line `NAME=VALUE` each. Commands with these numbers, as they stand below, are run.
# Values are only ever data: each is made of the characters of its type, and stands in quotes.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -f
refuse() { echo "opmas: $1" >&2; exit 126; }

# The next value is $1, made of the characters $2, or any when there is no $2.
take() {
  IFS= read -r line || refuse "there is no $1"
  case $line in "$1="*) v=${line#*=} ;; *) refuse "here $1 is wanted" ;; esac
  case $v in ''|-*) refuse "$1 is not of its form" ;; esac
  [ $# = 1 ] || case $v in *[!$2]*) refuse "$1 is not of its form" ;; esac
}
one() { for word; do [ "$v" = "$word" ] && return; done; refuse "a value is not in its list"; }
range() { [ ${#v} -le 18 ] && [ "$v" -ge "$1" ] && [ "$v" -le "$2" ] || refuse "a value is out of its range"; }

# The outer one waits, ends the inner one when its time is over or the connection is gone, and says so by 231.
if [ "$1" != run ]; then
  case $SSH_ORIGINAL_COMMAND in *[!0-9a-z_\ -]*) refuse "this key opens no shell" ;; esac
  set -- $SSH_ORIGINAL_COMMAND
  case $1 in ''|*[!0-9]*|????*) refuse "this key opens no shell" ;; esac
  exec 3<&0 </dev/null
  setsid "$0" run <&3 3<&- & p=$!
  exec 3<&- 2>/dev/null
  (n=$1; while [ $n -gt 0 ] && kill -0 $PPID; do sleep 1; n=$((n-1)); done; kill -9 -- -$p; exit 231) >/dev/null & w=$!
  wait $p; s=$?; kill $w; wait $w; [ $? = 231 ] && exit 231
  exit $s
fi

set -- $SSH_ORIGINAL_COMMAND
[ $# -ge 6 ] || refuse "this key opens no shell"
mark=$2 action=$3 name="$3 $4" operation=$5
shift 5

case $action in
opmas) ;;
#TAKES
*) refuse "there is no action $action" ;;
esac

work() {
  input=
  case $1 in
'opmas - revision 0') set -- echo '@REVISION@' ;;
#ARMS
*) refuse "the helper does not know $1; it is another catalogue's: opmas device enroll NAME --identity FILE" ;;
  esac
  if [ -n "$input" ]; then printf '%s' "$input" | "$@"; else "$@" </dev/null; fi
}

if [ "$mark" = - ]; then work "$name $operation $1"; exit; fi
for i; do
  case $i in *[!0-9]*) operation=$i; continue ;; esac
  work "$name $operation $i"
  s=$?
  echo; echo "$mark $s"
  { echo; echo "$mark"; } >&2
done
