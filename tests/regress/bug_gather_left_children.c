/* A gather whose task had been asked to cancel before the call left its children running.
 *
 * heist_gather promises to return only when all of its futures have ended, also when the
 * task that waits is cancelled.  At its entry it took a request that was pending already,
 * as every call that may suspend does, and returned -ECANCELED at once: nobody cancelled
 * the children, and nobody waited for them.  A parent that then frees what its children
 * use has a use after free.
 *
 * The task asks for its own cancellation, so the request is pending at the entry. */
#include "regress/workers.h"

struct family {
    _Atomic(int) begun, ended, cancelled;
    unsigned flags;
    int gathered, ended_at_return;
};

static int child(void *arg, void **out) {
    struct family *family = arg;
    (void)out;
    family->begun++;
    int err = heist_sleep(1000);
    if (err == -ECANCELED) family->cancelled++;
    for (int i = 0; i < 3; i++) heist_yield(); /* a clean-up that suspends */
    family->ended++;
    return err;
}

static int parent(void *arg, void **out) {
    struct family *family = arg;
    heist_task *children[5];
    (void)out;
    for (int i = 0; i < 5; i++) {
        int err = heist_create_task(child, family, NULL, &children[i]);
        if (err < 0) return err;
    }
    while (family->begun < 5) {
        int err = heist_sleep(0.001);
        if (err < 0) return err;
    }
    int err = heist_cancel(heist_current_task());
    if (err != 1) return -EPROTO;
    family->gathered = heist_gather(children, 5, NULL, family->flags);
    family->ended_at_return = family->ended;
    for (int i = 0; i < 5; i++) heist_unref(children[i]);
    return family->gathered;
}

static void gather_with_a_pending_request_ends_its_children(void **state) {
    (void)state;
    static const unsigned forms[] = {0, HEIST_GATHER_ALL};
    for (EACH_WORKER_COUNT(workers)) {
        for (int form = 0; form < 2; form++) {
            heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
            struct family family = {.flags = forms[form]};
            opts.workers = workers;
            opts.flags = HEIST_RUNTIME_VIRTUAL_TIME;
            assert_int_equal(heist_run(parent, &family, &opts, NULL), -ECANCELED);
            assert_int_equal(family.gathered, -ECANCELED);
            assert_int_equal(family.ended_at_return, 5);
            assert_int_equal(family.cancelled, 5);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(gather_with_a_pending_request_ends_its_children),
    };
    return HARNESS_MAIN("bug_gather_left_children", tests);
}
