/* context_vars: a request's number, known to everything that works for it.
 *
 * Nobody passes it on: a task begins with a copy of its creator's variables, a callback
 * runs with those of the moment in which it was registered, and both keep them on whichever
 * worker they stand. Clean-up that is deferred runs on every way out, and may wait. */
#include <heist.h>
#include <stdio.h>

static heist_context_var *request;

/* Deep inside, where nobody has heard of requests. */
static void log_line(const char *text) {
    void *number = NULL;
    if (heist_context_get(request, &number) == 0) printf("[request %d] %s\n", (int)(intptr_t)number, text);
    else printf("[no request] %s\n", text);
}

static int callback(void *arg) {
    log_line(arg);
    return 0;
}

static void give_back(void *arg) {
    (void)heist_sleep(0.01); /* clean-up may wait, in a task that was cancelled too */
    log_line(arg);
}

static int part(void *arg, void **out) {
    (void)out;
    heist_defer(give_back, (void *)"connection given back");
    int err = heist_sleep(0.1);
    log_line(err < 0 ? "cancelled in the middle" : (const char *)arg);
    return err;
}

static int handle(void *arg, void **out) {
    heist_loop *loop;
    heist_task *t = NULL;
    (void)out;
    int err = heist_context_set(request, arg, NULL, NULL); /* seen by nobody else */
    if (err == 0) err = heist_get_running_loop(&loop);
    if (err == 0) err = heist_create_task(part, (void *)"a part of it is done", NULL, &t);
    if (err < 0) return err;
    err = heist_loop_call_later(loop, 0.05, callback, (void *)"still at it", NULL, NULL);
    if ((intptr_t)arg == 2 && err == 0) { /* this one gives up early */
        err = heist_sleep(0.06);
        heist_cancel(t);
    }
    int ended = heist_await(t, NULL);
    heist_unref(t);
    log_line("answered");
    return err < 0 ? err : ended == -ECANCELED ? 0 : ended;
}

static int main_coro(void *arg, void **out) {
    (void)arg, (void)out;
    int err = heist_context_var_new("request", NULL, &request);
    for (intptr_t number = 1; number <= 2 && err == 0; number++) {
        heist_task *t;
        err = heist_create_task(handle, (void *)number, NULL, &t);
        if (err < 0) break;
        err = heist_await(t, NULL);
        heist_unref(t);
    }
    log_line("all answered"); /* what the tasks set is theirs */
    return err;
}

int main(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.flags = HEIST_RUNTIME_VIRTUAL_TIME; /* the waits pass at once */
    int err = heist_run(main_coro, NULL, &opts, NULL);
    heist_context_var_unref(request);
    return err < 0;
}
