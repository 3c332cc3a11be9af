#!/bin/sh
# A debugger sees through a coroutine, running or suspended, up to the trampoline,
# and no further.  Builds suspended.c with the C compiler, and runs gdb over it.
#
#   test_backtrace.sh [build flags]     CC chooses the compiler; ends with 77 without gdb,
#                                       or where this machine lets no process trace another
set -eu
. "$(dirname "$0")/gdb.sh"
[ "$(uname -m)" != x86_64 ] || cc="$cc -mno-red-zone" # see heist__ctx_jump
$cc -std=c11 -D_GNU_SOURCE -g "${@:--O2}" -I"$root/include" -I"$root/src" \
    "$root/tests/gdb/suspended.c" "$root/src/mem/stack.c" "$root/src/mem/ranges.c" "$root/src/coro/coro.c" "$root/src/coro/fiber_san.c" \
    "$root/src/arch/ctx_init.c" "$root/src/arch/ctx_$(uname -m).S" "$root/src/base/alloc.c" "$root/src/conc/spin.c" \
    -o "$tmp/suspended" -pthread
cat >"$tmp/commands" <<END
set pagination off
set confirm off
set debuginfod enabled off
set style enabled off
break look_here
run
echo == running\n
backtrace
continue
echo == host\n
backtrace
echo == suspended\n
set \$old_sp = \$$sp
set \$old_pc = \$$pc
set \$$sp = sleeper->sp
set \$$pc = (unsigned long)&heist__ctx_resume
backtrace
set \$$sp = \$old_sp
set \$$pc = \$old_pc
echo == end\n
continue
END
gdb -nx -batch -x "$tmp/commands" "$tmp/suspended" >"$tmp/out" 2>&1 || { cat "$tmp/out"; exit 1; }

# The functions of the backtrace in section $1.
functions() { sed -n "/^== $1\$/,/^== /p" "$tmp/out" | names; }
expect() {
    got=$(functions "$1")
    if [ "$got" != "$2 " ]; then
        cat "$tmp/out"
        echo "FAILED: $1: expected: $2"
        echo "                 got: $got"
        exit 1
    fi
}
body="inner_body inner_body inner_body outer_body"
# In a build without optimisation the inline functions of the switch are on the way too.
switch=$(functions suspended | sed 's/^heist__ctx_switch \(heist__ctx_jump \)\{0,1\}\(heist__coro_leave \)\{0,1\}.*/heist__ctx_switch \1\2/')
# A file of a detector's build has its own first frame below the trampoline.
first=$(functions running | sed -n 's/.*\(first_frame \).*/\1/p')
expect running "look_here $body ${first}heist__ctx_trampoline"
expect suspended "$switch$body ${first}heist__ctx_trampoline"
expect host "look_here main"
grep -q "exited normally" "$tmp/out" || { cat "$tmp/out"; echo "FAILED: the program did not end well"; exit 1; }
if grep -i "corrupt\|previous frame" "$tmp/out"; then exit 1; fi
echo "passed"
