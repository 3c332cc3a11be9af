/* The contended path of the short lock, kept out of line so that the callers
 * carry only the exchange. */
#include "conc/spin.h"

#include "arch/cpu.h"
#include "base/sys.h"

/* Reads before the time slice is given away.  A held section is some tens of
 * nanoseconds, a pause instruction 10 to 50 ns: 100 reads outlast several
 * sections of a holder that runs, and cost little when it does not.  Measured
 * with one counter under the lock on two processors, best and worst of five, ns
 * for each section: with 2 threads 8 to 28, with 8 threads 8 to 19.  Concurrency
 * Kit's fas lock: 8 and 81 to 169 (it never gives its slice away); with
 * exponential back-off 7 to 16 and 13 to 21; this lock with that back-off in
 * place of the yield 11 to 57 and 78 to 156. */
#define SPINS_BEFORE_YIELD 100

HEIST_COLD void heist__spin_lock_slow(struct heist__spin *s) {
#ifdef HEIST_SEEDED
    if (heist__simulated()) { /* waits by name, so that a deadlock is one */
        do heist__sim_wait(s, INT64_MAX, "a spin lock");
        while (a_xchg_acq(&s->word, 1) != 0); /* acquire as below */
        return;
    }
#endif
    unsigned spins = 0;
    for (;;) {
        /* Relaxed: only says when to try; the exchange below does the order. */
        while (a_load_rlx(&s->word) != 0) {
            if (++spins < SPINS_BEFORE_YIELD) {
                heist__cpu_relax();
            } else {
                heist__sys_yield();
                spins = 0;
            }
        }
        /* Acquire pairs with the release in heist__spin_unlock. */
        if (a_xchg_acq(&s->word, 1) == 0) return;
    }
}
