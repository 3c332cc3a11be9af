/* four_ways: three coroutines at once, and the ways to their results (APP-01, APP-02).
 *
 * wait says who is done and leaves the outcomes to each future; gather gives a list of
 * results in the order of the tasks; as_completed gives each when it comes.  What a main
 * coroutine does not use itself it returns, and whoever runs it goes on with that. */
#include <heist.h>
#include <stdio.h>
#include <stdlib.h>

struct work {
    double seconds;
    char text[32];
};

struct sheet {
    struct work work[3];
    heist_future *task[3];
    void *result[3];
    size_t done, pending;
};

static int do_some_work(void *arg, void **out) {
    struct work *w = arg;
    printf("  waiting: %g\n", w->seconds);
    int err = heist_sleep(w->seconds);
    if (err < 0) return err;
    snprintf(w->text, sizeof w->text, "done after %g s", w->seconds);
    *out = w->text;
    return 0;
}

/* The slowest stands first: so one sees which order the results come in. */
static int start(struct sheet *s) {
    static const double seconds[] = {4, 1, 2};
    heist_awaitable coroutine[3];
    for (int i = 0; i < 3; i++) {
        s->work[i].seconds = seconds[i];
        coroutine[i] = HEIST_CORO(do_some_work, &s->work[i]);
    }
    return heist_ensure_futures(NULL, coroutine, 3, NULL, NULL, s->task);
}

static int print_results(heist_future *const *task, size_t n) {
    for (size_t i = 0; i < n; i++) {
        void *text;
        int err = heist_future_result(task[i], &text);
        if (err < 0) return err;
        printf("  result: %s\n", (char *)text);
    }
    return 0;
}

static int with_wait(void *arg, void **out) {
    struct sheet *s = arg;
    (void)out;
    int err = start(s);
    if (err == 0) err = heist_wait(s->task, 3, HEIST_ALL_COMPLETED, HEIST_FOREVER, NULL);
    return err < 0 ? err : print_results(s->task, (size_t)err); /* wait returned how many are done */
}

static int with_gather(void *arg, void **out) {
    struct sheet *s = arg;
    (void)out;
    int err = start(s);
    if (err == 0) err = heist_gather(s->task, 3, s->result, 0);
    for (int i = 0; i < 3 && err == 0; i++) printf("  result: %s\n", (char *)s->result[i]);
    return err;
}

static int return_the_gather(void *arg, void **out) {
    struct sheet *s = arg;
    int err = start(s);
    if (err == 0) err = heist_gather(s->task, 3, s->result, 0);
    *out = s->result;
    return err;
}

/* Two sets are one array here: first those that are done, then those that are not. */
static int return_the_sets(void *arg, void **out) {
    struct sheet *s = arg;
    int err = start(s);
    if (err == 0) err = heist_wait(s->task, 3, HEIST_ALL_COMPLETED, HEIST_FOREVER, &s->pending);
    if (err < 0) return err;
    s->done = (size_t)err;
    *out = s;
    return 0;
}

static int with_as_completed(void *arg, void **out) {
    struct sheet *s = arg;
    heist_completions *each;
    void *text;
    (void)out;
    int err = start(s);
    if (err == 0) err = heist_as_completed(s->task, 3, HEIST_FOREVER, &each);
    if (err < 0) return err;
    while ((err = heist_completions_await(each, &text)) > 0) printf("  result: %s\n", (char *)text);
    heist_completions_free(each);
    return err;
}

static int print_list(void *list) {
    for (int i = 0; i < 3; i++) printf("  result: %s\n", ((char **)list)[i]);
    return 0;
}

static int print_sets(void *sets) {
    struct sheet *s = sets;
    printf("  done: %zu, pending: %zu\n", s->done, s->pending);
    return print_results(s->task, s->done);
}

/* Runs one main coroutine, and hands on what it returned. */
static int run(heist_loop *loop, const char *title, heist_coro_fn main_coro, int (*use)(void *result)) {
    struct sheet *s = calloc(1, sizeof *s); /* outlives every coroutine */
    double begin = heist_loop_time(loop);
    void *result = NULL;
    if (!s) return -ENOMEM;
    printf("%s\n", title);
    int err = heist_loop_run_coroutine(loop, main_coro, s, NULL, &result);
    if (err == 0 && use) err = use(result);
    printf("  in all: %.0f s\n", heist_loop_time(loop) - begin);
    heist_unref_all(s->task, 3);
    if (err < 0) return err; /* tasks may be left that use the sheet */
    free(s);
    return 0;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME; /* the seconds pass at once */
    if (heist_loop_new(&options, &loop) < 0) return 1;
    int err = run(loop, "wait, printed by the list of tasks", with_wait, NULL);
    if (err == 0) err = run(loop, "gather", with_gather, NULL);
    if (err == 0) err = run(loop, "main returns the gather", return_the_gather, print_list);
    if (err == 0) err = run(loop, "main returns both sets", return_the_sets, print_sets);
    if (err == 0) err = run(loop, "as_completed", with_as_completed, NULL);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
