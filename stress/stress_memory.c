/* stress/stress_memory.c: a million tasks asleep, and then nothing is left of them.
 *
 * Law: however many tasks sleep, all of them wake and end once; while they sleep they
 * cost a bounded amount of memory each and no descriptor; when they have ended and the
 * runtime stands idle, it gives their stacks back to the kernel; and when it is closed,
 * memory, mappings and descriptors are what they were before, in every round.
 * Threads: the workers; spawners are plain threads and tasks; the main thread counts.
 * Invariant: a sleeper says that it sleeps (asleep) before its only wait, so the count
 * can be ahead of the truth by those that are on their way, never behind. */
#include "common.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <unistd.h>

#define MILLION 1000000u
#define SPAWNERS 8

/* Where the memory for a million is not free, fewer must do; a quarter of what is free stays free. */
#define BYTES_FOR_ONE 6000.0

#if defined(__SANITIZE_THREAD__)
#define DETECTED_MOST 400u /* each stack has a fibre of the detector, of a megabyte and some milliseconds */
#define DETECTED 1
#elif defined(__SANITIZE_ADDRESS__)
#define DETECTED_MOST 30000u
#define DETECTED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DETECTED_MOST 400u
#define DETECTED 1
#elif __has_feature(address_sanitizer)
#define DETECTED_MOST 30000u
#define DETECTED 1
#endif
#endif
#ifndef DETECTED
#define DETECTED_MOST MILLION
#define DETECTED 0
#endif

/* What a process may keep when all has ended: what malloc holds, and the pages of the ended threads' stacks, which the
 * C library keeps for the next ones.  A thousandth of what a million tasks take. */
#define SLACK_KIB 4096
/* A sleeping task: a page of stack, its share of the page table, its record of three cache lines and of malloc. */
#define MOST_BYTES_EACH 6144

/* ---- what the process holds ---- */

static struct stress_held look(void) {
    malloc_trim(0); /* what malloc keeps for later is its own */
    return stress_held();
}

static double free_bytes(void) {
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return 0;
    char line[256];
    double kib = 0;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "MemAvailable:", 13) == 0) kib = strtod(line + 13, NULL);
    fclose(f);
    f = fopen("/sys/fs/cgroup/memory.max", "re"); /* of a container; "max" reads as 0 */
    double limit = 0, used = 0;
    if (f) {
        if (fscanf(f, "%lf", &limit) != 1) limit = 0;
        fclose(f);
    }
    f = fopen("/sys/fs/cgroup/memory.current", "re");
    if (f) {
        if (fscanf(f, "%lf", &used) != 1) used = 0;
        fclose(f);
    }
    double bytes = kib * 1024;
    return limit > 0 && limit - used < bytes ? limit - used : bytes;
}

/* ---- sleepers ---- */

enum way { CLOCK, FUTURE, CHANNEL, CANCEL, CLOSE, WAYS };
static const char *const way_name[WAYS] = {"the clock", "a future", "a channel's close", "cancellation",
                                           "the runtime's close"};

static heist_runtime *rt;
static enum way way;
static double
    wake_at; /* when the burst begins: before anybody sleeps for CLOCK, right before the wake for the others */
static heist_future *dawn;
static heist_channel *channel;
static heist_task **tasks; /* CANCEL: held */
static uint32_t wanted;
static size_t stack_bytes;
static _Atomic(uint32_t) next_task, born, asleep, ended, freed;
static _Atomic(int) spawning; /* spawners that have not ended */
static _Atomic(bool) refused; /* the system had no more room: said by -ENOMEM */
static uint64_t total_asleep, most_asleep, full_rounds, starved_rounds;
static double least_each = HEIST_FOREVER, most_each;
static long most_mappings;
static double seconds_each = DETECTED ? 2e-4 : 1.5e-5; /* to fall asleep */

static void free_arg(void *arg) {
    (void)arg;
    s_add(&freed, 1);
}

static int sleeper(void *arg, void **out) {
    (void)arg, (void)out;
    void *item = NULL;
    int err, want;
    s_add(&asleep, 1);
    stress_progress(1);
    switch (way) {
        case CLOCK: err = heist_sleep_until(wake_at), want = 0; break;
        case FUTURE: err = heist_await_until(dawn, HEIST_FOREVER, NULL), want = 0; break;
        case CHANNEL: err = heist_channel_recv(channel, &item), want = HEIST_ESHUTDOWN; break;
        default: err = heist_sleep(HEIST_FOREVER), want = -ECANCELED; break;
    }
    if (err == -ENOMEM) s_set(&refused, true);
    else stress_check(err == want, "a sleeper woke with %s", heist_error_name(err));
    if (err == want) stress_latency(heist_time() - wake_at);
    s_add(&ended, 1);
    stress_progress(1);
    return err == -ECANCELED ? err : 0;
}

/* Spawns until all are born; from a plain thread or from within. */
static void spawn(void) {
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_arg;
    o.stack_bytes = stack_bytes;
    bool inside = heist_current_task() != NULL;
    for (uint32_t n = 1;; n++) {
        uint32_t i = s_add(&next_task, 1);
        if (i >= wanted || s_get(&refused)) return;
        heist_task **out = way == CANCEL ? &tasks[i] : NULL;
        int err = inside ? heist_create_task(sleeper, NULL, &o, out)
                         : heist_runtime_run_coroutine(rt, sleeper, NULL, &o, out);
        if (err == -ENOMEM) {
            s_set(&refused, true);
            return;
        }
        stress_check(err == 0, "a task: %s", heist_error_name(err));
        if (err < 0) return;
        s_add(&born, 1);
        if (inside && n % 64 == 0 && heist_yield() < 0) return;
    }
}

static int spawner_body(void *arg, void **out) {
    (void)arg, (void)out;
    spawn();
    atomic_fetch_sub_explicit(&spawning, 1, memory_order_release); /* pairs with main, which reads `tasks` */
    return 0;
}

static void *spawner_thread(void *arg) {
    (void)arg;
    spawn();
    atomic_fetch_sub_explicit(&spawning, 1, memory_order_release); /* pairs with main, which reads `tasks` */
    return NULL;
}

/* ---- a round ---- */

static struct stress_held base; /* after the first, small round: what the program itself needs is there */
static bool base_taken;

static void check_back(const char *when, const struct stress_held *now) {
    if (DETECTED) return; /* a detector's own memory would drown it */
    stress_check(now->rss_kib <= base.rss_kib + SLACK_KIB, "%s: %ld KiB are resident, %ld before", when, now->rss_kib,
                 base.rss_kib);
    stress_check(now->page_tables_kib <= base.page_tables_kib + SLACK_KIB, "%s: %ld KiB of page tables, %ld before",
                 when, now->page_tables_kib, base.page_tables_kib);
    stress_check(now->mappings <= base.mappings + 1, "%s: %ld mappings, %ld before", when, now->mappings,
                 base.mappings);
    stress_check(now->descriptors == base.descriptors, "%s: %ld descriptors, %ld before", when, now->descriptors,
                 base.descriptors);
}

/* The runtime is idle now and has more stacks than it needs: their pages go, some at a time.  What stays is the
 * tasks' records, for their memory keeps its type while the runtime lives, and what each worker keeps warm. */
static void check_trimmed(const struct stress_held *before, const struct stress_held *full) {
    if (DETECTED || full->rss_kib - before->rss_kib < 65536) return;
    long records = (long)((double)s_get(&born) * 280 / 1024);
    long allowed = before->rss_kib + records + 16384, now = 0;
    stress_phase("idle stacks go back");
    stress_wait_begin(0, "idle stacks go back to the kernel", 60);
    for (int i = 0; i < 6000; i++) { /* far more than it takes, on a machine that is busy with others */
        now = stress_held().rss_kib;
        if (now <= allowed) break;
        stress_block(0.01);
        stress_progress(1);
    }
    stress_wait_end(0);
    stress_check(now <= allowed,
                 "a minute after %u tasks had ended %ld KiB are resident; %ld were expected, %ld was it full",
                 s_get(&born), now, allowed, full->rss_kib);
}

static void one_round(struct stress_rng *r) {
    /* small, a tenth, then every second round a million: a short run on a busy machine ends in time */
    long round = stress_round();
    bool large = round == 1 || round % 2 == 0, full = round > 1 && round % 2 == 0;
    if (round == 0) large = full = false;
    static const size_t stacks[] = {16 << 10, 16 << 10, 64 << 10};
    double most = free_bytes() * 0.75 / BYTES_FOR_ONE;
    uint32_t limit = most < DETECTED_MOST ? (uint32_t)most : DETECTED_MOST;
    wanted = full ? MILLION : large ? MILLION / 10 : (uint32_t)stress_between(r, 1, 20000);
    if (wanted > limit) wanted = limit;
    way = (enum way)stress_below(r, WAYS);
    stack_bytes = stacks[stress_below(r, 3)];
    int workers = stress_draw_workers(r), spawners = stress_draw_threads(r, SPAWNERS);
    if (spawners > SPAWNERS) spawners = SPAWNERS;
    bool inside = stress_chance(r, 50);
    stress_settings("%u tasks with stacks of %zu KiB, %d workers, %d %s spawn; woken by %s", wanted, stack_bytes / 1024,
                    workers, spawners, inside ? "tasks" : "threads", way_name[way]);
    s_set(&next_task, 0);
    s_set(&born, 0);
    s_set(&asleep, 0);
    s_set(&ended, 0);
    s_set(&freed, 0);
    s_set(&refused, false);
    stress_phase("falling asleep");
    rt = stress_runtime("memory", workers, NULL);
    int err = heist_channel_new(0, &channel);
    if (err == 0) err = heist_future_new(NULL, &dawn);
    if (err < 0) stress_die("a channel and a future: %s", heist_strerror(err));
    if (way == CANCEL) tasks = stress_alloc(wanted * sizeof *tasks);
    struct stress_held before = look();
    /* CLOCK: one instant for all, late enough for them to sleep then, by the pace of the rounds before */
    double begun = heist_time();
    wake_at = begun + 0.2 + 1.5 * wanted * seconds_each;
    uint64_t reports = stress_reports();
    atomic_store_explicit(&spawning, spawners, memory_order_relaxed);
    pthread_t thread[SPAWNERS];
    for (int i = 0; i < spawners; i++) {
        if (inside) err = heist_runtime_run_coroutine(rt, spawner_body, NULL, NULL, NULL);
        else stress_thread(&thread[i], spawner_thread, NULL);
        if (err < 0) stress_die("a task: %s", heist_strerror(err));
    }
    stress_wait_begin(0, "everybody falls asleep", (double)wanted * (DETECTED ? 2e-2 : 1e-4));
    /* all are born, and those that are not done have said that they sleep */
    while (s_observe(&spawning) > 0 || heist_runtime_task_count(rt) > s_get(&asleep) - s_get(&ended))
        stress_block(1e-3);
    stress_wait_end(0);
    if (!inside)
        for (int i = 0; i < spawners; i++) stress_join(thread[i]);
    if (large) seconds_each = (heist_time() - begun) / wanted;
    if (stress_reports() > reports) s_set(&refused, true); /* no stack for a first step: the task fails with -ENOMEM */
    struct stress_held peak = look();
    uint32_t early = s_get(&ended), n = s_get(&asleep) - early;
    total_asleep += n;
    if (n > most_asleep) most_asleep = n;
    if (n >= MILLION) full_rounds++;
    if (s_get(&refused)) starved_rounds++;
    if (peak.mappings > most_mappings) most_mappings = peak.mappings;
    stress_check(peak.descriptors == before.descriptors, "%u sleeping tasks hold %ld descriptors", n,
                 peak.descriptors - before.descriptors);
    if (n >= 20000 && early < n / 100 && !DETECTED) { /* what has woken early has left its stack behind */
        long kib = peak.rss_kib + peak.page_tables_kib - before.rss_kib - before.page_tables_kib;
        double each = (double)kib * 1024 / n;
        if (each < least_each) least_each = each;
        if (each > most_each) most_each = each;
        stress_check(each <= MOST_BYTES_EACH, "%u sleeping tasks take %.0f bytes each", n, each);
    }
    stress_phase("waking up");
    stress_wait_begin(0, "everybody wakes up", (double)wanted * (DETECTED ? 2e-2 : 1e-4) + (way == CLOCK ? 120 : 0));
    if (way != CLOCK) wake_at = heist_time();
    switch (way) {
        case FUTURE: err = heist_future_set_result(dawn, NULL, NULL); break;
        case CHANNEL: err = heist_channel_close(channel); break;
        case CANCEL:
            for (uint32_t i = 0; i < wanted; i++) {
                if (!tasks[i]) continue;
                int asked = heist_cancel(tasks[i]);
                stress_check(asked == 0 || asked == 1, "cancel answered %s", heist_error_name(asked));
                heist_unref(tasks[i]);
            }
            break;
        default: break;
    }
    stress_check(err == 0, "the wake answered %s", heist_error_name(err));
    if (way != CLOSE) {
        while (heist_runtime_task_count(rt) > 0) stress_block(1e-3);
        stress_wait_end(0);
        stress_check(s_get(&refused) || s_get(&ended) == s_get(&born), "%u tasks were born, %u ended", s_get(&born),
                     s_get(&ended));
        if (large) check_trimmed(&before, &peak);
    }
    stress_runtime_end(rt);
    stress_wait_end(0);
    heist_channel_unref(channel);
    heist_unref(dawn);
    if (way == CANCEL) free(tasks);
    stress_phase("back to the base line");
    stress_check(s_get(&freed) == s_get(&born), "%u arguments were given away, %u were freed", s_get(&born),
                 s_get(&freed));
    struct stress_held after = look();
    if (base_taken) check_back("after a round", &after);
    else base = after;
    base_taken = true;
}

int main(int argc, char **argv) {
    /* malloc is to keep nothing for later, or it would hide what the library keeps: few arenas, and thresholds that do
     * not grow with the largest block that was ever freed, as they do by themselves (to 16 MiB after one of 8). */
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    mallopt(M_TRIM_THRESHOLD, 128 * 1024);
    stress_begin(argc, argv, "memory", "a million tasks sleep and end; memory, mappings and descriptors come back");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("asleep at once: at most %" PRIu64 "; %" PRIu64 " in all; rounds with a million: %" PRIu64
                ", rounds in which memory ran out: %" PRIu64,
                most_asleep, total_asleep, full_rounds, starved_rounds);
    if (most_each > 0)
        stress_note("a sleeping task took %.0f to %.0f bytes, page tables included; %ld mappings at most", least_each,
                    most_each, most_mappings);
    return stress_end();
}
