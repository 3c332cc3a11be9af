# What the tests of the debugger share, which source it: cc, root, sp, pc, tmp; or they end
# with 77 without gdb, or where this machine lets no process trace another.
# shellcheck shell=sh
root=$(cd "$(dirname "$0")/../.." && pwd)
cc=${CC:-cc}
command -v gdb >/dev/null || { echo "skipped: no gdb"; exit 77; }
case $(uname -m) in
x86_64) sp=rsp pc=rip ;;
aarch64) sp=sp pc=pc ;;
*) echo "skipped: unknown machine"; exit 77 ;;
esac
if ! gdb -nx -batch -ex "set debuginfod enabled off" -ex run --args "$(command -v true)" </dev/null 2>&1 |
    grep -q "exited normally"; then
    echo "skipped: gdb cannot run a program here"
    exit 77
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# The frames of a backtrace, innermost first, on one line.  (gdb prints a dot in the names that one assembler gives to
# functions without types.)
names() { sed 's/heist\.ctx/heist__ctx/' | sed -n 's/^#[0-9]* *\(0x[0-9a-f]* in \)\{0,1\}\([a-z_0-9]*\) .*/\2/p' | tr '\n' ' '; }
