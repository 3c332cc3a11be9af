# Cross build for 64-bit ARM with Debian's compiler; the tests run under qemu's user
# emulation.  HEIST_AARCH64_ROOT holds Concurrency Kit and cmocka for that machine, as
# `./dev test aarch64` unpacks them.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_ASM_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(HEIST_AARCH64_ROOT "${CMAKE_CURRENT_LIST_DIR}/../build/aarch64-root" CACHE PATH "Libraries for arm64")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES HEIST_AARCH64_ROOT)
set(CMAKE_FIND_ROOT_PATH "${HEIST_AARCH64_ROOT}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)

set(HEIST_TEST_LAUNCHER "${CMAKE_CURRENT_LIST_DIR}/../tests/support/one_cpu;qemu-aarch64;-L;/usr/aarch64-linux-gnu"
    CACHE STRING "")
