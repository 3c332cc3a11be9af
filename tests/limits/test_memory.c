/* Out of memory, mappings and address space, seen from the public calls: whatever was
 * short, the call or the task that needed it gets -ENOMEM, and what there is stays
 * usable, also afterwards.
 *
 * Each request for memory refused in turn, blocks and mappings alike (the replaced
 * allocator of api/nomem sees the blocks only); address space that ends in the middle;
 * the kernel's limit of mappings, where each guard needs one; and many tasks asleep, of
 * which the heavy form makes a million. */
#include "limits/child.h"
#include "limits/dig.h"

#include <heist.h>
#include <signal.h>

#include "base/alloc.h"
#include "mem/stack.h"

/* ---- each request refused in turn ---- */

struct sum {
    _Atomic(long) total, out_of_memory, other;
    int depth;
};

static int add_one(void *arg, void **out) {
    struct sum *sum = arg;
    (void)out;
    int err = heist_yield();
    if (err == 0) sum->total++;
    return err;
}

/* Some of everything that takes memory or a mapping: tasks with stacks of several sizes, timers, channels, a gather. */
static int use_all(void *arg, void **out) {
    static const size_t sizes[] = {0, 16384, 131072, 1 << 20, 8 << 20};
    enum { TASKS = 40 };
    struct sum *sum = arg;
    heist_task *tasks[TASKS] = {NULL};
    heist_channel *channel = NULL;
    int err = 0, made = 0;
    (void)out;
    for (; made < TASKS && err == 0; made++) {
        heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
        opts.stack_bytes = sizes[made % 5];
        err = heist_create_task(add_one, sum, &opts, &tasks[made]);
        if (err < 0) break;
    }
    for (int i = 0; i < 3; i++) heist_yield(); /* so that they begin, each on its own stack */
    for (int i = 0; i < made; i++) {
        int ended = heist_await(tasks[i], NULL);
        if (ended == -ENOMEM) sum->out_of_memory++; /* no stack for it */
        else if (ended < 0) sum->other++;
        heist_unref(tasks[i]);
    }
    int opened = heist_channel_new(8, &channel);
    if (opened == 0) {
        void *value = NULL;
        for (int i = 0; i < 8; i++)
            if (heist_channel_try_send(channel, sum) < 0) sum->other++;
        for (int i = 0; i < 8; i++)
            if (heist_channel_try_recv(channel, &value) < 0 || value != sum) sum->other++;
        heist_channel_unref(channel);
    }
    int slept = heist_sleep(0.0001);
    if (slept < 0) return slept;
    return err < 0 ? err : opened;
}

static bool fits(int err) {
    return err == 0 || err == -ENOMEM;
}

static void let_go(void) {
    heist_loop *loop = NULL;
    scene_expect(heist_loop_new(NULL, &loop) == 0);
    scene_expect(heist_loop_close(loop) == 0);
    heist_loop_unref(loop);
}

/* How many requests were refused. */
static long play_refused(long at, bool stays, int workers) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    struct sum sum = {0};
    opts.workers = workers;
    long blocks = heist__alloc_live(), maps = heist__alloc_live_maps();
    if (stays) heist__alloc_fail_from(at);
    else heist__alloc_fail_after(at);
    int err = heist_run(use_all, &sum, &opts, NULL);
    long refused = heist__alloc_failed();
    heist__alloc_fail_after(-1);
    if (!fits(err) || sum.other) {
        fprintf(stderr, "request %ld refused: %s, other faults %ld\n", at, heist_error_name(err), (long)sum.other);
        exit(1);
    }
    let_go();
    if (heist__alloc_live() > blocks || heist__alloc_live_maps() > maps) {
        fprintf(stderr, "request %ld refused: blocks %ld to %ld, mappings %ld to %ld\n", at, blocks,
                heist__alloc_live(), maps, heist__alloc_live_maps());
        exit(1);
    }
    return refused;
}

static void scene_each_request(long workers) {
    alarm(200);
    for (int stays = 0; stays <= 1; stays++) {
        let_go();
        play_refused(1 << 30, false, (int)workers); /* what is kept for ever is made now */
        long at = 1;
        for (bool met = true; met; at++) {
            /* How many requests there are differs a little from run to run; some in a row without one end it. */
            met = false;
            for (int i = 0; i < 3 && !met; i++) met = play_refused(at, stays != 0, (int)workers) > 0;
            scene_expect(at < 3000);
        }
        printf("%ld requests, %s\n", at - 2, stays ? "and all after" : "one at a time");
        scene_expect(at > 10);
    }
}

/* ---- address space that ends ---- */

static size_t address_space(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    scene_expect(file && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

struct holder {
    heist_future *gate;
    _Atomic(bool) begun;
};

static int hold(void *arg, void **out) {
    struct holder *holder = arg;
    (void)out;
    holder->begun = true;
    return heist_await(holder->gate, NULL);
}

struct crowd {
    int wanted;
    long refused, starved, other, held;
};

/* As many tasks as are wanted at once, each on a stack of 256 KiB, until the first is short; then all of it again. */
static int crowd_main(void *arg, void **out) {
    struct crowd *crowd = arg;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_task **tasks = calloc((size_t)crowd->wanted, sizeof *tasks);
    struct holder *holders = calloc((size_t)crowd->wanted, sizeof *holders);
    heist_future *gate = NULL;
    int made = 0, err = tasks && holders ? heist_future_new(NULL, &gate) : -ENOMEM;
    (void)out;
    opts.stack_bytes = 256 << 10;
    for (; made < crowd->wanted && err == 0; made++) {
        holders[made].gate = gate;
        err = heist_create_task(hold, &holders[made], &opts, &tasks[made]);
        if (err < 0) break;
    }
    if (err < 0) crowd->refused++;
    for (int i = 0; i < made; i++)
        while (!holders[i].begun && !heist_future_done(tasks[i])) heist_yield();
    int set = gate ? heist_future_set_result(gate, NULL, NULL) : 0;
    for (int i = 0; i < made; i++) {
        int ended = heist_await(tasks[i], NULL);
        if (ended == 0) crowd->held++;
        else if (ended == -ENOMEM) crowd->starved++;
        else crowd->other++;
        heist_unref(tasks[i]);
    }
    heist_unref(gate);
    free(tasks);
    free(holders);
    return err < 0 ? err : set;
}

static void scene_address_space(long workers) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    struct rlimit before, limit;
    long short_of_it = 0, enough = 0, held_at_limit = 0;
    alarm(200);
    opts.workers = (int)workers;
    struct crowd warm = {.wanted = 10};
    scene_expect(heist_run(crowd_main, &warm, &opts, NULL) == 0);
    scene_expect(getrlimit(RLIMIT_AS, &before) == 0);
    for (size_t more = 0; more <= (size_t)512 << 20; more = more ? more * 2 : 1 << 16) {
        struct crowd crowd = {.wanted = 600};
        limit = before;
        limit.rlim_cur = address_space() + more;
        scene_expect(setrlimit(RLIMIT_AS, &limit) == 0);
        int err = heist_run(crowd_main, &crowd, &opts, NULL);
        scene_expect(setrlimit(RLIMIT_AS, &before) == 0);
        /* -EAGAIN: a thread whose stack finds no room. */
        if (err != 0 && err != -ENOMEM && err != -EAGAIN) {
            fprintf(stderr, "%zu KiB more: %s\n", more >> 10, heist_error_name(err));
            exit(1);
        }
        scene_expect(crowd.other == 0);
        if (crowd.starved > 0 && crowd.held > 0) held_at_limit++;
        if (err < 0 || crowd.starved > 0) short_of_it++;
        else if (crowd.held == crowd.wanted) enough++;
    }
    struct crowd after = {.wanted = 600};
    scene_expect(heist_run(crowd_main, &after, &opts, NULL) == 0 && after.held == 600);
    printf("short %ld times, enough %ld times, some of the tasks ran %ld times\n", short_of_it, enough, held_at_limit);
    scene_expect(short_of_it > 0 && enough > 0);
}

/* ---- the limit of mappings ---- */

static void play_mappings(int wanted, int workers) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = workers;
    for (int round = 0; round < 2; round++) {
        struct crowd crowd = {.wanted = wanted};
        scene_expect(heist_run(crowd_main, &crowd, &opts, NULL) == 0);
        printf("%ld held a stack at once, %ld were refused one\n", crowd.held, crowd.starved);
        scene_expect(crowd.other == 0 && crowd.held > 0 && crowd.starved > 0);
        scene_expect(crowd.held + crowd.starved == wanted);
    }
    /* It was the guards: with fewer tasks everything goes. */
    struct crowd few = {.wanted = 40};
    scene_expect(heist_run(crowd_main, &few, &opts, NULL) == 0 && few.held == 40);
}

/* As on a kernel without MADV_GUARD_INSTALL, with room for a few guards. */
static void scene_mappings(long workers) {
    alarm(200);
    heist__stack_force_mprotect(true, 100);
    play_mappings(500, (int)workers);
}

/* The kernel's own limit. */
static void scene_mappings_kernel(long workers) {
    alarm(600);
    heist__stack_force_mprotect(true, 0);
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    long maps = 0;
    if (!file || fscanf(file, "%ld", &maps) != 1 || maps > 300000) {
        printf("skipped: vm.max_map_count is %ld\n", maps);
        exit(CHILD_SKIPS);
    }
    fclose(file);
    play_mappings((int)(maps * 2 / 3), (int)workers);
    void *block = malloc(1 << 20); /* an eighth of the mappings was left to others */
    scene_expect(block);
    free(block);
}

/* ---- many asleep ---- */

struct sleepers {
    long wanted;
    _Atomic(long) begun, woken, wrong;
    heist_future *gate;
};

static int sleep_in_the_crowd(void *arg, void **out) {
    struct sleepers *s = arg;
    volatile long mine = ++s->begun; /* on the stack, to be there after the night */
    long kept = mine;
    (void)out;
    int err = heist_await(s->gate, NULL);
    if (err < 0 || mine != kept) s->wrong++;
    s->woken++;
    return err;
}

/* One worker: what sleeps, sleeps when the counter says so. */
static int sleepers_main(void *arg, void **out) {
    struct sleepers *s = arg;
    (void)out;
    int err = heist_future_new(NULL, &s->gate);
    if (err < 0) return err;
    for (long i = 0; i < s->wanted; i++) {
        err = heist_create_task(sleep_in_the_crowd, s, NULL, NULL);
        if (err < 0) return err;
        if (i % 1024 == 1023 && (err = heist_yield()) < 0) return err;
    }
    while (s->begun < s->wanted)
        if ((err = heist_yield()) < 0) return err;
    return 0;
}

static int wake_main(void *arg, void **out) {
    struct sleepers *s = arg;
    int err = sleepers_main(arg, out);
    if (err < 0) return err;
    if (s->woken != 0) s->wrong++;
    err = heist_future_set_result(s->gate, NULL, NULL);
    while (err == 0 && s->woken < s->wanted) err = heist_yield();
    heist_unref(s->gate);
    return err;
}

static int overflow_main(void *arg, void **out) {
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_task *task = NULL;
    int err = sleepers_main(arg, out);
    opts.name = "the last";
    if (err == 0) err = heist_create_task(dig, NULL, &opts, &task);
    return err < 0 ? err : heist_await(task, NULL);
}

static bool have_memory_for(long tasks) {
    FILE *file = fopen("/proc/meminfo", "r");
    char line[128];
    unsigned long kilobytes = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lu kB", &kilobytes) == 1) break;
    if (file) fclose(file);
    return kilobytes / 6 > (unsigned long)tasks; /* 5 KiB each, and a reserve */
}

static void need_memory_for(long tasks) {
    if (have_memory_for(tasks)) return;
    printf("skipped: not enough memory for %ld tasks\n", tasks);
    exit(CHILD_SKIPS);
}

static long mappings_now(void) {
    FILE *file = fopen("/proc/self/maps", "r");
    long n = 0;
    scene_expect(file);
    for (int c; (c = getc(file)) != EOF;) n += c == '\n';
    fclose(file);
    return n;
}

static void scene_asleep(long tasks) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = 1;
    struct sleepers warm = {.wanted = 10};
    scene_expect(heist_run(wake_main, &warm, &opts, NULL) == 0);
    let_go();
    need_memory_for(tasks);
    long before = mappings_now();
    struct sleepers s = {.wanted = tasks};
    int err = heist_run(wake_main, &s, &opts, NULL);
    if (err < 0) fprintf(stderr, "%ld of %ld began: %s\n", (long)s.begun, tasks, heist_error_name(err));
    scene_expect(err == 0 && s.woken == tasks && s.wrong == 0);
    let_go();
    long after = mappings_now();
    printf("%ld tasks asleep at once; mappings %ld before, %ld after\n", tasks, before, after);
    /* Those of malloc may stay; a detector has one for each stack that it was told of. */
    if (!CHILD_INSTRUMENTED) scene_expect(after <= before + 16);
}

static void scene_asleep_and_overflow(long tasks) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    struct sleepers s = {.wanted = tasks};
    need_memory_for(tasks);
    signal(SIGSEGV, SIG_DFL);
    opts.workers = 1;
    scene_expect(heist_run(overflow_main, &s, &opts, NULL) == 0);
}

static const struct scene scenes[] = {
    {"each-request", scene_each_request},
    {"address-space", scene_address_space},
    {"mappings", scene_mappings},
    {"mappings-kernel", scene_mappings_kernel},
    {"asleep", scene_asleep},
    {"asleep-and-overflow", scene_asleep_and_overflow},
};

/* ---- tests ---- */

static void each_refused_request_is_a_code_and_nothing_is_left(void **state) {
    (void)state;
    if (!HEIST_ALLOC_STATS) skip(); /* nothing counts what is left */
    for (long workers = 1; workers <= 2; workers++) {
        child_play("each-request", workers);
        child_expect_success();
    }
}

static void end_of_the_address_space_is_a_code_and_passes(void **state) {
    (void)state;
    if (CHILD_INSTRUMENTED) skip(); /* a detector takes all address space there is */
    for (long workers = 1; workers <= 2; workers++) {
        child_play("address-space", workers);
        child_expect_success();
    }
}

static void limit_of_mappings_starves_only_the_tasks_beyond(void **state) {
    (void)state;
    for (long workers = 1; workers <= 2; workers++) {
        child_play("mappings", workers);
        child_expect_success();
    }
    if (!child_heavy() || CHILD_INSTRUMENTED) return;
    child_play("mappings-kernel", 2);
    print_message("%s", child_text);
    child_expect_success();
}

static void many_tasks_sleep_and_wake_and_leave_nothing(void **state) {
    (void)state;
    child_play("asleep", CHILD_INSTRUMENTED ? 2000 : child_heavy() ? 1000000 : 20000);
    if (child_heavy()) print_message("%s", child_text);
    child_expect_success();
}

static void guard_of_the_last_of_many_holds(void **state) {
    (void)state;
    child_play("asleep-and-overflow", CHILD_INSTRUMENTED ? 2000 : child_heavy() ? 1000000 : 20000);
    if (child_ended_with(CHILD_SKIPS)) skip();
    child_expect(strstr(child_text, "heist: stack overflow in task 'the last' (made at ") != NULL);
    child_expect(child_died_of(SIGSEGV));
}

int main(int argc, char **argv) {
    child_main(argc, argv, scenes, sizeof scenes / sizeof scenes[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_refused_request_is_a_code_and_nothing_is_left),
        cmocka_unit_test(end_of_the_address_space_is_a_code_and_passes),
        cmocka_unit_test(limit_of_mappings_starves_only_the_tasks_beyond),
        cmocka_unit_test(many_tasks_sleep_and_wake_and_leave_nothing),
        cmocka_unit_test(guard_of_the_last_of_many_holds),
    };
    return cmocka_run_group_tests_name("limits/memory", tests, NULL, NULL);
}
