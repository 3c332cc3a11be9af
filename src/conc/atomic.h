/* C11 atomics with the order in the name, so that a search lists every order
 * in use, and with a yield point in front, so that a seeded build sees each.
 *
 *   rlx  relaxed: this location only, orders nothing else
 *   acq  acquire: what was written before the paired release is seen after
 *   rel  release: what was written before is seen after the paired acquire
 *   ar   acquire and release in one read-modify-write
 *   sc   sequentially consistent: one order of all of them
 *
 * House form: each use weaker than sc says what it pairs with.  A stand-alone
 * fence appears only where a store must stay before a later load (the race
 * detectors do not see message passing by fences). */
#ifndef HEIST_CONC_ATOMIC_H
#define HEIST_CONC_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"
#include "conc/yield_point.h"

#ifdef HEIST_MODEL
#include "conc/atomic_model.h"
#else

#define a_load_rlx(p) (heist__yield_point(), atomic_load_explicit((p), memory_order_relaxed))
#define a_load_acq(p) (heist__yield_point(), atomic_load_explicit((p), memory_order_acquire))
#define a_load_sc(p) (heist__yield_point(), atomic_load_explicit((p), memory_order_seq_cst))
#define a_store_rlx(p, v) (heist__yield_point(), atomic_store_explicit((p), (v), memory_order_relaxed))
#define a_store_rel(p, v) (heist__yield_point(), atomic_store_explicit((p), (v), memory_order_release))
#define a_store_sc(p, v) (heist__yield_point(), atomic_store_explicit((p), (v), memory_order_seq_cst))
#define a_xchg_acq(p, v) (heist__yield_point(), atomic_exchange_explicit((p), (v), memory_order_acquire))
#define a_xchg_ar(p, v) (heist__yield_point(), atomic_exchange_explicit((p), (v), memory_order_acq_rel))
#define a_xchg_sc(p, v) (heist__yield_point(), atomic_exchange_explicit((p), (v), memory_order_seq_cst))
#define a_add_rlx(p, v) (heist__yield_point(), atomic_fetch_add_explicit((p), (v), memory_order_relaxed))
#define a_add_ar(p, v) (heist__yield_point(), atomic_fetch_add_explicit((p), (v), memory_order_acq_rel))
#define a_add_sc(p, v) (heist__yield_point(), atomic_fetch_add_explicit((p), (v), memory_order_seq_cst))
#define a_sub_rlx(p, v) (heist__yield_point(), atomic_fetch_sub_explicit((p), (v), memory_order_relaxed))
#define a_sub_ar(p, v) (heist__yield_point(), atomic_fetch_sub_explicit((p), (v), memory_order_acq_rel))
#define a_sub_sc(p, v) (heist__yield_point(), atomic_fetch_sub_explicit((p), (v), memory_order_seq_cst))
#define a_or_ar(p, v) (heist__yield_point(), atomic_fetch_or_explicit((p), (v), memory_order_acq_rel))
#define a_or_sc(p, v) (heist__yield_point(), atomic_fetch_or_explicit((p), (v), memory_order_seq_cst))
#define a_and_ar(p, v) (heist__yield_point(), atomic_fetch_and_explicit((p), (v), memory_order_acq_rel))
#define a_and_sc(p, v) (heist__yield_point(), atomic_fetch_and_explicit((p), (v), memory_order_seq_cst))

/* A store that must stay before a later sc load of this thread, when an sc read-modify-write stands between
 * them: on x86 that is a full barrier, and the store needs none of its own; elsewhere the store is sc. */
#if defined(__x86_64__)
#define a_store_before_rmw(p, v) a_store_rel(p, v)
#else
#define a_store_before_rmw(p, v) a_store_sc(p, v)
#endif

/* Full barrier: a store before it stays before a load after it. */
#define a_fence_sc() (heist__yield_point(), atomic_thread_fence(memory_order_seq_cst))

/* Strong compare-and-swap; on failure *expected holds what was found, with
 * acquire where the success order has it. */
#define a_cas_acq(p, expected, v)                                                                                      \
    (heist__yield_point(), atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acquire,        \
                                                                   memory_order_acquire))
#define a_cas_rel(p, expected, v)                                                                                      \
    (heist__yield_point(), atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_release,        \
                                                                   memory_order_relaxed))
#define a_cas_ar(p, expected, v)                                                                                       \
    (heist__yield_point(), atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel,        \
                                                                   memory_order_acquire))
#define a_cas_sc(p, expected, v)                                                                                       \
    (heist__yield_point(), atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_seq_cst,        \
                                                                   memory_order_seq_cst))

#endif

#endif
