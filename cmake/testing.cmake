# How a test is run: its time limit, its launcher, its environment.

# A test has 300 s, far more than it takes: the machine may be slow and busy.  The slow observers get three times as long.
set(heist_test_timeout 300)
if(HEIST_VALGRIND OR HEIST_SANITIZE STREQUAL "thread" OR HEIST_TEST_LAUNCHER)
    set(heist_test_timeout 900)
endif()

set(heist_test_launcher ${HEIST_TEST_LAUNCHER})
if(HEIST_VALGRIND)
    find_program(VALGRIND valgrind REQUIRED)
    # Children that a test forks are watched for bad accesses, not for leaks: they
    # end without unwinding.  The process that runs the test must leave nothing.
    set(heist_test_launcher "${VALGRIND}" --quiet --error-exitcode=99 --leak-check=full
        --errors-for-leak-kinds=definite,indirect,possible --child-silent-after-fork=yes --fair-sched=try)
endif()

set(heist_test_environment "")
if(HEIST_SANITIZE STREQUAL "address")
    # LeakSanitizer traces its own process, which some containers forbid: then it ends every program with an
    # error, and the tests look for everything but leaks.
    set(heist_leak_probe "${CMAKE_BINARY_DIR}/leak_probe")
    file(WRITE "${heist_leak_probe}.c" "int main(void) { return 0; }\n")
    execute_process(COMMAND "${CMAKE_C_COMPILER}" -fsanitize=address "${heist_leak_probe}.c" -o "${heist_leak_probe}"
                    RESULT_VARIABLE heist_leak_probe_builds OUTPUT_QUIET ERROR_QUIET)
    execute_process(COMMAND "${CMAKE_COMMAND}" -E env ASAN_OPTIONS=detect_leaks=1 "${heist_leak_probe}"
                    RESULT_VARIABLE heist_leak_probe_fails OUTPUT_QUIET ERROR_VARIABLE heist_leak_probe_said)
    if(heist_leak_probe_builds EQUAL 0 AND heist_leak_probe_said MATCHES "LeakSanitizer has encountered a fatal error")
        message(WARNING "nobody may trace a process here: the tests do not look for leaks")
        set(heist_test_environment "ASAN_OPTIONS=detect_leaks=0")
    else()
        set(heist_test_environment "ASAN_OPTIONS=detect_leaks=1")
    endif()
elseif(HEIST_SANITIZE STREQUAL "undefined")
    set(heist_test_environment "UBSAN_OPTIONS=print_stacktrace=1")
elseif(HEIST_SANITIZE STREQUAL "thread")
    set(heist_test_environment "TSAN_OPTIONS=halt_on_error=0:second_deadlock_stack=1")
endif()

# heist_add_test(<name> LABELS ... [ENVIRONMENT ...] COMMAND ...)
function(heist_add_test name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LABELS;ENVIRONMENT;COMMAND")
    add_test(NAME "${name}" COMMAND ${arg_COMMAND})
    set_tests_properties("${name}" PROPERTIES TIMEOUT ${heist_test_timeout} LABELS "${arg_LABELS}"
                         ENVIRONMENT "${heist_test_environment};${arg_ENVIRONMENT}")
endfunction()
