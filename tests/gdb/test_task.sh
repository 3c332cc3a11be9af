#!/bin/sh
# A debugger sees through a suspended task of the library: from the switch through the calls
# of the user's code up to the trampoline that its stack began with, and no further.
#
#   test_task.sh LIBRARY     the static library; CC chooses the compiler; ends with 77 without gdb,
#                            or where this machine lets no process trace another
set -eu
library=$1
. "$(dirname "$0")/gdb.sh"
$cc -std=c11 -D_GNU_SOURCE -g -O2 -I"$root/include" "$root/tests/gdb/task.c" "$library" -o "$tmp/task" -pthread -lm
cat >"$tmp/commands" <<END
set pagination off
set confirm off
set debuginfod enabled off
set style enabled off
break look_here
run
echo == suspended\n
set \$old_sp = \$$sp
set \$old_pc = \$$pc
set \$task_sp = suspended->coro->sp
set \$$sp = \$task_sp
set \$$pc = (unsigned long)&heist__ctx_resume
backtrace
set \$$sp = \$old_sp
set \$$pc = \$old_pc
echo == end\n
continue
END
gdb -nx -batch -x "$tmp/commands" "$tmp/task" >"$tmp/out" 2>&1 || { cat "$tmp/out"; exit 1; }
got=$(sed -n "/^== suspended\$/,/^== end/p" "$tmp/out" | names)
case $got in
heist__ctx_*" heist_await read_body handle_request handler "*" heist__ctx_trampoline ") ;;
*)
    cat "$tmp/out"
    echo "FAILED: got: $got"
    exit 1
    ;;
esac
grep -q "exited normally" "$tmp/out" || { cat "$tmp/out"; echo "FAILED: the program did not end well"; exit 1; }
if grep -i "corrupt\|previous frame" "$tmp/out"; then exit 1; fi
echo "passed: $got"
