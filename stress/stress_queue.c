/* stress/stress_queue.c: queues, channels, select and broadcasts under everything that ends a wait.
 *
 * Law: an item whose put or send succeeded is got once or dropped once by a shutdown; one whose put failed is
 * still its producer's; what one producer put into a first-in-first-out container comes out to each consumer in
 * that order; join waits for exactly what was put.  A receiver of a broadcast sees each value once and in order, or
 * is told how many it lost, and seen + lost = sent; each value is freed once.
 * Threads: producers, consumers and receivers are tasks of two runtimes and plain threads; a plain thread cancels
 * the tasks at random, another shuts the containers down, now and then in the middle.
 * Invariant: an item's payload is plain memory of whoever holds the item. */
#include "common.h"

#include <unistd.h>

enum { QUEUES = 4, CHANNELS = 3, CONTAINERS = QUEUES + CHANNELS, MOST_ACTORS = 32, MOST_ITEMS = 512 };

struct item {
    uint64_t payload, key; /* plain: the holder's */
    int producer, number;
    _Atomic(int) sent, got, dropped;
};

static heist_queue *queues[QUEUES];
static heist_channel *channels[CHANNELS];
static bool ordered[CONTAINERS]; /* first in, first out */
static heist_future *stop;       /* never done before the end: a case of selects */
static struct item *items;       /* of all producers, each's in a row */
static int item_count;           /* of each */
static _Atomic(int) shut[CONTAINERS], producing, cancelling;
static _Atomic(uint64_t) passed, refused, ended_by_cancel, ended_by_time, selected;

struct actor {
    enum { PRODUCER, CONSUMER, RECEIVER } kind;
    int index; /* among its kind */
    bool task;
    _Atomic(int) begun; /* from here on it may be cancelled: before, it would never play its part */
    struct stress_rng rng;
    heist_task *handle;
    pthread_t thread;
    heist_receiver *receiver;
    int last[CONTAINERS][MOST_ACTORS]; /* consumer: the number that came last, by producer */
};
static struct actor actors[MOST_ACTORS];
static int actor_count;

/* ---- items ---- */

static void drop_item(void *p) {
    struct item *it = p;
    stress_check(it->payload == stress_mix((uint64_t)it->producer, (uint64_t)it->number), "a dropped item is torn");
    s_add(&it->dropped, 1);
}

static int by_key(const void *a, const void *b, void *user) {
    const struct item *x = a, *y = b;
    (void)user;
    return x->key < y->key ? -1 : x->key > y->key;
}

/* What a call that may be cancelled left: true when it is to be called again, later. */
static bool only_ended(int err) {
    if (err == -ECANCELED) {
        heist_uncancel(heist_current_task());
        s_add(&ended_by_cancel, 1);
        return true;
    }
    if (err == -ETIMEDOUT) {
        s_add(&ended_by_time, 1);
        return true;
    }
    return err == -EAGAIN;
}

static double soon(struct stress_rng *r) { return heist_time() + (double)stress_below(r, 400) * 1e-6; }

static void rest(struct actor *a) {
    if (a->task) {
        int err = stress_chance(&a->rng, 70) ? heist_yield() : heist_sleep((double)stress_below(&a->rng, 100) * 1e-6);
        if (err) only_ended(err);
    } else {
        stress_pause(&a->rng, 50e-6);
    }
}

/* ---- producers ---- */

static heist_select_case put_case(int k, struct item *it) {
    heist_select_case q = HEIST_CASE_PUT(k < QUEUES ? queues[k] : NULL, it);
    heist_select_case c = HEIST_CASE_SEND(k < QUEUES ? NULL : channels[k - QUEUES], it);
    return k < QUEUES ? q : c;
}

/* One try to hand the item over: 0 done, 1 not yet, 2 that container is shut. */
static int hand_over(struct actor *a, struct item *it, int k) {
    unsigned how = (unsigned)stress_below(&a->rng, 10);
    int err;
    if (how < 3) { /* several at once, the same twice perhaps */
        heist_select_case cases[12];
        size_t n = 1 + stress_below(&a->rng, how == 0 ? 12 : 5);
        for (size_t i = 0; i < n; i++) {
            int other = (int)stress_below(&a->rng, CONTAINERS);
            cases[i] = put_case(s_get(&shut[other]) ? k : other, it);
        }
        err = how == 1   ? heist_select_until(cases, n, soon(&a->rng))
              : how == 2 ? heist_select_try(cases, n)
                         : heist_select(cases, n);
        if (err >= 0) {
            s_add(&selected, 1);
            err = cases[err].code;
        }
    } else if (k < QUEUES) {
        err = how < 7   ? heist_queue_put(queues[k], it)
              : how < 9 ? heist_queue_put_until(queues[k], it, soon(&a->rng))
                        : heist_queue_put_nowait(queues[k], it);
    } else {
        heist_channel *c = channels[k - QUEUES];
        err = how < 7   ? heist_channel_send(c, it)
              : how < 9 ? heist_channel_send_until(c, it, soon(&a->rng))
                        : heist_channel_try_send(c, it);
    }
    if (err == 0) return 0;
    if (err == HEIST_ESHUTDOWN) return 2;
    stress_check(only_ended(err), "a put answered %s", heist_error_name(err));
    return 1;
}

static void produce(struct actor *a) {
    for (int i = 0; i < item_count; i++) {
        struct item *it = &items[a->index * item_count + i];
        it->payload = stress_mix((uint64_t)a->index, (uint64_t)i);
        it->key = stress_below(&a->rng, 5);
        for (;;) {
            int k = (int)stress_below(&a->rng, CONTAINERS), open = 0;
            for (int j = 0; j < CONTAINERS; j++) open += !s_get(&shut[j]);
            if (!open) return;
            while (s_get(&shut[k]) == 1 && open) k = (k + 1) % CONTAINERS, open--;
            int answer = hand_over(a, it, k);
            if (answer == 0) {
                s_add(&it->sent, 1);
                s_add(&passed, 1);
                stress_progress(1);
                break;
            }
            if (answer == 2) s_add(&refused, 1);
            rest(a);
        }
    }
}

/* ---- consumers ---- */

static void take_in(struct actor *a, int k, struct item *it) {
    stress_check(it->payload == stress_mix((uint64_t)it->producer, (uint64_t)it->number), "an item is torn");
    it->payload = 0; /* ours now: a race with its producer would be seen */
    stress_check(s_add(&it->got, 1) == 0, "item %d of producer %d came twice", it->number, it->producer);
    if (ordered[k]) {
        stress_check(a->last[k][it->producer] < it->number, "container %d gave item %d of producer %d after %d", k,
                     it->number, it->producer, a->last[k][it->producer]);
        a->last[k][it->producer] = it->number;
    }
    it->payload = stress_mix((uint64_t)it->producer, (uint64_t)it->number);
    if (k < QUEUES) {
        int err = heist_queue_task_done(queues[k]);
        stress_check(err == 0, "task_done answered %s", heist_error_name(err));
    }
}

static void consume(struct actor *a) {
    bool open[CONTAINERS];
    int left = CONTAINERS;
    for (int k = 0; k < CONTAINERS; k++) {
        open[k] = true;
        for (int p = 0; p < MOST_ACTORS; p++) a->last[k][p] = -1;
    }
    while (left) {
        unsigned how = (unsigned)stress_below(&a->rng, 10);
        int k = (int)stress_below(&a->rng, CONTAINERS), err;
        void *out = NULL;
        while (!open[k]) k = (k + 1) % CONTAINERS;
        if (how < 5) {
            heist_select_case cases[CONTAINERS + 1];
            int from = (int)stress_below(&a->rng, CONTAINERS), at[CONTAINERS];
            for (int i = 0; i < CONTAINERS; i++) {
                int j = at[i] = (from + i) % CONTAINERS;
                heist_select_case q = HEIST_CASE_GET(j < QUEUES && open[j] ? queues[j] : NULL);
                heist_select_case c = HEIST_CASE_RECV(j >= QUEUES && open[j] ? channels[j - QUEUES] : NULL);
                cases[i] = j < QUEUES ? q : c;
            }
            heist_select_case never = HEIST_CASE_AWAIT(stop);
            cases[CONTAINERS] = never;
            size_t n = CONTAINERS + stress_chance(&a->rng, 30);
            err = how < 3    ? heist_select(cases, n)
                  : how == 3 ? heist_select_until(cases, n, soon(&a->rng))
                             : heist_select_try(cases, n);
            stress_check(err != CONTAINERS, "a pending future was reported done");
            if (err >= 0 && err < CONTAINERS) {
                s_add(&selected, 1);
                k = at[err];
                out = cases[err].value;
                err = cases[err].code;
            }
        } else {
            bool for_ever = how < 7 && a->index; /* the first never stays away from the others */
            if (k < QUEUES)
                err = for_ever  ? heist_queue_get(queues[k], &out)
                      : how < 9 ? heist_queue_get_until(queues[k], &out, soon(&a->rng))
                                : heist_queue_get_nowait(queues[k], &out);
            else
                err = for_ever  ? heist_channel_recv(channels[k - QUEUES], &out)
                      : how < 9 ? heist_channel_recv_until(channels[k - QUEUES], &out, soon(&a->rng))
                                : heist_channel_try_recv(channels[k - QUEUES], &out);
        }
        if (err == 0) {
            take_in(a, k, out);
            stress_progress(1);
        } else if (err == HEIST_ESHUTDOWN) {
            stress_check(s_get(&shut[k]) != 0, "container %d says that it is shut", k);
            open[k] = false;
            left--;
        } else {
            stress_check(only_ended(err), "a get answered %s", heist_error_name(err));
            if (err == -EAGAIN) rest(a);
        }
    }
}

/* ---- broadcasts ---- */

struct news {
    _Atomic(int) refs;
    long number; /* plain */
};
static heist_broadcast *broadcast;
static long news_count;
static _Atomic(uint64_t) news_born, news_died, news_lost;

static void news_ref(void *p) { atomic_fetch_add(&((struct news *)p)->refs, 1); }
static void news_unref(void *p) {
    if (atomic_fetch_sub(&((struct news *)p)->refs, 1) != 1) return;
    s_add(&news_died, 1);
    free(p);
}

static void tell(struct stress_rng *r) {
    for (long i = 1; i <= news_count; i++) {
        struct news *n = stress_alloc(sizeof *n);
        atomic_store(&n->refs, 1);
        n->number = i;
        s_add(&news_born, 1);
        int err = heist_broadcast_send(broadcast, n);
        stress_check(err >= 0, "a broadcast answered %s", heist_error_name(err));
        if (stress_chance(r, 20)) stress_pause(r, 20e-6);
    }
    stress_check(heist_broadcast_close(broadcast) == 0, "a broadcast was not closed");
}

static void receive(struct actor *a) {
    long last = 0, seen = 0;
    for (;;) {
        unsigned how = (unsigned)stress_below(&a->rng, 8);
        void *out = NULL;
        int err;
        if (how < 2) {
            heist_select_case cases[] = {HEIST_CASE_AWAIT(stop), HEIST_CASE_NEXT(a->receiver)};
            err = how ? heist_select(cases, 2) : heist_select_until(cases, 2, soon(&a->rng));
            if (err == 1) {
                out = cases[1].value;
                err = cases[1].code;
            }
        } else {
            err = how < 5   ? heist_receiver_recv(a->receiver, &out)
                  : how < 7 ? heist_receiver_recv_until(a->receiver, &out, soon(&a->rng))
                            : heist_receiver_try_recv(a->receiver, &out);
        }
        if (err == 0) {
            struct news *n = out;
            stress_check(n->number > last, "value %ld came after %ld", n->number, last);
            last = n->number;
            seen++;
            news_unref(n);
            stress_progress(1);
        } else if (err == HEIST_ESHUTDOWN) {
            break;
        } else if (err != HEIST_ELAGGED) {
            stress_check(only_ended(err), "a receive answered %s", heist_error_name(err));
            if (err == -EAGAIN) rest(a);
        }
    }
    long lost = (long)heist_receiver_lost(a->receiver);
    s_add(&news_lost, (uint64_t)lost);
    stress_check(seen + lost == news_count, "%ld seen and %ld lost of %ld values", seen, lost, news_count);
}

/* ---- actors ---- */

static void play(struct actor *a) {
    s_set(&a->begun, 1);
    switch (a->kind) {
        case PRODUCER:
            produce(a);
            s_add(&producing, -1);
            break;
        case CONSUMER: consume(a); break;
        case RECEIVER: receive(a); break;
    }
}

static int actor_task(void *arg, void **out) {
    (void)out;
    play(arg);
    return 0;
}

static void *actor_thread(void *arg) {
    play(arg);
    return NULL;
}

static void *canceller(void *arg) {
    struct stress_rng r = *(struct stress_rng *)arg;
    while (s_get(&cancelling)) {
        struct actor *a = &actors[stress_below(&r, (uint64_t)actor_count)];
        if (a->task && s_get(&a->begun)) heist_cancel(a->handle);
        stress_pause(&r, 200e-6);
    }
    return NULL;
}

static void shut_one(struct stress_rng *r, int k, bool early) {
    s_set(&shut[k], 1);
    int err = k >= QUEUES
                  ? heist_channel_close(channels[k - QUEUES])
                  : heist_queue_shutdown(queues[k], stress_chance(r, early ? 50 : 10) ? HEIST_QUEUE_IMMEDIATE : 0);
    stress_check(err == 0, "a shutdown answered %s", heist_error_name(err));
}

static int join_task(void *arg, void **out) {
    (void)out;
    int err;
    while ((err = heist_queue_join(arg)) != 0)
        stress_check(only_ended(err), "a join answered %s", heist_error_name(err));
    return 0;
}

static void make_containers(struct stress_rng *r) {
    for (int k = 0; k < QUEUES; k++) {
        heist_queue_options o = HEIST_QUEUE_OPTIONS_INIT;
        o.item_free = drop_item;
        o.order = k < 2 ? HEIST_QUEUE_FIFO : k == 2 ? HEIST_QUEUE_PRIORITY : HEIST_QUEUE_LIFO;
        if (k == 2) o.compare = by_key;
        long long size = k == 1 || stress_chance(r, 10) ? 0 : (long long)stress_between(r, 1, 40);
        if (heist_queue_new(size, &o, &queues[k])) stress_die("no queue");
        ordered[k] = k < 2;
        s_set(&shut[k], 0);
    }
    for (int k = 0; k < CHANNELS; k++) {
        if (heist_channel_new(k == 0 ? 0 : (size_t)stress_between(r, 1, 20), &channels[k])) stress_die("no channel");
        ordered[QUEUES + k] = true;
        s_set(&shut[QUEUES + k], 0);
    }
}

static void drop_containers(void) {
    for (int k = 0; k < QUEUES; k++) {
        stress_check(heist_queue_join_until(queues[k], heist_time() - 1) == 0, "all ended, and queue %d is not joined",
                     k);
        stress_check(heist_queue_task_done(queues[k]) == -EINVAL, "more done than put was accepted");
        heist_queue_unref(queues[k]);
    }
    for (int k = 0; k < CHANNELS; k++) {
        void *out;
        stress_check(heist_channel_try_recv(channels[k], &out) == HEIST_ESHUTDOWN, "an item was left in a channel");
        heist_channel_unref(channels[k]);
    }
}

static void check_items(int producers) {
    for (int i = 0; i < producers * item_count; i++) {
        struct item *it = &items[i];
        int sent = s_get(&it->sent), got = s_get(&it->got), dropped = s_get(&it->dropped);
        stress_check(sent == got + dropped, "item %d of producer %d: sent %d, got %d, dropped %d", it->number,
                     it->producer, sent, got, dropped);
    }
}

static void round_of(struct stress_rng *r) {
    heist_runtime *rt[2];
    int workers = stress_draw_workers(r), threads = stress_draw_threads(r, 4);
    int producers = (int)stress_between(r, 1, 8), consumers = (int)stress_between(r, 1, 8);
    int receivers = (int)stress_below(r, 5);
    bool early = stress_chance(r, 40);
    unsigned threaded = stress_chance(r, 50) ? 30 : 0;
    item_count = (int)stress_scale(stress_between(r, 1, MOST_ITEMS));
    news_count = (long)stress_scale(stress_between(r, 1, MOST_ITEMS));
    stress_settings("workers %d, producers %d of %d items, consumers %d, receivers %d, early %d", workers, producers,
                    item_count, consumers, receivers, early);
    make_containers(r);
    heist_broadcast_options bo = HEIST_BROADCAST_OPTIONS_INIT;
    bo.value_ref = news_ref;
    bo.value_unref = news_unref;
    if (heist_broadcast_new((size_t)stress_between(r, 1, 64), &bo, &broadcast)) stress_die("no broadcast");
    if (heist_future_new(NULL, &stop)) stress_die("no future");
    items = stress_alloc(sizeof(*items) * (size_t)(producers * item_count));
    for (int i = 0; i < producers * item_count; i++) {
        items[i].producer = i / item_count;
        items[i].number = i % item_count;
    }
    s_set(&producing, producers);
    s_set(&cancelling, 1);
    for (int i = 0; i < 2; i++) rt[i] = stress_runtime(i ? "two" : "one", workers, NULL);

    stress_phase("passing");
    actor_count = producers + consumers + receivers;
    for (int i = 0; i < actor_count; i++) {
        struct actor *a = &actors[i];
        memset(a, 0, sizeof *a);
        a->kind = i < producers ? PRODUCER : i < producers + consumers ? CONSUMER : RECEIVER;
        a->index = i < producers ? i : i < producers + consumers ? i - producers : i - producers - consumers;
        a->task = threads == 0 || !stress_chance(r, threaded);
        a->rng = stress_stream(r, (uint64_t)i);
        if (a->kind == RECEIVER && heist_broadcast_subscribe(broadcast, &a->receiver)) stress_die("no receiver");
    }
    heist_task *joiners[QUEUES];
    for (int i = 0; i < actor_count; i++) {
        struct actor *a = &actors[i];
        if (!a->task) stress_thread(&a->thread, actor_thread, a);
        else if (heist_runtime_run_coroutine(rt[stress_below(r, 2)], actor_task, a, NULL, &a->handle))
            stress_die("no task");
    }
    pthread_t cancels;
    struct stress_rng cancel_rng = stress_stream(r, 1000), news_rng = stress_stream(r, 1001);
    stress_thread(&cancels, canceller, &cancel_rng);
    tell(&news_rng);
    if (early)
        for (int n = 1 + (int)stress_below(r, 4); n > 0; n--) {
            stress_pause(r, 2e-3);
            shut_one(r, (int)stress_below(r, CONTAINERS), true);
        }
    while (s_get(&producing) > 0) heist_sleep(0.0002);
    stress_phase("shutting down");
    for (int k = 0; k < QUEUES; k++)
        if (heist_runtime_run_coroutine(rt[k % 2], join_task, queues[k], NULL, &joiners[k])) stress_die("no task");
    for (int k = 0; k < CONTAINERS; k++) shut_one(r, k, false);
    for (int i = 0; i < actor_count; i++)
        if (!actors[i].task) stress_join(actors[i].thread);
    for (int i = 0; i < actor_count; i++) {
        if (!actors[i].task) continue;
        int err = heist_await(actors[i].handle, NULL);
        stress_check(err == 0, "an actor ended with %s", heist_error_name(err));
    }
    s_set(&cancelling, 0);
    stress_join(cancels);
    stress_phase("joining");
    for (int k = 0; k < QUEUES; k++) {
        int err = heist_await(joiners[k], NULL);
        stress_check(err == 0, "a joiner ended with %s", heist_error_name(err));
        heist_unref(joiners[k]);
    }
    for (int i = 0; i < 2; i++) stress_runtime_end(rt[i]);
    stress_phase("counting");
    for (int i = 0; i < actor_count; i++) {
        if (actors[i].task) heist_unref(actors[i].handle);
        heist_receiver_unref(actors[i].receiver);
    }
    drop_containers();
    heist_broadcast_unref(broadcast);
    heist_unref(stop);
    check_items(producers);
    stress_check(s_get(&news_born) == s_get(&news_died), "%" PRIu64 " values born, %" PRIu64 " died", s_get(&news_born),
                 s_get(&news_died));
    free(items);
}

int main(int argc, char **argv) {
    struct stress_rng r;
    stress_begin(
        argc, argv, "queue",
        "what was put is got once or dropped once, in order, whatever ends the waits; select takes one case only");
    while (stress_next_round(&r)) round_of(&r);
    stress_note("passed %" PRIu64 ", by select %" PRIu64 ", refused %" PRIu64, s_get(&passed), s_get(&selected),
                s_get(&refused));
    stress_note("waits cancelled %" PRIu64 ", timed out %" PRIu64 "; values of broadcasts %" PRIu64 ", lost %" PRIu64,
                s_get(&ended_by_cancel), s_get(&ended_by_time), s_get(&news_born), s_get(&news_lost));
    return stress_end();
}
