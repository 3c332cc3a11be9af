/* stress/stress_submit.c: what goes in through a door comes out once.
 *
 * Law: a submission is accepted or rejected.  Accepted: it runs exactly once or is
 * reported as not run (closed, cancelled), its argument is freed exactly once and never
 * under the body, its future ends with what the body returned.  Rejected: nothing runs
 * and the caller still owns the argument; once close has returned, all are rejected.
 * Order: of two submissions to one loop of which the first happens-before the second,
 * the first runs first, whether both come from one thread, or the second comes from a
 * callback that has seen the first.
 * Threads: 1 to 64 submitters, the workers, one or two closers for each target.
 * Invariant: `struct item` outlives everything; the plain fields are written before the
 * submission and only read afterwards, so a race detector checks promise 9. */
#include "common.h"

#define DOORS 64
#define TARGETS 4
#define MAX_SUBMITTERS 64
#define CANARY 0x6865697374u

enum kind { CALL, LATER, PINNED, UNPINNED, RT_CALL, RT_TASK, KINDS };
enum verdict { UNTRIED, ACCEPTED, REJECTED };
enum care { DETACH, DROP, AWAIT, AWAIT_UNTIL, KEEP, TAKE, CANCEL, CARES };

struct target {
    heist_runtime *rt; /* NULL: a loop of its own, run by `driver` */
    heist_loop *loop;  /* only when rt is NULL */
    int first_door, doors;
    struct stress_rng rng, second_rng; /* the closer's, the second closer's */
    pthread_t driver;
    _Atomic(bool) closing; /* published before close is called */
    _Atomic(bool) closed;  /* published after it has returned */
};

struct door {
    heist_loop *loop;
    struct target *target;
};

struct item {
    uint64_t canary;
    enum kind kind;
    enum care care;
    int submitter, door;
    uint64_t seq;     /* rising for each submitter and door, among the kinds with an order */
    int must_submitter; /* a child: this submitter's items up to must_seq were submitted before it */
    uint64_t must_seq;
    double when;      /* LATER: the instant asked for */
    int suspensions;
    uint64_t pause_us;
    bool fails, callback_on_done;
    struct item *child;
    struct stress_rng rng;

    heist_future *future; /* of the submitter */
    bool taken, cancel_asked, handle_cancelled;
    _Atomic(int) verdict, ran, outcome, freed, result_freed, done_ran, done_freed, done_added;
};
#define NOT_ENDED 1 /* outcome until the body has returned */

struct submitter {
    int index;
    struct stress_rng rng;
    bool cancels; /* its items may be cancelled one by one, so nobody relies on seeing them */
    struct item *items;
    size_t quota;
    uint64_t next_seq[DOORS];
    pthread_t thread;
};

static struct target targets[TARGETS];
static int target_count;
static struct door doors[DOORS];
static int door_count;
static struct submitter submitters[MAX_SUBMITTERS];
static int submitter_count;
static bool limits; /* the round has max_inbox or max_tasks */
static _Atomic(uint64_t) submitted[MAX_SUBMITTERS][DOORS]; /* accepted up to here */
static _Atomic(uint64_t) seen[MAX_SUBMITTERS][DOORS];      /* ran up to here */
static _Atomic(uint64_t) accepted_now, freed_now;
static uint64_t all_accepted, all_ran, all_unrun, all_rejected;

static int submit(struct item *it, heist_handle **handle, heist_future **future);

/* ---- what runs ---- */

static void free_item(void *arg) {
    struct item *it = arg;
    stress_check(it->canary == CANARY, "arg_free got something else");
    if (s_get(&it->ran)) stress_check(s_get(&it->outcome) != NOT_ENDED, "the argument was freed under its body");
    int before = s_add(&it->freed, 1);
    stress_check(before == 0, "an argument was freed %d times", before + 1);
    s_add(&freed_now, 1);
    stress_progress(1);
}

static void free_result(void *result) {
    struct item *it = result;
    int before = s_add(&it->result_freed, 1);
    stress_check(before == 0, "a result was freed %d times", before + 1);
}

static void on_done(heist_future *f, void *user) {
    struct item *it = user;
    stress_check(heist_future_done(f), "a done callback ran before the future was done");
    int before = s_add(&it->done_ran, 1);
    stress_check(before == 0, "a done callback ran %d times", before + 1);
}

static void free_done(void *user) {
    struct item *it = user;
    int before = s_add(&it->done_freed, 1);
    stress_check(before == 0, "the argument of a done callback was freed %d times", before + 1);
}

/* The order of the loop's one FIFO.  Runs on the loop's thread, as does every writer of this row of `seen`. */
static void note_order(struct item *it) {
    if (it->must_seq && !s_get(&doors[it->door].target->closing)) {
        uint64_t got = s_get(&seen[it->must_submitter][it->door]);
        stress_check(got >= it->must_seq,
                     "a submission that came after number %" PRIu64 " of thread %d ran when only %" PRIu64
                     " had run on the loop",
                     it->must_seq, it->must_submitter, got);
    }
    if (it->seq) {
        uint64_t last = s_get(&seen[it->submitter][it->door]);
        stress_check(it->seq > last, "number %" PRIu64 " of thread %d ran after number %" PRIu64 " on one loop",
                     it->seq, it->submitter, last);
        s_set(&seen[it->submitter][it->door], it->seq);
    }
}

static void begin(struct item *it) {
    stress_check(it->canary == CANARY, "a body got something else than its argument");
    int before = s_add(&it->ran, 1);
    stress_check(before == 0, "a submission ran %d times", before + 1);
    stress_check(s_get(&it->freed) == 0, "a body began after its argument was freed");
}

/* A callback that has seen what other threads submitted to a loop submits there too: local path against inbox. */
static void submit_child(struct item *it) {
    struct item *c = it->child;
    if (!c) return;
    struct target *t = doors[it->door].target;
    c->door = stress_chance(&it->rng, 70) ? it->door : t->first_door + (int)stress_below(&it->rng, (uint64_t)t->doors);
    int who = (int)stress_below(&it->rng, (uint64_t)submitter_count);
    if (!submitters[who].cancels) {
        c->must_submitter = who;
        c->must_seq = s_observe(&submitted[who][c->door]);
    }
    submit(c, NULL, NULL);
}

static int callback(void *arg) {
    struct item *it = arg;
    begin(it);
    if (it->kind == CALL) note_order(it);
    if (it->kind == LATER)
        stress_check(heist_time() >= it->when - 1e-8, "a timer ran %.9f s early", it->when - heist_time());
    if (it->kind != RT_CALL) submit_child(it);
    int code = it->fails ? -EPROTO : 0;
    s_set(&it->outcome, code);
    return code;
}

static int body(void *arg, void **out) {
    struct item *it = arg;
    begin(it);
    if (it->kind == PINNED) {
        note_order(it);
        submit_child(it);
    }
    for (int i = 0; i < it->suspensions; i++) {
        int err = it->pause_us ? heist_sleep((double)it->pause_us * 1e-6) : heist_yield();
        if (err < 0) {
            stress_check(err == -ECANCELED, "a sleep in a task answered %s", heist_error_name(err));
            s_set(&it->outcome, err);
            return err;
        }
    }
    if (it->fails) {
        s_set(&it->outcome, -EPROTO);
        return heist_fail(-EPROTO, "planned failure of number %" PRIu64, it->seq);
    }
    *out = it;
    s_set(&it->outcome, 0);
    return 0;
}

/* ---- the doors ---- */

static int submit(struct item *it, heist_handle **handle, heist_future **future) {
    struct door *d = &doors[it->door];
    heist_call_options call = HEIST_CALL_OPTIONS_INIT;
    call.arg_free = free_item;
    call.name = "stress callback";
    heist_task_options task = HEIST_TASK_OPTIONS_INIT;
    task.arg_free = free_item;
    task.result_free = free_result;
    bool closed_before = s_observe(&d->target->closed);
    int err = -EINVAL;
    s_add(&accepted_now, 1); /* before: a body may be over, and its argument freed, before the door returns */
    switch (it->kind) {
    case CALL:
        err = it->seq & 1 ? heist_loop_call_soon_threadsafe(d->loop, callback, it, &call, handle)
                          : heist_loop_call_soon(d->loop, callback, it, &call, handle);
        break;
    case LATER:
        it->when = heist_loop_time(d->loop) + (double)it->pause_us * 1e-6;
        err = heist_loop_call_at(d->loop, it->when, callback, it, &call, handle);
        break;
    case PINNED:
        task.flags = HEIST_TASK_PINNED; /* fall through */
    case UNPINNED: err = heist_run_coroutine_threadsafe(d->loop, body, it, &task, future); break;
    case RT_CALL:
        err = heist_runtime_call_soon(heist_loop_runtime(d->loop), callback, it, &call, handle);
        break;
    default: err = heist_runtime_run_coroutine(heist_loop_runtime(d->loop), body, it, &task, future); break;
    }
    /* nothing of `it` but its atomics from here on: it may be running */
    if (err == 0) {
        stress_check(!closed_before, "a submission was accepted after close had returned");
        s_set(&it->verdict, ACCEPTED);
    } else {
        s_set(&it->verdict, REJECTED);
        s_add(&accepted_now, -UINT64_C(1));
        bool closing = s_observe(&d->target->closing);
        stress_check((err == HEIST_ECLOSED && closing) || (err == -EAGAIN && limits && !closed_before),
                     "a submission was refused with %s (%s)", heist_error_name(err), closing ? "closing" : "open");
    }
    return err;
}

static void look_after(struct submitter *s, struct item *it, heist_future *f) {
    if (it->callback_on_done) {
        int err = heist_future_add_done_callback(f, on_done, it, free_done);
        if (err == 0) s_set(&it->done_added, 1);
        else stress_check(err == HEIST_ECLOSED, "add_done_callback: %s", heist_error_name(err));
    }
    if (it->care == DROP) {
        heist_unref(f);
        return;
    }
    it->future = f;
    void *value = NULL;
    if (it->care == AWAIT) {
        stress_wait_begin(s->index, "await of a submitted coroutine from a plain thread", 0.1);
        int err = heist_await(f, &value);
        stress_wait_end(s->index);
        stress_check(heist_future_done(f), "await answered %s before the future was done", heist_error_name(err));
        if (err == 0) stress_check(value == it, "await gave the result of another");
    } else if (it->care == AWAIT_UNTIL) {
        stress_wait_begin(s->index, "await_until from a plain thread", 0.1);
        double deadline = heist_time() + (double)stress_between(&s->rng, 0, 3000) * 1e-6;
        int err = heist_await_until(f, deadline, &value);
        stress_wait_end(s->index);
        if (err == -ETIMEDOUT)
            stress_check(heist_time() >= deadline - 1e-8, "await_until gave up early");
        else
            stress_check(heist_future_done(f), "await_until answered %s too early", heist_error_name(err));
    } else if (it->care == CANCEL) {
        stress_pause(&s->rng, 0.0005);
        it->cancel_asked = true;
        int got = heist_cancel(f);
        stress_check(got == 0 || got == 1, "cancel answered %s", heist_error_name(got));
    }
}

static void *submitter_main(void *arg) {
    struct submitter *s = arg;
    heist_loop *held[DOORS];
    for (int i = 0; i < door_count; i++) held[i] = heist_loop_ref(doors[i].loop);
    for (int i = 0; i < target_count; i++)
        if (targets[i].rt) heist_runtime_ref(targets[i].rt);
    double patience = (double)stress_between(&s->rng, 0, 2000) * 1e-6;
    unsigned pauses = (unsigned)stress_below(&s->rng, 30);
    for (size_t i = 0; i < s->quota; i++) {
        struct item *it = &s->items[i];
        heist_handle *handle = NULL;
        heist_future *future = NULL;
        bool ordered = it->kind == CALL || it->kind == PINNED;
        if (ordered) it->seq = s->next_seq[it->door] + 1;
        uint64_t seq = it->seq;
        int door = it->door;
        unsigned luck = (unsigned)stress_below(&s->rng, 100);
        bool wants_handle = luck < 30, wants_cancel = s->cancels && luck < 15;
        int err = submit(it, wants_handle ? &handle : NULL, it->care == DETACH ? NULL : &future);
        if (err == 0 && ordered) {
            s->next_seq[door] = seq;
            /* release: pairs with the observe of a callback, whose own submission then comes after this one */
            s_publish(&submitted[s->index][door], seq);
        }
        if (future) look_after(s, it, future);
        if (handle) {
            if (wants_cancel) {
                if (stress_chance(&s->rng, 50)) stress_pause(&s->rng, 0.0003);
                int got = heist_handle_cancel(handle);
                it->handle_cancelled = got == 1;
                stress_check(got == 0 || got == 1, "handle cancel answered %s", heist_error_name(got));
                if (got == 1) {
                    stress_check(s_get(&it->freed) == 1, "a cancelled callback's argument was not freed at once");
                    stress_check(s_get(&it->ran) == 0, "a callback ran although its cancel answered 1");
                }
            }
            heist_handle_unref(handle);
        }
        if (stress_chance(&s->rng, pauses)) stress_pause(&s->rng, patience);
    }
    for (int i = 0; i < target_count; i++)
        if (targets[i].rt) heist_runtime_unref(targets[i].rt);
    for (int i = 0; i < door_count; i++) heist_loop_unref(held[i]);
    return NULL;
}

/* ---- the closers ---- */

static void close_runtime(struct target *t, struct stress_rng *rng) {
    s_publish(&t->closing, true);
    for (;;) {
        double limit = stress_chance(rng, 50) ? HEIST_FOREVER : (double)stress_between(rng, 0, 5000) * 1e-6;
        int err = heist_runtime_close(t->rt, limit);
        if (err == 0) break;
        stress_check(err == -ETIMEDOUT && limit != HEIST_FOREVER, "close answered %s", heist_error_name(err));
        if (err != -ETIMEDOUT) break;
    }
    s_publish(&t->closed, true);
}

static void *second_closer(void *arg) {
    struct target *t = arg;
    struct stress_rng rng = t->second_rng;
    stress_pause(&rng, 0.005);
    close_runtime(t, &rng);
    return NULL;
}

/* A loop of its own: run, stopped now and then by submitters' neighbours, closed by the thread that ran it. */
static void *driver_main(void *arg) {
    struct target *t = arg;
    while (!s_observe(&t->closing)) {
        int err = heist_loop_run_forever(t->loop);
        stress_check(err == 0, "run_forever answered %s", heist_error_name(err));
        if (err < 0) break;
    }
    int err = heist_loop_close(t->loop);
    stress_check(err == 0, "closing a loop answered %s", heist_error_name(err));
    s_publish(&t->closed, true);
    return NULL;
}

static void end_target(struct target *t) {
    if (t->rt) {
        pthread_t other;
        bool two = stress_chance(&t->rng, 20);
        if (two) stress_thread(&other, second_closer, t);
        close_runtime(t, &t->rng);
        if (two) stress_join(other);
    } else {
        s_publish(&t->closing, true);
        int err = heist_loop_stop(t->loop);
        stress_check(err == 0 || err == HEIST_ECLOSED, "stop answered %s", heist_error_name(err));
        stress_join(t->driver);
    }
}

static void *closer_main(void *arg) {
    struct target *t = arg;
    double span = (double)stress_between(&t->rng, 0, 60000) * 1e-6, until = stress_now() + span;
    while (!t->rt && stress_now() < until) { /* stop it and let it go on */
        stress_pause(&t->rng, span / 4);
        heist_loop_stop(t->loop);
    }
    if (t->rt) stress_block(span);
    end_target(t);
    return NULL;
}

/* ---- a round ---- */

static void draw_item(struct item *it, struct stress_rng *rng, struct submitter *s, unsigned bias) {
    it->canary = CANARY;
    it->submitter = s->index;
    it->kind = (enum kind)(stress_chance(rng, bias) ? (uint64_t)CALL : stress_below(rng, KINDS));
    it->care = (enum care)stress_below(rng, CARES);
    if (it->care == CANCEL && !s->cancels) it->care = KEEP;
    if (it->care == AWAIT && !stress_chance(rng, 20)) it->care = DROP; /* waiting for each would serialise all */
    if (it->care == AWAIT_UNTIL && !stress_chance(rng, 20)) it->care = DETACH;
    it->door = (int)stress_below(rng, (uint64_t)door_count);
    if (!doors[it->door].target->rt && it->kind >= RT_CALL) it->kind = stress_chance(rng, 50) ? CALL : PINNED;
    it->suspensions = (int)stress_between(rng, 0, 3);
    it->pause_us = stress_chance(rng, 50) ? 0 : stress_between(rng, 1, 2000);
    it->fails = stress_chance(rng, 3);
    it->callback_on_done = it->care != DETACH && stress_chance(rng, 25);
    it->rng = stress_stream(rng, 0);
    s_set(&it->outcome, NOT_ENDED);
}

static void check_future(struct item *it) {
    heist_future *f = it->future;
    int outcome = s_get(&it->outcome), ran = s_get(&it->ran);
    int want = ran ? outcome : -ECANCELED;
    void *value = NULL;
    stress_check(heist_future_done(f), "a future is still pending after close");
    int got = it->care == TAKE ? heist_future_take(f, &value) : heist_future_result(f, &value);
    stress_check(got == want, "a future says %s, its body %s%s", heist_error_name(got), heist_error_name(want),
                 ran ? "" : " (never ran)");
    if (got == 0) stress_check(value == it, "a future gave the result of another");
    stress_check(heist_future_cancelled(f) == (want == -ECANCELED), "cancelled() says %d after %s",
                 heist_future_cancelled(f), heist_error_name(want));
    it->taken = it->care == TAKE && got == 0;
    heist_unref(f);
    it->future = NULL;
}

static void audit(struct item *it, bool calm) {
    int verdict = s_get(&it->verdict), ran = s_get(&it->ran), freed = s_get(&it->freed);
    bool task = it->kind == PINNED || it->kind == UNPINNED || it->kind == RT_TASK;
    if (verdict != ACCEPTED) {
        all_rejected += verdict == REJECTED;
        stress_check(ran == 0 && freed == 0, "a rejected submission ran %d times and was freed %d times", ran, freed);
        return;
    }
    all_accepted++;
    all_ran += (uint64_t)ran;
    all_unrun += !ran;
    stress_check(freed == 1, "an accepted argument was freed %d times (kind %d, ran %d)", freed, it->kind, ran);
    stress_check(ran <= 1, "a submission ran %d times", ran);
    if (ran) stress_check(s_get(&it->outcome) != NOT_ENDED, "a body never came to its end");
    if (it->handle_cancelled) stress_check(ran == 0, "a callback ran although its cancel answered 1");
    if (calm && !it->handle_cancelled && !it->cancel_asked)
        stress_check(ran == 1, "accepted, not cancelled, not closed, but it did not run (kind %d)", it->kind);
    if (task) {
        int want = ran && s_get(&it->outcome) == 0 && !it->taken;
        stress_check(s_get(&it->result_freed) == want, "a result was freed %d times instead of %d",
                     s_get(&it->result_freed), want);
    }
    stress_check(s_get(&it->done_freed) == s_get(&it->done_added), "the argument of a done callback was freed %d times",
                 s_get(&it->done_freed));
}

static void open_targets(struct stress_rng *rng) {
    door_count = 0;
    target_count = (int)stress_between(rng, 1, 3);
    bool alone = stress_chance(rng, 40); /* one more target: a loop of its own */
    for (int i = 0; i < target_count + alone; i++) {
        struct target *t = &targets[i];
        memset(t, 0, sizeof *t);
        t->rng = stress_stream(rng, (uint64_t)i);
        t->second_rng = stress_stream(rng, (uint64_t)i);
        t->first_door = door_count;
        if (i < target_count) {
            heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
            if (limits) {
                o.max_inbox = stress_between(rng, 4, 2000);
                o.max_tasks = stress_between(rng, 4, 2000);
            }
            char name[32];
            snprintf(name, sizeof name, "submit-%d", i);
            t->rt = stress_runtime(name, stress_draw_workers(rng), &o);
            t->doors = heist_runtime_workers(t->rt);
            if (t->doors > DOORS / TARGETS) t->doors = DOORS / TARGETS;
            for (int w = 0; w < t->doors; w++)
                doors[door_count++] = (struct door){heist_runtime_loop(t->rt, w), t};
        } else {
            heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
            o.exception_handler = stress_exception;
            int err = heist_loop_new(&o, &t->loop);
            if (err < 0) stress_die("a loop: %s", heist_strerror(err));
            t->doors = 1;
            doors[door_count++] = (struct door){t->loop, t};
        }
    }
    target_count += alone;
}

static void one_round(struct stress_rng *rng) {
    limits = stress_chance(rng, 20);
    open_targets(rng);
    submitter_count = stress_draw_threads(rng, MAX_SUBMITTERS);
    if (submitter_count > MAX_SUBMITTERS) submitter_count = MAX_SUBMITTERS;
    bool calm = stress_chance(rng, 35);
    unsigned bias = (unsigned)stress_below(rng, 100);
    size_t most = stress_scale(60000) / (size_t)submitter_count;
    stress_settings("%d targets with %d loops, %d submitters, up to %zu each, %u %% callbacks, %s%s", target_count,
                    door_count, submitter_count, most, bias, calm ? "closed when all is done" : "closed at random",
                    limits ? ", with limits" : "");
    memset(submitted, 0, sizeof submitted);
    memset(seen, 0, sizeof seen);
    s_set(&accepted_now, 0);
    s_set(&freed_now, 0);
    for (int i = 0; i < submitter_count; i++) {
        struct submitter *s = &submitters[i];
        memset(s, 0, sizeof *s);
        s->index = i;
        s->rng = stress_stream(rng, (uint64_t)i);
        s->cancels = stress_chance(&s->rng, 50);
        s->quota = (size_t)stress_between(&s->rng, 1, most + 1);
        size_t of_children = s->quota / 4;
        s->items = stress_alloc((s->quota + of_children) * sizeof *s->items);
        for (size_t k = 0; k < s->quota + of_children; k++) {
            struct item *it = &s->items[k];
            draw_item(it, &s->rng, s, bias);
            if (k < s->quota) continue;
            it->kind = stress_chance(&s->rng, 80) ? CALL : PINNED;
            it->care = DETACH;
            it->callback_on_done = false;
            struct item *parent = &s->items[stress_below(&s->rng, s->quota)];
            if (!parent->child) parent->child = it;
        }
    }
    for (int i = 0; i < target_count; i++)
        if (!targets[i].rt) stress_thread(&targets[i].driver, driver_main, &targets[i]);

    stress_phase("submitting");
    pthread_t closers[TARGETS];
    for (int i = 0; i < submitter_count; i++) stress_thread(&submitters[i].thread, submitter_main, &submitters[i]);
    if (!calm)
        for (int i = 0; i < target_count; i++) stress_thread(&closers[i], closer_main, &targets[i]);
    for (int i = 0; i < submitter_count; i++) stress_join(submitters[i].thread);
    if (calm) {
        stress_phase("waiting for everything that was accepted");
        /* children are submitted by bodies, before these free their own arguments: the sums meet only at the end */
        while (s_get(&freed_now) != s_get(&accepted_now)) stress_block(0.0005);
        stress_phase("closing");
        for (int i = 0; i < target_count; i++) end_target(&targets[i]);
    } else {
        stress_phase("closing at random");
        for (int i = 0; i < target_count; i++) stress_join(closers[i]);
    }

    stress_phase("every future ended");
    for (int i = 0; i < submitter_count; i++)
        for (size_t k = 0; k < submitters[i].quota; k++)
            if (submitters[i].items[k].future) check_future(&submitters[i].items[k]);
    stress_phase("last references");
    for (int i = 0; i < target_count; i++) {
        if (targets[i].rt) {
            stress_check(heist_runtime_task_count(targets[i].rt) == 0, "tasks are not done after close");
            stress_runtime_forget(targets[i].rt);
            heist_runtime_unref(targets[i].rt);
        } else {
            stress_check(heist_loop_is_closed(targets[i].loop), "a closed loop does not say so");
            heist_loop_unref(targets[i].loop);
        }
    }
    stress_phase("accepted is run or cancelled");
    for (int i = 0; i < submitter_count; i++) {
        size_t n = submitters[i].quota + submitters[i].quota / 4;
        for (size_t k = 0; k < n; k++) audit(&submitters[i].items[k], calm);
        free(submitters[i].items);
    }
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "submit",
                 "accepted runs once or is reported as not run; rejected stays with the caller; order is kept");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("accepted %" PRIu64 " = ran %" PRIu64 " + not run %" PRIu64 "; rejected %" PRIu64, all_accepted,
                all_ran, all_unrun, all_rejected);
    return stress_end();
}
