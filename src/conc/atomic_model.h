/* The named atomics of atomic.h as calls into the model checker of tests/model.
 *
 * Only in a build with HEIST_MODEL, which no library is: tests/model compiles the sources
 * once more with it.  There every program is one thread of the system that plays several,
 * and the checker decides who goes on before each access and, where C11 leaves it open,
 * which store a load reads (tests/model/README.md).
 * `site` names the place for reports, and tells the checker's places apart. */
#ifndef HEIST_CONC_ATOMIC_MODEL_H
#define HEIST_CONC_ATOMIC_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { HEIST__ORDER_RLX, HEIST__ORDER_ACQ, HEIST__ORDER_REL, HEIST__ORDER_AR, HEIST__ORDER_SC };
enum { HEIST__RMW_XCHG, HEIST__RMW_ADD, HEIST__RMW_SUB, HEIST__RMW_OR, HEIST__RMW_AND };

uint64_t heist__model_load(const volatile void *p, unsigned bytes, int order, const char *site);
void heist__model_store(volatile void *p, unsigned bytes, uint64_t value, int order, const char *site);
uint64_t heist__model_rmw(volatile void *p, unsigned bytes, int op, uint64_t value, int order, const char *site);
/* Strong; acquire on failure where the order has it. */
bool heist__model_cas(volatile void *p, unsigned bytes, void *expected, uint64_t value, int order, const char *site);
void heist__model_fence(const char *site);
/* Not atomic: whoever reads the object must have been told of it. */
void heist__model_init(volatile void *p, unsigned bytes, uint64_t value, const char *site);

#define HEIST__SITE_TEXT(line) #line
#define HEIST__SITE_LINE(line) HEIST__SITE_TEXT(line)
#define HEIST__SITE __FILE__ ":" HEIST__SITE_LINE(__LINE__)
/* The comma takes the qualifiers off. */
#define HEIST__PLAIN(p) __typeof__((void)0, *(p))

#define HEIST__LOAD(p, order) ((HEIST__PLAIN(p))heist__model_load((p), sizeof(*(p)), HEIST__ORDER_##order, HEIST__SITE))
#define HEIST__STORE(p, v, order)                                                                                      \
    heist__model_store((p), sizeof(*(p)), (uint64_t)(v), HEIST__ORDER_##order, HEIST__SITE)
#define HEIST__RMW(p, op, v, order)                                                                                    \
    ((HEIST__PLAIN(p))heist__model_rmw((p), sizeof(*(p)), HEIST__RMW_##op, (uint64_t)(v), HEIST__ORDER_##order,        \
                                       HEIST__SITE))
#define HEIST__CAS(p, expected, v, order)                                                                              \
    heist__model_cas((p), sizeof(*(p)), (expected), (uint64_t)(v), HEIST__ORDER_##order, HEIST__SITE)

#undef atomic_init
#define atomic_init(p, v) heist__model_init((p), sizeof(*(p)), (uint64_t)(v), HEIST__SITE)

#define a_load_rlx(p) HEIST__LOAD(p, RLX)
#define a_load_acq(p) HEIST__LOAD(p, ACQ)
#define a_load_sc(p) HEIST__LOAD(p, SC)
#define a_store_rlx(p, v) HEIST__STORE(p, v, RLX)
#define a_store_rel(p, v) HEIST__STORE(p, v, REL)
#define a_store_sc(p, v) HEIST__STORE(p, v, SC)
#define a_xchg_rlx(p, v) HEIST__RMW(p, XCHG, v, RLX)
#define a_xchg_acq(p, v) HEIST__RMW(p, XCHG, v, ACQ)
#define a_xchg_rel(p, v) HEIST__RMW(p, XCHG, v, REL)
#define a_xchg_ar(p, v) HEIST__RMW(p, XCHG, v, AR)
#define a_xchg_sc(p, v) HEIST__RMW(p, XCHG, v, SC)
#define a_add_rlx(p, v) HEIST__RMW(p, ADD, v, RLX)
#define a_add_acq(p, v) HEIST__RMW(p, ADD, v, ACQ)
#define a_add_rel(p, v) HEIST__RMW(p, ADD, v, REL)
#define a_add_ar(p, v) HEIST__RMW(p, ADD, v, AR)
#define a_add_sc(p, v) HEIST__RMW(p, ADD, v, SC)
#define a_sub_rlx(p, v) HEIST__RMW(p, SUB, v, RLX)
#define a_sub_rel(p, v) HEIST__RMW(p, SUB, v, REL)
#define a_sub_ar(p, v) HEIST__RMW(p, SUB, v, AR)
#define a_sub_sc(p, v) HEIST__RMW(p, SUB, v, SC)
#define a_or_ar(p, v) HEIST__RMW(p, OR, v, AR)
#define a_or_sc(p, v) HEIST__RMW(p, OR, v, SC)
#define a_and_ar(p, v) HEIST__RMW(p, AND, v, AR)
#define a_and_sc(p, v) HEIST__RMW(p, AND, v, SC)
/* The model is C11's, which does not know what x86 adds. */
#define a_store_before_rmw(p, v) a_store_sc(p, v)
#define a_fence_sc() heist__model_fence(HEIST__SITE)
#define a_cas_rlx(p, expected, v) HEIST__CAS(p, expected, v, RLX)
#define a_cas_acq(p, expected, v) HEIST__CAS(p, expected, v, ACQ)
#define a_cas_rel(p, expected, v) HEIST__CAS(p, expected, v, REL)
#define a_cas_ar(p, expected, v) HEIST__CAS(p, expected, v, AR)
#define a_cas_sc(p, expected, v) HEIST__CAS(p, expected, v, SC)

#endif
