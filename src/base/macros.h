/* Attributes and small macros that every room uses.  Knows nothing of threads. */
#ifndef HEIST_BASE_MACROS_H
#define HEIST_BASE_MACROS_H

#include <stddef.h>
#include <stdint.h>

#define HEIST_CACHE_LINE 64

#define heist_likely(x) __builtin_expect(!!(x), 1)
#define heist_unlikely(x) __builtin_expect(!!(x), 0)

#define HEIST_NOINLINE __attribute__((noinline))
#define HEIST_COLD __attribute__((cold, noinline))
#define HEIST_NORETURN __attribute__((noreturn))
#define HEIST_ALIGNED(n) __attribute__((aligned(n)))
#define HEIST_UNUSED __attribute__((unused))
#define HEIST_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* The structure that holds MEMBER at the address PTR. */
#define heist_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define HEIST_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Which detectors watch this build.  (tests/model takes the instrumentation of one, and not the detector.) */
#if defined(__SANITIZE_ADDRESS__)
#define HEIST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEIST_ASAN 1
#endif
#endif
#if defined(HEIST_MODEL)
#define HEIST_TSAN 0
#elif defined(__SANITIZE_THREAD__)
#define HEIST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HEIST_TSAN 1
#endif
#endif
#ifndef HEIST_ASAN
#define HEIST_ASAN 0
#endif
#ifndef HEIST_TSAN
#define HEIST_TSAN 0
#endif

#endif
