/* The entry points of the compiler's instrumentation for race detection
 * (-fsanitize=thread), so that memory.c hears of every plain access of the checked
 * sources.  The detector itself is not linked.
 *
 * Atomics that do not go through conc/atomic.h (base/ stands above it) are done here, as
 * single steps that nobody can look into; they are counters and settings. */
#include <stdint.h>
#include <string.h>

#include "model/inside.h"

void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc) { (void)pc; }
void __tsan_func_exit(void);
void __tsan_func_exit(void) {}

#define PLAIN(name, bytes, writes)                                                                                     \
    void __tsan_##name(void *p);                                                                                       \
    void __tsan_##name(void *p) { memory_plain(p, bytes, writes, __builtin_return_address(0)); }
#define WIDTH(bytes)                                                                                                   \
    PLAIN(read##bytes, bytes, false)                                                                                   \
    PLAIN(write##bytes, bytes, true)                                                                                   \
    PLAIN(unaligned_read##bytes, bytes, false)                                                                         \
    PLAIN(unaligned_write##bytes, bytes, true)                                                                         \
    PLAIN(volatile_read##bytes, bytes, false)                                                                          \
    PLAIN(volatile_write##bytes, bytes, true)
WIDTH(1)
WIDTH(2) WIDTH(4) WIDTH(8) WIDTH(16)

    void __tsan_read_range(void *p, unsigned long bytes);
void __tsan_read_range(void *p, unsigned long bytes) { memory_plain(p, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(void *p, unsigned long bytes);
void __tsan_write_range(void *p, unsigned long bytes) { memory_plain(p, bytes, true, __builtin_return_address(0)); }

void *__tsan_memcpy(void *to, const void *from, size_t bytes);
void *__tsan_memcpy(void *to, const void *from, size_t bytes) { return memcpy(to, from, bytes); }
void *__tsan_memset(void *to, int byte, size_t bytes);
void *__tsan_memset(void *to, int byte, size_t bytes) { return memset(to, byte, bytes); }

#define RMW(bits, name, expression)                                                                                    \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile void *p, uint##bits##_t v, int order);                        \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile void *p, uint##bits##_t v, int order) {                       \
        (void)order;                                                                                                   \
        volatile uint##bits##_t *at = p;                                                                               \
        uint##bits##_t old = *at;                                                                                      \
        *at = (uint##bits##_t)(expression);                                                                            \
        return old;                                                                                                    \
    }
#define ATOMIC(bits)                                                                                                   \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile void *p, int order);                                      \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile void *p, int order) {                                     \
        (void)order;                                                                                                   \
        return *(const volatile uint##bits##_t *)p;                                                                    \
    }                                                                                                                  \
    void __tsan_atomic##bits##_store(volatile void *p, uint##bits##_t v, int order);                                   \
    void __tsan_atomic##bits##_store(volatile void *p, uint##bits##_t v, int order) {                                  \
        (void)order;                                                                                                   \
        *(volatile uint##bits##_t *)p = v;                                                                             \
    }                                                                                                                  \
    RMW(bits, exchange, v)                                                                                             \
    RMW(bits, fetch_add, old + v)                                                                                      \
    RMW(bits, fetch_sub, old - v)                                                                                      \
    RMW(bits, fetch_and, old &v)                                                                                       \
    RMW(bits, fetch_or, old | v)                                                                                       \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile void *p, void *expected, uint##bits##_t v, int order,   \
                                                      int failure);                                                    \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile void *p, void *expected, uint##bits##_t v, int order,   \
                                                      int failure) {                                                   \
        (void)order, (void)failure;                                                                                    \
        volatile uint##bits##_t *at = p;                                                                               \
        uint##bits##_t *want = expected, found = *at;                                                                  \
        if (found != *want) {                                                                                          \
            *want = found;                                                                                             \
            return 0;                                                                                                  \
        }                                                                                                              \
        *at = v;                                                                                                       \
        return 1;                                                                                                      \
    }
ATOMIC(8)
ATOMIC(16) ATOMIC(32) ATOMIC(64)

    void __tsan_atomic_thread_fence(int order);
void __tsan_atomic_thread_fence(int order) { (void)order; }
void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order) { (void)order; }
