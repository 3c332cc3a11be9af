/* Reading and advancing a clock, and seconds to nanoseconds; see clock.h. */
#include "loop/clock.h"

#include "base/sys.h"

void heist__clock_init(struct heist__clock *clock, bool virtual_time, int64_t start_ns) {
    clock->virtual_time = virtual_time;
    a_store_rlx(&clock->now_ns, start_ns); /* rlx: nobody else knows the clock yet */
}

int64_t heist__clock_now(struct heist__clock *clock) {
    /* acq: pairs with the exchange in advance_to; who sees the new time sees what its setter did before. */
    return clock->virtual_time ? a_load_acq(&clock->now_ns) : heist__sys_monotonic_ns();
}

void heist__clock_advance_to(struct heist__clock *clock, int64_t ns) {
    if (!clock->virtual_time) return;
    int64_t now = a_load_rlx(&clock->now_ns); /* rlx: only a guess for the exchange, which orders */
    /* A plain store would let the later of two setters take time back. */
    while (now < ns && !a_cas_ar(&clock->now_ns, &now, ns)) continue; /* ar: pairs with clock_now */
}

int64_t heist__ns_from_seconds(double seconds) {
    if (seconds != seconds) return HEIST__NOT_A_TIME;
    if (seconds >= 9223372036.0) return HEIST__NEVER;
    if (seconds <= -9223372036.0) return INT64_MIN + 1;

    /* Whole seconds are exact in integers, and a fraction below 1 loses less than 1e-7 ns in the product. */
    int64_t whole = (int64_t)seconds;
    double fraction_ns = (seconds - (double)whole) * 1e9;
    int64_t ns = whole * 1000000000 + (int64_t)fraction_ns;

    /* A cast goes towards zero.  The last bit of the double decides what is right: an instant must survive
     * the way to seconds and back, and must not come out before what was asked for.  Below 2^22 s doubles
     * are closer than nanoseconds, and at most one step is made; above, several instants share a double,
     * there is nothing to go back to, and the steps are at most as many as lie between two doubles. */
    if (seconds < 4194304.0 && seconds > -4194304.0 && heist__seconds_from_ns(ns - 1) >= seconds) return ns - 1;
    while (heist__seconds_from_ns(ns) < seconds) ns++;
    return ns;
}

int64_t heist__deadline_after(struct heist__clock *clock, double delay) {
    int64_t ns = heist__ns_from_seconds(delay);
    if (ns == HEIST__NOT_A_TIME || ns == HEIST__NEVER) return ns;
    return heist__ns_add(heist__clock_now(clock), ns);
}
