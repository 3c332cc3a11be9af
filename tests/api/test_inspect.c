/* heist/inspect.h: where tasks stand, and who waits for whom.  Rows TASK-29, TASK-30 and DBG-02 to DBG-20. */
#include "support/harness.h"

#include <heist/debug.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_FRAMES 64

/* ---- a task that notes where it stands ---- */

struct stander {
    int depth;
    double seconds;
    heist_future *awaits; /* instead of sleeping, when set */
    double until;         /* with a deadline, when not 0 */
    void *notes[16];      /* the return addresses of its dives, the outermost first */
    int note_count;
    void *own[MAX_FRAMES]; /* what it sees of itself, if it looks */
    int looks, own_count;
};

static int dive(struct stander *s, int depth);
static int (*volatile dive_again)(struct stander *s, int depth) = dive;

__attribute__((noinline)) static int dive(struct stander *s, int depth) {
    volatile int kept = depth;
    s->notes[s->note_count++] = __builtin_return_address(0);
    int err;
    if (depth > 1) err = dive_again(s, depth - 1);
    else if (s->looks) err = s->own_count = heist_task_get_stack(heist_current_task(), s->own, MAX_FRAMES);
    else if (s->awaits && s->until != 0) err = heist_await_until(s->awaits, s->until, NULL);
    else if (s->awaits) err = heist_await(s->awaits, NULL);
    else err = heist_sleep(s->seconds);
    return kept == depth && err < 0 ? err : 0;
}

static int stand(void *arg, void **out) {
    struct stander *s = arg;
    (void)out;
    int err = dive_again(s, s->depth);
    return err < 0 ? err : 0;
}

/* 1 when the noted addresses stand in the frames, the innermost first, one after the other. */
static int stands_in(const struct stander *s, void *const *frames, int count) {
    int at = 0;
    while (at < count && frames[at] != s->notes[s->note_count - 1]) at++;
    for (int i = s->note_count - 1; i >= 0; i--, at++)
        if (at >= count || frames[at] != s->notes[i]) return 0;
    return 1;
}

static heist_task *start(heist_coro_fn fn, void *arg, const char *name) {
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.name = name;
    heist_task *t = NULL;
    if (heist_create_task(fn, arg, &opts, &t) < 0) abort();
    return t;
}

/* ---- stacks ---- */

struct stacks {
    struct stander sleeper, awaiter, looker;
    void *frames[MAX_FRAMES], *cut[3];
    int before_begin, suspended, limited, nothing, after_end, after_cancel, found, found_again, found_own,
        awaiter_found;
    char text[4096];
};

static int look_at_stacks(void *arg, void **out) {
    struct stacks *s = arg;
    (void)out;
    s->sleeper = (struct stander){.depth = 5, .seconds = 100};
    heist_task *t = start(stand, &s->sleeper, "sleeper");
    heist_sleep(1);
    s->suspended = heist_task_get_stack(t, s->frames, MAX_FRAMES);
    s->found = stands_in(&s->sleeper, s->frames, s->suspended);
    s->limited = heist_task_get_stack(t, s->cut, 3);
    if (memcmp(s->cut, s->frames, sizeof(s->cut)) != 0) s->limited = -1;
    s->nothing = heist_task_get_stack(t, NULL, 0);
    s->awaiter = (struct stander){.depth = 2, .awaits = t};
    heist_task *a = start(stand, &s->awaiter, "awaiter");
    heist_sleep(1);
    int n = heist_task_get_stack(a, s->frames, MAX_FRAMES);
    s->awaiter_found = stands_in(&s->awaiter, s->frames, n);
    n = heist_task_get_stack(t, s->frames, MAX_FRAMES);
    s->found_again = stands_in(&s->sleeper, s->frames, n);
    heist_await(a, NULL);
    s->after_end = heist_task_get_stack(t, s->frames, MAX_FRAMES);
    heist_unref(a);
    heist_unref(t);
    s->looker = (struct stander){.depth = 3, .looks = 1};
    t = start(stand, &s->looker, "looker");
    heist_await(t, NULL);
    s->found_own = stands_in(&s->looker, s->looker.own, s->looker.own_count);
    heist_unref(t);
    struct stander never = {.depth = 1};
    t = start(stand, &never, "never");
    s->before_begin = heist_task_get_stack(t, s->frames, MAX_FRAMES);
    heist_cancel(t);
    heist_await(t, NULL);
    s->after_cancel = heist_task_get_stack(t, s->frames, MAX_FRAMES);
    heist_unref(t);
    return 0;
}

static void stack_of_a_suspended_task_and_none_of_one_that_ended_TASK_29(void **state) {
    (void)state;
    struct stacks s = {.found = 0};
    assert_int_equal(harness_run(look_at_stacks, &s, NULL), 0);
    assert_true(s.suspended > 5 && s.suspended < MAX_FRAMES);
    assert_true(s.found);
    assert_int_equal(s.limited, 3);
    assert_int_equal(s.nothing, 0);
    assert_true(s.awaiter_found);
    assert_true(s.found_again);
    assert_true(s.found_own);
    assert_int_equal(s.after_end, 0);
    assert_int_equal(s.after_cancel, 0);
    /* With several workers it may have begun, and be on its way, at that moment. */
    assert_true(s.before_begin == 0 || harness_workers() > 1);
}

static int fail_with_words(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_fail(-EPROTO, "the words of %s", "failure");
}

static int print_stacks(void *arg, void **out) {
    struct stacks *s = arg;
    (void)out;
    FILE *to = fmemopen(s->text, sizeof(s->text), "w");
    if (!to) return -ENOMEM;
    s->sleeper = (struct stander){.depth = 2, .seconds = 100};
    heist_task *t = start(stand, &s->sleeper, "sleeper");
    heist_sleep(1);
    int err = heist_task_print_stack(t, 0, to);
    heist_cancel(t);
    heist_await(t, NULL);
    if (!err) err = heist_task_print_stack(t, 0, to);
    heist_unref(t);
    t = start(fail_with_words, NULL, "failing");
    heist_await(t, NULL);
    if (!err) err = heist_task_print_stack(t, 0, to);
    heist_unref(t);
    fclose(to);
    return err;
}

static void print_stack_writes_stack_or_failure_to_a_stream_TASK_30(void **state) {
    (void)state;
    struct stacks s = {.text = ""};
    assert_int_equal(harness_run(print_stacks, &s, NULL), 0);
    assert_non_null(strstr(s.text, "Stack for <Task name='sleeper' pending"));
    char frame[64];
    /* The address as the printer names it: object and offset, or symbol. */
    assert_true(heist_describe_address(s.sleeper.notes[0], 1, frame, sizeof(frame)) > 0);
    assert_non_null(strstr(s.text, frame));
    char *cancelled = strstr(s.text, "No stack for <Task name='sleeper' cancelled");
    assert_non_null(cancelled);
    char *failed = strstr(cancelled, "<Task name='failing' finished exception=EPROTO");
    assert_non_null(failed);
    assert_non_null(strstr(failed, "test_inspect.c\", line "));
    assert_non_null(strstr(failed, "EPROTO: the words of failure"));
}

struct spinner {
    struct gate began, go_on;
};

static int hold_worker(void *arg, void **out) {
    struct spinner *s = arg;
    (void)out;
    gate_open(&s->began);
    gate_wait(&s->go_on);
    return 0;
}

static void a_task_that_runs_elsewhere_is_busy_and_a_plain_thread_may_look(void **state) {
    (void)state;
    struct spinner s = {GATE_INIT, GATE_INIT};
    heist_runtime *rt = harness_runtime(0);
    heist_task *t;
    void *frames[8];
    assert_int_equal(heist_runtime_run_coroutine(rt, hold_worker, &s, NULL, &t), 0);
    gate_wait(&s.began);
    assert_int_equal(heist_task_get_stack(t, frames, 8), -EBUSY);
    gate_open(&s.go_on);
    assert_int_equal(heist_await(t, NULL), 0);
    assert_int_equal(heist_task_get_stack(t, frames, 8), 0);
    heist_unref(t);
    struct stander sleeper = {.depth = 2, .seconds = 3600};
    assert_int_equal(heist_runtime_run_coroutine(rt, stand, &sleeper, NULL, &t), 0);
    int n;
    while ((n = heist_task_get_stack(t, frames, 8)) <= 0) usleep(1000);
    heist_cancel(t);
    assert_int_equal(heist_await(t, NULL), -ECANCELED);
    assert_true(stands_in(&sleeper, frames, n)); /* now: to look at a task is no synchronisation with it */
    heist_unref(t);
    harness_runtime_end(rt);
}

/* Looks from one thread while others make the task move: whatever is answered, nothing breaks. */
struct movers {
    heist_task *tasks[4];
    int stop, begun;
};

static int move(void *arg, void **out) {
    struct movers *m = arg;
    (void)out;
    volatile char room[512];
    __atomic_add_fetch(&m->begun, 1, __ATOMIC_RELAXED);
    for (int i = 0; !__atomic_load_n(&m->stop, __ATOMIC_RELAXED); i++) {
        room[i % 512] = (char)i;
        int err = room[i % 512] != (char)i ? -EIO : i % 3 ? heist_yield() : heist_sleep(0.000001 * (i % 7));
        if (err < 0) return err;
    }
    return 0;
}

static void looking_at_tasks_that_move_is_safe(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    struct movers m = {.stop = 0};
    for (int i = 0; i < 4; i++) assert_int_equal(heist_runtime_run_coroutine(rt, move, &m, NULL, &m.tasks[i]), 0);
    while (__atomic_load_n(&m.begun, __ATOMIC_RELAXED) < 4) usleep(1000);
    int seen = 0, busy = 0;
    for (int i = 0; i < 2000; i++) {
        void *frames[16];
        int n = heist_task_get_stack(m.tasks[i % 4], frames, 16);
        assert_true(n >= 0 || n == -EBUSY);
        seen += n > 0;
        busy += n == -EBUSY;
    }
    assert_true(seen + busy > 0);
    __atomic_store_n(&m.stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heist_await(m.tasks[i], NULL), 0);
        heist_unref(m.tasks[i]);
    }
    harness_runtime_end(rt);
}

/* ---- graphs ---- */

static heist_call_graph *awaiter_named(const heist_call_graph *g, const char *name) {
    for (size_t i = 0; i < heist_call_graph_awaiters(g); i++) {
        heist_call_graph *a = heist_call_graph_awaiter(g, i);
        char own[64] = "";
        if (heist_future_is_task(heist_call_graph_future(a)))
            heist_task_name(heist_call_graph_future(a), own, sizeof(own));
        if (!strcmp(own, name)) return a;
    }
    return NULL;
}

struct graphs {
    struct stander leaf, low, middle, other, late;
    heist_call_graph *graph, *none;
    int own_frames, cycle;
    char text[16384];
};

static int gather_two(void *arg, void **out) {
    heist_future **both = arg;
    (void)out;
    return heist_gather(both, 2, NULL, 0);
}

static int take_graph(void *arg, void **out) {
    struct graphs *s = arg;
    (void)out;
    s->leaf = (struct stander){.depth = 3, .seconds = 100};
    heist_task *leaf = start(stand, &s->leaf, "leaf");
    s->low = (struct stander){.depth = 1, .awaits = leaf};
    heist_task *low = start(stand, &s->low, "low");
    s->middle = (struct stander){.depth = 2, .awaits = low};
    heist_task *middle = start(stand, &s->middle, "middle");
    s->other = (struct stander){.depth = 1, .awaits = leaf};
    heist_task *other = start(stand, &s->other, "other");
    s->late = (struct stander){.depth = 1, .awaits = leaf, .until = heist_time() + 1000};
    heist_task *late = start(stand, &s->late, "late");
    heist_future *both[2] = {leaf, other};
    heist_task *gatherer = start(gather_two, both, "gatherer");
    heist_sleep(1);
    int err = heist_capture_call_graph(leaf, 0, 0, &s->graph);
    FILE *to = fmemopen(s->text, sizeof(s->text), "w");
    if (to) s->cycle = heist_print_call_graph(leaf, 1, 0, to);
    if (to) fclose(to);
    heist_task *all[] = {gatherer, late, other, middle, low, leaf};
    for (int i = 0; i < 6; i++) heist_cancel(all[i]);
    for (int i = 0; i < 6; i++) heist_await(all[i], NULL);
    for (int i = 0; i < 6; i++) heist_unref(all[i]);
    return err;
}

static void graph_has_own_stack_and_all_awaiters_above_DBG_11_DBG_13_DBG_14(void **state) {
    (void)state;
    struct graphs *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    assert_int_equal(harness_run(take_graph, s, NULL), 0);
    void *const *frames;
    int n = heist_call_graph_frames(s->graph, &frames);
    assert_true(n > 3);
    assert_true(stands_in(&s->leaf, frames, n));
    assert_int_equal(heist_call_graph_awaiters(s->graph), 4); /* low, other, late, and the gather */
    heist_call_graph *low = awaiter_named(s->graph, "low"), *other = awaiter_named(s->graph, "other");
    heist_call_graph *late = awaiter_named(s->graph, "late");
    assert_true(low && other && late);
    assert_int_equal(heist_call_graph_awaiters(low), 1);
    heist_call_graph *middle = awaiter_named(low, "middle");
    assert_non_null(middle);
    n = heist_call_graph_frames(middle, &frames);
    assert_true(stands_in(&s->middle, frames, n));
    assert_int_equal(heist_call_graph_awaiters(middle), 0);
    n = heist_call_graph_frames(late, &frames);
    assert_true(stands_in(&s->late, frames, n));
    assert_non_null(awaiter_named(s->graph, "gatherer"));
    assert_int_equal(heist_call_graph_awaiters(other), 1); /* the same gather, which stands there already */
    assert_int_equal(heist_call_graph_flags(awaiter_named(other, "gatherer")), HEIST_CALL_GRAPH_KNOWN);
    assert_null(heist_call_graph_awaiter(s->graph, 4));
    assert_int_equal(heist_call_graph_threads(s->graph), 0);
    heist_call_graph_free(s->graph);
    free(s);
}

static void printed_graph_is_indented_text_DBG_12(void **state) {
    (void)state;
    struct graphs *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    assert_int_equal(harness_run(take_graph, s, NULL), 0);
    heist_call_graph_free(s->graph);
    assert_int_equal(s->cycle, 0);
    assert_int_equal(strncmp(s->text, "* <Task name='leaf' pending", 27), 0);
    assert_non_null(strstr(s->text, "  + Call stack:\n  |   "));
    assert_non_null(strstr(s->text, "  + Awaited by:\n"));
    assert_non_null(strstr(s->text, "    * <Task name='low' pending"));
    assert_non_null(strstr(s->text, "        * <Task name='middle' pending"));
    assert_non_null(strstr(s->text, "    * <Task name='gatherer' pending"));
    free(s);
}

static int graph_of_the_caller(void *arg, void **out) {
    struct graphs *s = arg;
    (void)out;
    int err = heist_capture_call_graph(NULL, 0, 0, &s->graph);
    void *const *frames;
    s->own_frames = heist_call_graph_frames(s->graph, &frames);
    s->cycle = heist_call_graph_future(s->graph) == heist_current_task();
    heist_call_graph_free(s->graph);
    return err;
}

static void graph_without_argument_is_the_caller_s_and_nothing_outside_DBG_11(void **state) {
    (void)state;
    struct graphs *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    assert_int_equal(harness_run(graph_of_the_caller, s, NULL), 0);
    assert_true(s->own_frames > 0);
    assert_int_equal(s->cycle, 1);
    heist_call_graph *g = (heist_call_graph *)s;
    assert_int_equal(heist_capture_call_graph(NULL, 0, 0, &g), 0);
    assert_null(g);
    assert_int_equal(heist_print_call_graph(NULL, 0, 0, NULL), 0);
    free(s);
}

/* Two that wait for each other, by a future that one of them shall complete. */
struct circle {
    heist_future *promise;
    heist_task *one, *two;
    struct stander first, second;
    int cycle, after;
    unsigned flags;
    char text[8192];
};

static int close_circle(void *arg, void **out) {
    struct circle *c = arg;
    (void)out;
    int err = heist_future_new(NULL, &c->promise);
    if (err) return err;
    c->first = (struct stander){.depth = 1, .awaits = c->promise};
    c->one = start(stand, &c->first, "one");
    c->second = (struct stander){.depth = 1, .awaits = c->one};
    c->two = start(stand, &c->second, "two");
    heist_sleep(1);
    heist_future_add_to_awaited_by(c->two, c->promise); /* who completes it waits for two */
    heist_future_add_to_awaited_by(c->two, c->promise); /* once is enough */
    heist_future_add_to_awaited_by(c->two, NULL);
    heist_future_add_to_awaited_by(NULL, c->promise);
    FILE *to = fmemopen(c->text, sizeof(c->text), "w");
    if (to) c->cycle = heist_print_call_graph(c->promise, 0, 0, to);
    if (to) fclose(to);
    heist_call_graph *g;
    err = heist_capture_call_graph(c->two, 0, 0, &g);
    if (!err) {
        c->flags = (unsigned)heist_call_graph_awaiters(g);
        heist_call_graph_free(g);
    }
    heist_future_discard_from_awaited_by(c->two, c->promise);
    heist_future_discard_from_awaited_by(c->two, c->promise);
    to = fopen("/dev/null", "w");
    c->after = heist_print_call_graph(c->promise, 0, 0, to);
    if (to) fclose(to);
    heist_future_add_to_awaited_by(c->two, c->promise); /* ends with two */
    heist_future_set_result(c->promise, NULL, NULL);
    heist_await(c->two, NULL);
    heist_future_add_to_awaited_by(c->two, c->promise); /* it is done: nothing happens */
    heist_unref(c->one);
    heist_unref(c->two);
    heist_future *dropped; /* a link of a future that nobody completes goes with it */
    if (!heist_future_new(NULL, &dropped)) {
        heist_future_add_to_awaited_by(dropped, c->promise);
        heist_unref(dropped);
    }
    heist_unref(c->promise);
    return err;
}

static void links_by_hand_count_once_and_cycles_end_DBG_15(void **state) {
    (void)state;
    struct circle *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    assert_int_equal(harness_run(close_circle, c, NULL), 0);
    assert_int_equal(c->cycle, 1);
    assert_int_equal(c->after, 0);
    assert_int_equal(c->flags, 1);
    assert_non_null(strstr(c->text, "+ a cycle: it stands below already"));
    free(c);
}

/* A plain thread that waits shows as a number. */
static void *await_it(void *f) {
    heist_await(f, NULL);
    return NULL;
}

static void plain_threads_that_wait_are_counted(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_future *f;
    assert_int_equal(heist_future_new(heist_runtime_loop(rt, 0), &f), 0);
    pthread_t thread = harness_thread(await_it, f);
    int threads = 0;
    while (!threads) {
        heist_call_graph *g;
        assert_int_equal(heist_capture_call_graph(f, 0, 0, &g), 0);
        threads = heist_call_graph_threads(g);
        heist_call_graph_free(g);
        usleep(1000);
    }
    assert_int_equal(threads, 1);
    assert_int_equal(heist_future_set_result(f, NULL, NULL), 0);
    harness_join(thread);
    heist_unref(f);
    harness_runtime_end(rt);
}

/* A chain as long as it likes: nothing recurses. */
#define CHAIN 3000
struct chain {
    struct stander links[CHAIN];
    size_t length;
};

static int take_chain(void *arg, void **out) {
    struct chain *c = arg;
    (void)out;
    heist_task **t = calloc(CHAIN, sizeof(heist_task *));
    if (!t) return -ENOMEM;
    for (int i = 0; i < CHAIN; i++) {
        c->links[i] = (struct stander){.depth = 1, .seconds = 100, .awaits = i ? t[i - 1] : NULL};
        t[i] = start(stand, &c->links[i], "link");
    }
    heist_sleep(1);
    heist_call_graph *g, *at;
    int err = heist_capture_call_graph(t[0], 0, 1, &g);
    if (!err) {
        for (at = g; at; at = heist_call_graph_awaiter(at, 0)) c->length++;
        heist_call_graph_free(g);
    }
    heist_cancel(t[CHAIN - 1]);
    heist_await(t[CHAIN - 1], NULL);
    for (int i = 0; i < CHAIN; i++) heist_unref(t[i]);
    free(t);
    return err;
}

static void a_long_chain_is_followed_to_its_end(void **state) {
    (void)state;
    struct chain *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    assert_int_equal(harness_run(take_chain, c, NULL), 0);
    assert_int_equal(c->length, CHAIN);
    free(c);
}

/* ---- printable forms ---- */

static int nothing(void *arg) {
    (void)arg;
    return 0;
}

static void loops_handles_and_runtimes_at_a_glance_DBG_10(void **state) {
    (void)state;
    char text[256];
    heist_loop *loop = harness_loop();
    assert_true(heist_loop_repr(loop, text, sizeof(text)) > 0);
    assert_non_null(strstr(text, "stopped"));
    assert_null(strstr(text, "debug"));
    assert_non_null(strstr(text, "timers=0>"));
    heist_handle *soon, *later;
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.name = "my callback";
    assert_int_equal(heist_loop_call_soon(loop, nothing, NULL, &opts, &soon), 0);
    assert_int_equal(heist_loop_call_at(loop, 12.5, nothing, NULL, NULL, &later), 0);
    heist_loop_set_debug(loop, 1);
    heist_loop_repr(loop, text, sizeof(text));
    assert_non_null(strstr(text, "stopped debug"));
    heist_handle_repr(soon, text, sizeof(text));
    assert_string_equal(text, "<Handle scheduled my callback>");
    heist_handle_repr(later, text, sizeof(text));
    assert_non_null(strstr(text, " when=12.500000>"));
    heist_handle_cancel(later);
    heist_handle_repr(later, text, sizeof(text));
    assert_int_equal(strncmp(text, "<Handle cancelled ", 18), 0);
    harness_one_pass(loop);
    heist_handle_repr(soon, text, sizeof(text));
    assert_string_equal(text, "<Handle run my callback>");
    heist_handle_unref(soon);
    heist_handle_unref(later);
    assert_int_equal(heist_loop_close(loop), 0);
    heist_loop_repr(loop, text, sizeof(text));
    assert_non_null(strstr(text, " closed"));
    harness_loop_end(loop);
    heist_runtime *rt = harness_runtime(0);
    char expected[64];
    heist_runtime_repr(rt, text, sizeof(text));
    snprintf(expected, sizeof(expected), " running workers=%d tasks=0>", harness_workers());
    assert_non_null(strstr(text, expected));
    assert_int_equal(heist_runtime_repr(rt, NULL, 0), strlen(text));
    assert_int_equal(heist_runtime_repr(rt, expected, 10), strlen(text));
    assert_int_equal(strlen(expected), 9);
    harness_runtime_end(rt);
    assert_int_equal(heist_loop_repr(NULL, text, 1), -EINVAL);
    assert_int_equal(heist_handle_repr(NULL, text, 1), -EINVAL);
    assert_int_equal(heist_runtime_repr(NULL, text, 1), -EINVAL);
}

static heist_lock a_lock = HEIST_LOCK_INIT;

enum { KINDS = 10 };

struct waits {
    heist_event event;
    heist_semaphore semaphore;
    heist_channel *channel;
    heist_queue *queue;
    heist_rwlock rwlock;
    heist_lock told;
    heist_condition condition;
    heist_barrier barrier;
    heist_broadcast *broadcast;
    heist_watch *watch;
    char text[2 * KINDS][160];
};

static int wait_for_lock(void *arg, void **out) {
    (void)arg, (void)out;
    int err = heist_lock_acquire(&a_lock);
    return err ? err : heist_lock_release(&a_lock);
}
static int wait_for_event(void *arg, void **out) {
    (void)out;
    return heist_event_wait(&((struct waits *)arg)->event);
}
static int wait_for_permit(void *arg, void **out) {
    (void)out;
    return heist_semaphore_acquire(&((struct waits *)arg)->semaphore);
}
static int wait_for_value(void *arg, void **out) { return heist_channel_recv(((struct waits *)arg)->channel, out); }
static int wait_for_item(void *arg, void **out) { return heist_queue_get(((struct waits *)arg)->queue, out); }

static int wait_to_write(void *arg, void **out) {
    struct waits *w = arg;
    (void)out;
    int err = heist_rwlock_acquire_write(&w->rwlock);
    return err ? err : heist_rwlock_release_write(&w->rwlock);
}
static int wait_to_be_told(void *arg, void **out) {
    struct waits *w = arg;
    (void)out;
    int err = heist_lock_acquire(&w->told);
    if (!err) err = heist_condition_wait(&w->condition);
    return err ? err : heist_lock_release(&w->told);
}
static int wait_for_the_others(void *arg, void **out) {
    (void)out;
    return heist_barrier_wait(&((struct waits *)arg)->barrier);
}
static int wait_for_news(void *arg, void **out) {
    heist_receiver *r = NULL;
    int err = heist_broadcast_subscribe(((struct waits *)arg)->broadcast, &r);
    if (!err) err = heist_receiver_recv(r, out);
    heist_receiver_unref(r);
    return err;
}
static int wait_for_change(void *arg, void **out) {
    heist_watcher *r = NULL;
    int err = heist_watch_subscribe(((struct waits *)arg)->watch, &r);
    if (!err) err = heist_watcher_changed(r, out);
    heist_watcher_unref(r);
    return err;
}

static void describe_waits(struct waits *w, int at) {
    heist_lock_repr(&a_lock, w->text[at], sizeof(w->text[at]));
    heist_event_repr(&w->event, w->text[at + 1], sizeof(w->text[at]));
    heist_semaphore_repr(&w->semaphore, w->text[at + 2], sizeof(w->text[at]));
    heist_channel_repr(w->channel, w->text[at + 3], sizeof(w->text[at]));
    heist_queue_repr(w->queue, w->text[at + 4], sizeof(w->text[at]));
    heist_rwlock_repr(&w->rwlock, w->text[at + 5], sizeof(w->text[at]));
    heist_condition_repr(&w->condition, w->text[at + 6], sizeof(w->text[at]));
    heist_barrier_repr(&w->barrier, w->text[at + 7], sizeof(w->text[at]));
    heist_broadcast_repr(w->broadcast, w->text[at + 8], sizeof(w->text[at]));
    heist_watch_repr(w->watch, w->text[at + 9], sizeof(w->text[at]));
}

static int watch_waits(void *arg, void **out) {
    struct waits *w = arg;
    (void)out;
    int err = heist_channel_new(2, &w->channel);
    if (!err) err = heist_queue_new(3, NULL, &w->queue);
    if (!err) err = heist_semaphore_init(&w->semaphore, 1);
    heist_event_init(&w->event);
    heist_rwlock_init(&w->rwlock);
    heist_lock_init(&w->told);
    if (!err) err = heist_condition_init(&w->condition, &w->told);
    if (!err) err = heist_barrier_init(&w->barrier, 2);
    if (!err) err = heist_broadcast_new(2, NULL, &w->broadcast);
    if (!err) err = heist_watch_new(NULL, NULL, &w->watch);
    if (err) return err;
    describe_waits(w, 0);
    err = heist_lock_acquire(&a_lock);
    if (!err) err = heist_semaphore_acquire(&w->semaphore);
    if (!err) err = heist_rwlock_acquire_read(&w->rwlock);
    static const heist_coro_fn fns[KINDS] = {wait_for_lock, wait_for_event, wait_for_permit, wait_for_value,
                                             wait_for_item, wait_to_write,  wait_to_be_told, wait_for_the_others,
                                             wait_for_news, wait_for_change};
    heist_task *t[KINDS];
    for (int i = 0; i < KINDS; i++) t[i] = start(fns[i], w, "waiter");
    heist_sleep(1);
    describe_waits(w, KINDS);
    if (!err) err = heist_lock_release(&a_lock);
    heist_event_set(&w->event);
    heist_semaphore_release(&w->semaphore);
    heist_channel_send(w->channel, NULL);
    heist_queue_put(w->queue, NULL);
    heist_rwlock_release_read(&w->rwlock);
    if (!err) err = heist_lock_acquire(&w->told);
    heist_condition_notify(&w->condition, 1);
    if (!err) err = heist_lock_release(&w->told);
    heist_barrier_wait(&w->barrier);
    heist_broadcast_send(w->broadcast, NULL);
    heist_watch_set(w->watch, NULL);
    for (int i = 0; i < KINDS; i++) {
        heist_await(t[i], NULL);
        heist_unref(t[i]);
    }
    heist_channel_unref(w->channel);
    heist_queue_unref(w->queue);
    heist_broadcast_unref(w->broadcast);
    heist_watch_unref(w->watch);
    return err;
}

static void what_tasks_wait_on_says_how_many_wait_DBG_10(void **state) {
    (void)state;
    struct waits w;
    memset(&w, 0, sizeof(w));
    assert_int_equal(harness_run(watch_waits, &w, NULL), 0);
    static const char *const ends[] = {
        " unlocked waiters=0>",
        " unset waiters=0>",
        " unlocked value=1 waiters=0>",
        " size=0 capacity=2 senders=0 receivers=0>",
        " size=0 maxsize=3 putters=0 getters=0 tasks=0>",
        " unlocked readers=0 waiters=0>",
        " unlocked waiters=0>",
        " filling waiters=0 parties=2>",
        " sent=0 kept=0 capacity=2 receivers=0 waiters=0>",
        " version=0 watchers=0 waiters=0>",
        " locked waiters=1>",
        " unset waiters=1>",
        " locked value=0 waiters=1>",
        " size=0 capacity=2 senders=0 receivers=1>",
        " size=0 maxsize=3 putters=0 getters=1 tasks=0>",
        " reading readers=1 waiters=1>",
        " unlocked waiters=1>",
        " filling waiters=1 parties=2>",
        " sent=0 kept=0 capacity=2 receivers=1 waiters=1>",
        " version=0 watchers=1 waiters=1>",
    };
    for (int i = 0; i < 2 * KINDS; i++) assert_non_null(strstr(w.text[i], ends[i]));
    assert_int_equal(heist_lock_repr(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_event_repr(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_semaphore_repr(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_channel_repr(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_queue_repr(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_rwlock_repr(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_condition_repr(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_barrier_repr(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_broadcast_repr(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_watch_repr(NULL, NULL, 0), -EINVAL);
}

/* ---- everything ---- */

struct dumps {
    struct stander leaf, above;
    char text[4][32768];
    int codes[4];
    char addresses[2][40];
};

static int dump_all_formats(void *arg, void **out) {
    struct dumps *d = arg;
    (void)out;
    d->leaf = (struct stander){.depth = 2, .seconds = 100};
    heist_task *leaf = start(stand, &d->leaf, "leaf");
    d->above = (struct stander){.depth = 2, .awaits = leaf};
    heist_task *above = start(stand, &d->above, "above \"it\"");
    snprintf(d->addresses[0], sizeof(d->addresses[0]), "%p", (void *)leaf);
    snprintf(d->addresses[1], sizeof(d->addresses[1]), "%p", (void *)above);
    heist_sleep(1);
    for (int format = 0; format < 4; format++) {
        FILE *to = fmemopen(d->text[format], sizeof(d->text[format]), "w");
        if (!to) return -ENOMEM;
        d->codes[format] = heist_dump(format, to);
        fclose(to);
    }
    heist_cancel(above);
    heist_await(above, NULL);
    heist_unref(above);
    heist_unref(leaf);
    return 0;
}

static void everything_can_be_dumped_while_workers_run_DBG_16_DBG_17_DBG_19(void **state) {
    (void)state;
    struct dumps *d = calloc(1, sizeof(*d));
    assert_non_null(d);
    assert_int_equal(harness_run(dump_all_formats, d, NULL), 0);
    for (int i = 0; i < 4; i++) assert_int_equal(d->codes[i], 0);
    char line[1024], frame[128];
    heist_describe_address(d->leaf.notes[1], 1, frame, sizeof(frame));
    const char *all = d->text[HEIST_DUMP_ALL];
    assert_non_null(strstr(all, "<Task name='leaf' pending"));
    assert_non_null(strstr(all, "  worker 0: steps "));
    assert_non_null(strstr(all, frame));
    snprintf(line, sizeof(line), "  awaited by above \"it\" (%s)", d->addresses[1]);
    assert_non_null(strstr(all, line));
    const char *table = d->text[HEIST_DUMP_TABLE];
    static const char head[] = "thread\ttask id\ttask name\tstack\tawaiter's stack\tawaiter name\tawaiter id\n";
    assert_int_equal(strncmp(table, head, strlen(head)), 0);
    snprintf(line, sizeof(line), "\t%s\tleaf\t", d->addresses[0]);
    const char *row = strstr(table, line);
    assert_non_null(row);
    assert_non_null(strstr(row, frame));
    snprintf(line, sizeof(line), "\tabove \"it\"\t%s\n", d->addresses[1]);
    assert_non_null(strstr(row, line));
    const char *tree = d->text[HEIST_DUMP_TREE];
    const char *top = strstr(tree, "* above \"it\" (");
    assert_non_null(top);
    assert_non_null(strstr(top, "    └── leaf ("));
    const char *json = d->text[HEIST_DUMP_JSON];
    assert_non_null(strstr(json, "\"name\":\"above \\\"it\\\"\""));
    snprintf(line, sizeof(line), "\"awaited_by\":[\"%s\"]", d->addresses[1]);
    assert_non_null(strstr(json, line));
    assert_non_null(strstr(json, "\"cycles\":[]}"));
    assert_int_equal(heist_dump(-1, NULL), -EINVAL);
    assert_int_equal(heist_dump(4, NULL), -EINVAL);
    free(d);
}

static int await_promise(void *arg, void **out) {
    (void)out;
    return heist_await(*(heist_future **)arg, NULL);
}

struct cycle_dump {
    heist_task *one, *two;
    heist_future *promise;
    char tree[8192], table[8192], json[8192];
    int tree_code, table_code, json_code;
};

static int dump_cycle(void *arg, void **out) {
    struct cycle_dump *c = arg;
    (void)out;
    int err = heist_future_new(NULL, &c->promise);
    if (err) return err;
    c->one = start(await_promise, &c->promise, "one");
    c->two = start(await_promise, &c->one, "two");
    heist_sleep(1);
    heist_future_add_to_awaited_by(c->two, c->promise);
    FILE *to = fmemopen(c->tree, sizeof(c->tree), "w");
    c->tree_code = heist_dump(HEIST_DUMP_TREE, to);
    fclose(to);
    to = fmemopen(c->table, sizeof(c->table), "w");
    c->table_code = heist_dump(HEIST_DUMP_TABLE, to);
    fclose(to);
    to = fmemopen(c->json, sizeof(c->json), "w");
    c->json_code = heist_dump(HEIST_DUMP_JSON, to);
    fclose(to);
    heist_future_set_result(c->promise, NULL, NULL);
    heist_await(c->two, NULL);
    heist_unref(c->one);
    heist_unref(c->two);
    heist_unref(c->promise);
    return 0;
}

static void a_cycle_is_named_and_the_table_still_works_DBG_18(void **state) {
    (void)state;
    struct cycle_dump *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    assert_int_equal(harness_run(dump_cycle, c, NULL), 0);
    assert_int_equal(c->tree_code, 1);
    assert_true(!strncmp(c->tree, "cycle: one -> two -> one\n", 25) ||
                !strncmp(c->tree, "cycle: two -> one -> two\n", 25));
    assert_int_equal(c->table_code, 0);
    assert_non_null(strstr(c->table, "\tone\t"));
    assert_non_null(strstr(c->table, "\ttwo\t"));
    assert_int_equal(c->json_code, 1);
    assert_non_null(strstr(c->json, "\"cycles\":[[\"0x"));
    free(c);
}

static void without_a_runtime_there_is_nothing_to_dump(void **state) {
    (void)state;
    char text[4096] = "";
    FILE *to = fmemopen(text, sizeof(text), "w");
    assert_int_equal(heist_dump(HEIST_DUMP_ALL, to), 0);
    fclose(to);
    assert_non_null(strstr(text, ": 0 runtimes, 0 tasks\n"));
}

static int dump_without_memory(void *arg, void **out) {
    int *worst = arg;
    (void)out;
    struct stander leaf = {.depth = 2, .seconds = 100}, above = {.depth = 1};
    heist_task *t = start(stand, &leaf, "leaf");
    above.awaits = t;
    heist_task *a = start(stand, &above, "above");
    heist_sleep(1);
    FILE *to = fopen("/dev/null", "w");
    int code = -ENOMEM;
    for (long n = 1; to && code == -ENOMEM && n < 1000; n++) {
        harness_fail_allocation(n, false);
        code = heist_dump(n % 4, to);
        harness_fail_allocation(0, false);
    }
    *worst = code;
    if (to) fclose(to);
    heist_cancel(a);
    heist_await(a, NULL);
    heist_unref(a);
    heist_unref(t);
    return 0;
}

static void a_dump_without_memory_says_so(void **state) {
    (void)state;
    int worst = -1;
    assert_int_equal(harness_run(dump_without_memory, &worst, NULL), 0);
    assert_int_equal(worst, 0);
}

static void serving_starts_and_stops_and_gives_everything_back(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_inspect_serve(), 0);
        assert_int_equal(heist_inspect_serve(), -EALREADY);
        assert_int_equal(heist_inspect_stop(), 0);
        assert_int_equal(heist_inspect_stop(), -EALREADY);
    }
}

/* Counters: what a worker did, what lives, what is ready. */
static int count_steps(void *arg, void **out) {
    int *left = arg;
    (void)out;
    while (--*left > 0) {
        int err = heist_sleep(0.001);
        if (err) return err;
    }
    return 0;
}

static void counters_of_workers_add_up_DBG_20(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(HEIST_RUNTIME_VIRTUAL_TIME);
    int left = 100;
    heist_task *t;
    assert_int_equal(heist_runtime_task_count(rt), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, count_steps, &left, NULL, &t), 0);
    assert_int_equal(heist_await(t, NULL), 0);
    heist_unref(t);
    uint64_t steps = 0, timers = 0, sleeps = 0, inbox = 0;
    for (int i = 0; i < harness_workers(); i++) {
        heist_worker_stats st = HEIST_WORKER_STATS_INIT;
        assert_int_equal(heist_runtime_stats(rt, i, &st), 0);
        steps += st.steps;
        timers += st.timers;
        sleeps += st.sleeps;
        inbox += st.inbox;
        assert_int_equal(st.queue, 0);
    }
    assert_int_equal(steps, 100);
    assert_int_equal(timers, 99);
    while (!sleeps) { /* with nothing to do they fall asleep, by and by */
        usleep(1000);
        for (int i = 0; i < harness_workers(); i++) {
            heist_worker_stats st = HEIST_WORKER_STATS_INIT;
            assert_int_equal(heist_runtime_stats(rt, i, &st), 0);
            sleeps += st.sleeps;
        }
    }
    assert_int_equal(inbox, 1);
    assert_int_equal(heist_runtime_task_count(rt), 0);
    harness_runtime_end(rt);
}

/* ---- debug mode ---- */

static void *made_at;

__attribute__((noinline)) static int make_both(heist_future **f, heist_task **t) {
    made_at = __builtin_return_address(0);
    int err = heist_future_new(NULL, f);
    if (!err) err = heist_create_task(fail_with_words, NULL, NULL, t);
    return err;
}
static int (*volatile make_both_again)(heist_future **f, heist_task **t) = make_both;

struct births {
    int debug, future_count, task_count, code;
    void *of_future[10], *of_task[10];
    int future_found, task_found, limited;
};

static int note_births(void *arg, void **out) {
    struct births *b = arg;
    (void)out;
    heist_future *f;
    heist_task *t;
    heist_loop *loop;
    int err = heist_get_running_loop(&loop);
    if (err) return err;
    heist_loop_set_debug(loop, b->debug);
    err = make_both_again(&f, &t);
    if (err) return err;
    b->future_count = heist_future_get_birth(f, b->of_future, 10);
    b->task_count = heist_future_get_birth(t, b->of_task, 10);
    b->limited = heist_future_get_birth(t, b->of_task, 1);
    for (int i = 0; i < b->future_count; i++) b->future_found += b->of_future[i] == made_at;
    b->task_count = heist_future_get_birth(t, b->of_task, 10);
    for (int i = 0; i < b->task_count; i++) b->task_found += b->of_task[i] == made_at;
    heist_future_set_exception(f, -EIO, "nobody looks");
    heist_unref(f);
    while (!heist_future_done(t)) heist_sleep(0.001);
    heist_unref(t); /* nobody has looked at its failure */
    return 0;
}

/* Reports, as sentences with the fields that the library adds. */
struct reports {
    struct record record;
    int made_at, made_by;
};

static void note_report(heist_loop *loop, const heist_report *r, void *user) {
    struct reports *to = user;
    (void)loop;
    record_add(&to->record, "%s|%s|%s", r->message, heist_error_name(r->code), r->name ? r->name : "-");
    for (const char *const *e = r->extra; e && e[0]; e += 2) {
        to->made_at += !strcmp(e[0], "made at") && strstr(e[1], "test_inspect.c:");
        to->made_by += !strcmp(e[0], "made by") && strchr(e[1], '\n');
    }
}

static void births_are_noted_in_debug_mode_and_reported_DBG_04_DBG_07(void **state) {
    (void)state;
    for (int debug = 0; debug < 2; debug++) {
        struct births b = {.debug = debug};
        struct reports told = {.record = RECORD_INIT};
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        opts.workers = 1;
        opts.exception_handler = note_report;
        opts.exception_user = &told;
        assert_int_equal(heist_run(note_births, &b, &opts, NULL), 0);
        assert_int_equal(b.future_found, debug);
        assert_int_equal(b.task_found, debug);
        assert_int_equal(b.limited, debug);
        assert_true(debug ? b.future_count > 1 && b.task_count > 1 : !b.future_count && !b.task_count);
        const char *text = record_text(&told.record);
        assert_non_null(strstr(text, "the failure of a future was never retrieved|EIO|-"));
        assert_non_null(strstr(text, "the failure of a task was never retrieved|EPROTO|Task-"));
        assert_int_equal(record_words(&told.record), 2);
        assert_int_equal(told.made_at, 1);
        assert_int_equal(told.made_by, debug ? 2 : 0);
    }
    void *frame[1];
    assert_int_equal(heist_future_get_birth(NULL, frame, 1), -EINVAL);
}

static int look_at_failures(void *arg, void **out) {
    (void)arg, (void)out;
    heist_task *t = start(fail_with_words, NULL, "awaited");
    heist_await(t, NULL);
    heist_unref(t);
    t = start(fail_with_words, NULL, "asked");
    while (!heist_future_done(t)) heist_sleep(0.001);
    heist_exception e = HEIST_EXCEPTION_INIT;
    heist_future_exception(t, &e);
    heist_unref(t);
    return 0;
}

static void a_failure_that_somebody_saw_is_not_reported_DBG_08(void **state) {
    (void)state;
    struct reports told = {.record = RECORD_INIT};
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    opts.exception_handler = note_report;
    opts.exception_user = &told;
    assert_int_equal(heist_run(look_at_failures, NULL, &opts, NULL), 0);
    assert_int_equal(record_words(&told.record), 0);
}

static void a_loop_that_is_dropped_unclosed_is_reported_DBG_09(void **state) {
    (void)state;
    struct reports told = {.record = RECORD_INIT};
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.exception_handler = note_report;
    opts.exception_user = &told;
    heist_loop *loop;
    assert_int_equal(heist_loop_new(&opts, &loop), 0);
    heist_loop_unref(loop);
    assert_non_null(strstr(record_text(&told.record), "a loop was dropped without being closed"));
}

static int hold_for_a_while(void *arg, void **out) {
    (void)arg, (void)out;
    usleep(20000);
    return 0;
}

static int hold_callback(void *arg) {
    (void)arg;
    usleep(20000);
    return 0;
}

static void slow_steps_and_callbacks_are_reported_DBG_02(void **state) {
    (void)state;
    struct reports told = {.record = RECORD_INIT};
    heist_loop *loop = harness_real_loop();
    heist_loop_set_exception_handler(loop, note_report, &told);
    heist_loop_set_debug(loop, 1);
    assert_int_equal(heist_loop_set_slow_callback_duration(loop, 0.005), 0);
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.name = "held";
    heist_call_options call = HEIST_CALL_OPTIONS_INIT;
    call.name = "slow callback";
    assert_int_equal(heist_loop_call_soon(loop, hold_callback, NULL, &call, NULL), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, hold_for_a_while, NULL, &opts, NULL), 0);
    assert_non_null(strstr(record_text(&told.record), "a task step held its worker too long|"));
    assert_non_null(strstr(record_text(&told.record), "|held"));
    assert_non_null(strstr(record_text(&told.record), "a callback held its worker too long|"));
    harness_loop_end(loop);
}

static void keep_record(void *user, int level, const char *text, size_t length) {
    struct record *r = user;
    if (level == HEIST_LOG_DEBUG && text[length - 1] == '\n') record_add(r, "%s", text);
}

static int sleeps_and_connects(void *arg, void **out) {
    heist_addr where;
    heist_listener *l = NULL;
    heist_conn *c = NULL, *s = NULL;
    int err;
    (void)out;
    /* A loop that is stopped by the kernel before it polls has not long to wait: then once more. */
    do err = heist_sleep(0.03);
    while (!err && arg && !strstr(record_text(arg), " a poll took "));
    if (!err) err = heist_addr_parse("127.0.0.1:0", &where);
    if (!err) err = heist_listen(&where, NULL, &l);
    if (!err) err = heist_listener_addr(l, &where);
    if (!err) err = heist_connect(&where, HEIST_FOREVER, &c);
    if (!err) err = heist_accept(l, HEIST_FOREVER, &s);
    if (c) heist_conn_close(c);
    if (s) heist_conn_close(s);
    if (l) heist_listener_close(l);
    char *const argv[] = {"true", NULL};
    heist_process *p = NULL;
    if (!err) err = heist_create_subprocess_exec(argv, NULL, &p);
    if (!err) err = heist_process_wait(p, HEIST_FOREVER, NULL);
    heist_process_unref(p);
    return err;
}

static void loops_polls_connections_and_processes_are_logged_at_debug_level_DBG_06(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_log_sink sink = {keep_record, &record}, none = {NULL, NULL};
    assert_int_equal(heist_debug_set_log(&sink, HEIST_LOG_DEBUG), HEIST_LOG_WARNING);
    for (int debug = 0; debug < 2; debug++) {
        heist_loop *loop = harness_real_loop();
        heist_loop_set_debug(loop, debug);
        assert_int_equal(heist_loop_set_slow_callback_duration(loop, 0.01), 0);
        assert_int_equal(heist_loop_run_coroutine(loop, sleeps_and_connects, debug ? &record : NULL, NULL, NULL), 0);
        harness_loop_end(loop);
        static const char *const words[] = {" starts\n", " a poll took ", " is watched\n", " stops\n", " is closed\n",
                                            " has begun\n", " has ended: 0\n"};
        for (int i = 0; i < 7; i++) assert_int_equal(strstr(record_text(&record), words[i]) != NULL, debug);
    }
    assert_int_equal(heist_debug_set_log(&none, HEIST_LOG_DEBUG), -EINVAL);
    assert_int_equal(heist_debug_set_log(NULL, HEIST_LOG_NONE + 1), -EINVAL);
    assert_int_equal(heist_debug_set_log(NULL, HEIST_LOG_WARNING), HEIST_LOG_DEBUG);
}

/* ---- bad input, no memory ---- */

static int no_memory_for_a_graph(void *arg, void **out) {
    int *worst = arg;
    (void)out;
    struct stander leaf = {.depth = 2, .seconds = 100}, above = {.depth = 1};
    heist_task *t = start(stand, &leaf, "leaf");
    above.awaits = t;
    heist_task *a = start(stand, &above, "above");
    heist_sleep(1);
    for (long n = 1; n < 200; n++) {
        heist_call_graph *g = NULL;
        void *frames[8];
        harness_fail_allocation(n, false);
        int err = heist_capture_call_graph(t, 0, 0, &g);
        harness_fail_allocation(0, false);
        if (!err) heist_call_graph_free(g);
        if (err && err != -ENOMEM) *worst = err;
        if (err && g) *worst = -1;
        harness_fail_allocation(n, false);
        int got = heist_task_get_stack(t, frames, 8);
        int link = heist_future_add_to_awaited_by(t, a);
        harness_fail_allocation(0, false);
        if (got <= 0 && got != -ENOMEM) *worst = got;
        if (link && link != -ENOMEM) *worst = link;
        heist_future_discard_from_awaited_by(t, a);
        if (!err) break;
    }
    heist_cancel(a);
    heist_await(a, NULL);
    heist_unref(a);
    heist_unref(t);
    return 0;
}

static void without_memory_it_says_so_and_leaves_nothing(void **state) {
    (void)state;
    int worst = 0;
    assert_int_equal(harness_run(no_memory_for_a_graph, &worst, NULL), 0);
    assert_int_equal(worst, 0);
}

static void bad_input_is_refused(void **state) {
    (void)state;
    void *frames[2];
    heist_future *f;
    heist_call_graph *g;
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_future_new(loop, &f), 0);
    assert_int_equal(heist_task_get_stack(NULL, frames, 2), -EINVAL);
    assert_int_equal(heist_task_get_stack(f, frames, 2), -EINVAL);
    assert_int_equal(heist_task_get_stack(f, frames, -1), -EINVAL);
    assert_int_equal(heist_task_print_stack(NULL, 0, NULL), -EINVAL);
    assert_int_equal(heist_task_print_stack(f, 0, NULL), -EINVAL);
    assert_int_equal(heist_capture_call_graph(f, -1, 0, &g), -EINVAL);
    assert_int_equal(heist_capture_call_graph(f, 0, -1, &g), -EINVAL);
    assert_int_equal(heist_capture_call_graph(f, 0, 0, NULL), -EINVAL);
    assert_int_equal(heist_describe_address(frames, 0, NULL, 1), -EINVAL);
    assert_true(heist_describe_address(NULL, 0, NULL, 0) > 0);
    assert_int_equal(heist_capture_call_graph(f, 0, 0, &g), 0);
    assert_int_equal(heist_call_graph_awaiters(g), 0);
    heist_call_graph_free(g);
    heist_call_graph_free(NULL);
    heist_unref(f);
    harness_loop_end(loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(stack_of_a_suspended_task_and_none_of_one_that_ended_TASK_29),
        API_TEST(print_stack_writes_stack_or_failure_to_a_stream_TASK_30),
        API_TEST(a_task_that_runs_elsewhere_is_busy_and_a_plain_thread_may_look),
        API_TEST(looking_at_tasks_that_move_is_safe),
        API_TEST(graph_has_own_stack_and_all_awaiters_above_DBG_11_DBG_13_DBG_14),
        API_TEST(printed_graph_is_indented_text_DBG_12),
        API_TEST(graph_without_argument_is_the_caller_s_and_nothing_outside_DBG_11),
        API_TEST(links_by_hand_count_once_and_cycles_end_DBG_15),
        API_TEST(plain_threads_that_wait_are_counted),
        API_TEST(a_long_chain_is_followed_to_its_end),
        API_TEST(loops_handles_and_runtimes_at_a_glance_DBG_10),
        API_TEST(what_tasks_wait_on_says_how_many_wait_DBG_10),
        API_TEST(everything_can_be_dumped_while_workers_run_DBG_16_DBG_17_DBG_19),
        API_TEST(a_cycle_is_named_and_the_table_still_works_DBG_18),
        API_TEST(without_a_runtime_there_is_nothing_to_dump),
        API_TEST(a_dump_without_memory_says_so),
        API_TEST(serving_starts_and_stops_and_gives_everything_back),
        API_TEST(counters_of_workers_add_up_DBG_20),
        API_TEST(births_are_noted_in_debug_mode_and_reported_DBG_04_DBG_07),
        API_TEST(a_failure_that_somebody_saw_is_not_reported_DBG_08),
        API_TEST(a_loop_that_is_dropped_unclosed_is_reported_DBG_09),
        API_TEST(slow_steps_and_callbacks_are_reported_DBG_02),
        API_TEST(loops_polls_connections_and_processes_are_logged_at_debug_level_DBG_06),
        API_TEST(without_memory_it_says_so_and_leaves_nothing),
        API_TEST(bad_input_is_refused),
    };
    return HARNESS_MAIN("inspect", tests);
}
