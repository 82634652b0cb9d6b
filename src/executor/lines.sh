no() { echo "opmas: not done: $*" >&2; rm -f /etc/opmas/helper.new; [ -z "$first" ] || rm -rf /etc/opmas; exit 1; }
# Standard input without the lines that grep finds, and $line behind them. That there are none left is no error.
lines() { grep -v "$@"; [ $? -le 1 ] || return 1; [ -z "$line" ] || echo "$line"; }
# Puts the file $1 anew in its place, as `lines` makes it: written beside it, compared, and only then renamed. Else it stays as it was.
anew() {
  f=$1; shift
  [ ! -L "$f" ] || f=$(readlink -f "$f")
  why=$({ rm -f "$f.opmas" && cp -p "$f" "$f.opmas" && lines "$@" <"$f" >"$f.opmas" && lines "$@" <"$f" | cmp - "$f.opmas" &&
    sync "$f.opmas" && mv -f "$f.opmas" "$f"; } 2>&1) || { rm -f "$f.opmas"; no "$f stays as it was: $why"; }
}
