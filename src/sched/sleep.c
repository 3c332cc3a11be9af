/* sleep, yield, and the time. */
#include <heist/loop.h>
#include <heist/task.h>
#include <math.h>

#include "base/sys.h"
#include "sched/suspend.h"

static struct heist__clock real_clock; /* zero: not virtual */

struct heist__clock *heist__clock_here(void) {
    heist_loop *loop = heist__self()->loop;
    return loop ? loop->clock : &real_clock;
}

double heist_time(void) { return heist__seconds_from_ns(heist__clock_now(heist__clock_here())); }

double heist_loop_time(const heist_loop *loop) {
    bool open = loop && !a_load_acq(&((heist_loop *)(uintptr_t)loop)->closed); /* acq: the clock may be gone */
    return heist__seconds_from_ns(heist__clock_now(open ? loop->clock : &real_clock));
}

/* A sleep waits for nobody but its timer. */
static bool publish_nothing(struct heist__wait *w, heist_loop *loop) {
    (void)w, (void)loop;
    return true;
}

static int sleep_until(int64_t deadline_ns) {
    struct heist__wait w;
    w.deadline_ns = deadline_ns;
    w.publish = publish_nothing;
    w.withdraw = NULL;
    int code = heist__wait(&w);
    return code == -ETIMEDOUT ? 0 : code;
}

int heist_sleep_until(double when) {
    if (isnan(when)) return -EINVAL;
    struct heist__self *self = heist__self();
    int err = heist__wait_entry(self);
    if (err) return err;
    int64_t deadline = heist__ns_from_seconds(when);
    if (self->task && deadline <= heist__clock_now(heist__clock_here())) return heist_yield();
    return sleep_until(deadline);
}

int heist_sleep(double seconds) {
    if (isnan(seconds)) return -EINVAL;
    if (!(seconds > 0)) return heist_yield();
    struct heist__self *self = heist__self();
    int err = heist__wait_entry(self);
    if (err) return err;
    return sleep_until(heist__deadline_after(heist__clock_here(), seconds));
}

int heist_yield(void) {
    struct heist__self *self = heist__self();
    int err = heist__wait_entry(self);
    if (err) return err;
    if (!self->task) {
        heist__sys_yield();
        return 0;
    }
    heist__give_way(self);
    return heist__cancel_take(heist__self()->task) ? -ECANCELED : 0;
}
