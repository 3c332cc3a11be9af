/* Everything at once, as text, as a table, as a tree, for programs.
 *
 * First a snapshot is taken: references to the tasks that live, where each stands, and who waits for it.  Futures
 * between two tasks (a gather's, a shield) are passed through, so that links go from task to task.  Then it is written,
 * and nothing of the library is held while the stream blocks, but the references.
 *
 * A snapshot is not one moment: a task that ends meanwhile is still in it, and two links may be of different moments.
 * So a cycle is told only when it is still there at a second look. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/peek.h"
#include "inspect/inspect.h"
#include "mem/slab.h"
#include "sched/sched.h"
#include "task/state.h"
#include "task/task.h"

#define PASSED_MAX 64 /* futures between two tasks that are followed */

struct seen_task {
    heist_task *task; /* one reference */
    const heist_runtime *rt;
    int worker; /* on which it runs, or is pinned; -1 */
    void **frames;
    int frame_count;              /* or why there are none */
    size_t first, links;          /* in the list of links: the tasks that wait for it */
    unsigned threads;             /* plain ones that wait */
    size_t first_child, children; /* in the list of awaited: those that it waits for */
    int colour;                   /* for the search of cycles */
};

struct snapshot {
    struct seen_task *tasks; /* sorted by address */
    size_t count, room;
    size_t *links, link_count, link_room;
    size_t *awaited; /* the links, the other way round */
    struct heist__awaits awaits;
    const heist_runtime **runtimes; /* references to their memory */
    size_t runtime_count;
    bool failed;
};

/* ---- the snapshot ---- */

static bool grow(void **list, size_t count, size_t *room, size_t each) {
    if (count < *room) return true;
    size_t more = *room ? *room * 2 : 64;
    void *grown = heist__realloc(*list, more * each);
    if (!grown) return false;
    *list = grown;
    *room = more;
    return true;
}

static bool collect(void *object, void *arg) {
    struct snapshot *s = arg;
    heist_future *f = object;
    if (!heist__future_try_ref(f)) return true;
    bool wanted = false; /* a task of a runtime that is held */
    for (size_t i = 0; heist__is_task(f) && i < s->runtime_count && !wanted; i++) wanted = s->runtimes[i] == f->rt;
    if (!wanted) {
        heist_unref(f);
        return true;
    }
    if (!grow((void **)&s->tasks, s->count, &s->room, sizeof(*s->tasks))) {
        heist_unref(f);
        s->failed = true;
        return false;
    }
    s->tasks[s->count] = (struct seen_task){.task = f, .worker = -1};
    s->count++;
    return true;
}

static int by_address(const void *a, const void *b) {
    uintptr_t x = (uintptr_t)((const struct seen_task *)a)->task, y = (uintptr_t)((const struct seen_task *)b)->task;
    return x < y ? -1 : x > y;
}

static size_t find_task(const struct snapshot *s, const heist_task *t) {
    size_t lo = 0, hi = s->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((uintptr_t)s->tasks[mid].task < (uintptr_t)t) lo = mid + 1;
        else hi = mid;
    }
    return lo < s->count && s->tasks[lo].task == t ? lo : SIZE_MAX;
}

static bool add_link(struct snapshot *s, size_t task, size_t awaiter) {
    struct seen_task *t = &s->tasks[task];
    for (size_t i = t->first; i < s->link_count && i < t->first + 64; i++)
        if (s->links[i] == awaiter) return true;
    if (!grow((void **)&s->links, s->link_count, &s->link_room, sizeof(*s->links))) return false;
    s->links[s->link_count++] = awaiter;
    return true;
}

/* The tasks that wait for a task, also by futures between. */
static int add_awaiters(struct snapshot *s, size_t task) {
    struct seen_task *t = &s->tasks[task];
    heist_future *passed[PASSED_MAX];
    size_t passed_count = 1;
    int err = 0;
    passed[0] = heist_ref(t->task);
    t->first = s->link_count;
    for (size_t at = 0; at < passed_count; at++) {
        heist_future **list;
        size_t n;
        unsigned threads;
        if (!err) err = heist__awaits_of(&s->awaits, passed[at], &list, &n, &threads);
        if (!err) {
            t->threads += threads;
            for (size_t i = 0; i < n; i++) {
                bool is_task = heist__is_task(list[i]);
                size_t index = is_task ? find_task(s, list[i]) : SIZE_MAX;
                if (index != SIZE_MAX && !err && !add_link(s, task, index)) err = -ENOMEM;
                if (!is_task && passed_count < PASSED_MAX) passed[passed_count++] = list[i];
                else heist_unref(list[i]);
            }
            heist__free(list);
        }
        heist_unref(passed[at]);
    }
    t->links = s->link_count - t->first;
    return err;
}

static int look_at(struct seen_task *t) {
    void *frames[HEIST__FRAMES];
    t->rt = t->task->rt; /* it lives as long as the task is not done; only its address is kept */
    if (t->task->pinned && t->rt && t->task->loop) t->worker = t->task->loop->worker->index;
    int n = heist__task_frames(t->task, frames, HEIST__FRAMES, 16, NULL);
    t->frame_count = n;
    if (n <= 0) return n == -ENOMEM ? n : 0;
    t->frames = heist__alloc((size_t)n * sizeof(void *));
    if (!t->frames) return -ENOMEM;
    memcpy(t->frames, frames, (size_t)n * sizeof(void *));
    return 0;
}

/* What the workers run now: read as in another process, for it is theirs. */
static void look_at_workers(struct snapshot *s) {
    for (size_t r = 0; r < s->runtime_count; r++) {
        const heist_runtime *rt = s->runtimes[r];
        for (int i = 0; i < rt->workers; i++) {
            struct heist__self *self = NULL;
            heist_task *t = NULL;
            if (heist__peek((const void *)&rt->worker[i]->self, &self, sizeof(self)) || !self) continue;
            if (heist__peek((const void *)&self->task, &t, sizeof(t)) || !t) continue;
            size_t at = find_task(s, t);
            if (at != SIZE_MAX && s->tasks[at].task->rt == rt) s->tasks[at].worker = i;
        }
    }
}

static int turn_links_round(struct snapshot *s) {
    s->awaited = heist__alloc((s->link_count + 1) * sizeof(*s->awaited));
    if (!s->awaited) return -ENOMEM;
    for (size_t i = 0; i < s->link_count; i++) s->tasks[s->links[i]].children++;
    size_t at = 0;
    for (size_t i = 0; i < s->count; i++) {
        s->tasks[i].first_child = at;
        at += s->tasks[i].children;
        s->tasks[i].children = 0;
    }
    for (size_t i = 0; i < s->count; i++)
        for (size_t k = 0; k < s->tasks[i].links; k++) {
            struct seen_task *awaiter = &s->tasks[s->links[s->tasks[i].first + k]];
            s->awaited[awaiter->first_child + awaiter->children++] = i;
        }
    return 0;
}

static int take_runtimes(struct snapshot *s) {
    size_t room = 0;
    for (heist_runtime *rt = NULL; (rt = heist__runtime_after(rt));) {
        if (!grow((void **)&s->runtimes, s->runtime_count, &room, sizeof(*s->runtimes))) {
            heist__runtime_release(rt);
            return -ENOMEM;
        }
        a_add_rlx(&rt->refs, 1); /* rlx: we hold one, which the next step takes back */
        s->runtimes[s->runtime_count++] = rt;
    }
    return 0;
}

static void snapshot_free(struct snapshot *s) {
    heist__awaits_free(&s->awaits);
    for (size_t i = 0; i < s->count; i++) {
        heist_unref(s->tasks[i].task);
        heist__free(s->tasks[i].frames);
    }
    heist__free(s->tasks);
    heist__free(s->links);
    heist__free(s->awaited);
    for (size_t i = 0; i < s->runtime_count; i++) heist__runtime_release((heist_runtime *)(uintptr_t)s->runtimes[i]);
    heist__free(s->runtimes);
}

static int snapshot_take(struct snapshot *s) {
    memset(s, 0, sizeof(*s));
    int err = take_runtimes(s);
    /* With a runtime held the tasks' memory stays; without one there is no task. */
    if (!err && s->runtime_count) heist__slab_each(HEIST__SLAB_FUTURE, collect, s);
    if (s->failed) err = -ENOMEM;
    if (!err && s->count) qsort(s->tasks, s->count, sizeof(*s->tasks), by_address);
    if (!err && s->runtime_count) err = heist__awaits_collect(&s->awaits);
    for (size_t i = 0; !err && i < s->count; i++) {
        err = look_at(&s->tasks[i]);
        if (!err) err = add_awaiters(s, i);
    }
    if (!err) look_at_workers(s);
    if (!err) err = turn_links_round(s);
    if (err) snapshot_free(s);
    return err;
}

/* ---- words ---- */

static const char *state_of(const heist_task *t) {
    switch (heist_future_state(t)) {
        case HEIST_RUNNING: return "running";
        case HEIST_PENDING:
            return a_load_acq(&((heist_task *)(uintptr_t)t)->awaiting) ? "awaiting" : "pending"; /* acq: old */
        case HEIST_CANCELLED: return "cancelled";
        default: return "done";
    }
}

static void name_of(heist_task *t, char *buf, size_t size) { heist__task_name_into(t, buf, size); }

static void thread_of(const struct seen_task *t, char *buf, size_t size) {
    if (t->worker >= 0) snprintf(buf, size, "%s/%d", t->rt->name, t->worker);
    else snprintf(buf, size, "-");
}

static void frame_text(const void *address, bool raw, char *buf, size_t size) {
    if (raw) snprintf(buf, size, "{%#lx}", (unsigned long)(uintptr_t)address);
    else heist_describe_address(address, 1, buf, size);
}

/* The frames of the program: those of a suspended task begin in the library. */
static void write_frames_in_line(const struct seen_task *t, bool raw, FILE *to) {
    char text[256];
    if (t->frame_count == -EBUSY) fputs("running", to);
    for (int i = 0; i < t->frame_count; i++) {
        frame_text(t->frames[i], raw, text, sizeof(text));
        fprintf(to, "%s%s", i ? " -> " : "", text);
    }
    if (!t->frame_count) fputs("-", to);
}

/* ---- cycles ----
 *
 * A depth-first walk along "awaits"; a task that stands on the way down closes a cycle. */

struct walk {
    size_t *path, *next; /* tasks on the way, and for each which awaited comes next */
    size_t depth;
};

static bool still_awaits(const struct snapshot *s, size_t task, size_t awaited) {
    heist_task *t = s->tasks[task].task;
    return !heist__future_is_done(t) && !heist__future_is_done(s->tasks[awaited].task) &&
           heist_future_state(t) != HEIST_RUNNING;
}

/* Calls `found` with each cycle: n tasks, each of which waits for the next, the last for the first.  -ENOMEM, or how
 * many. */
static int find_cycles(struct snapshot *s, void (*found)(struct snapshot *s, const size_t *tasks, size_t n, void *arg),
                       void *arg) {
    struct walk w = {heist__alloc((s->count + 1) * sizeof(size_t)), heist__alloc((s->count + 1) * sizeof(size_t)), 0};
    int count = 0;
    if (!w.path || !w.next) count = -ENOMEM;
    for (size_t i = 0; i < s->count; i++) s->tasks[i].colour = 0;
    for (size_t start = 0; count >= 0 && start < s->count; start++) {
        if (s->tasks[start].colour) continue;
        s->tasks[start].colour = 1;
        w.path[0] = start;
        w.next[0] = 0;
        w.depth = 1;
        while (w.depth) {
            size_t at = w.path[w.depth - 1];
            if (w.next[w.depth - 1] == s->tasks[at].children) {
                s->tasks[at].colour = 2;
                w.depth--;
                continue;
            }
            size_t to = s->awaited[s->tasks[at].first_child + w.next[w.depth - 1]++];
            if (s->tasks[to].colour == 0) {
                s->tasks[to].colour = 1;
                w.path[w.depth] = to;
                w.next[w.depth++] = 0;
            } else if (s->tasks[to].colour == 1) {
                size_t first = w.depth - 1;
                while (w.path[first] != to) first--;
                bool real = true;
                for (size_t i = first; i < w.depth; i++)
                    real &= still_awaits(s, w.path[i], i + 1 < w.depth ? w.path[i + 1] : to);
                if (!real) continue;
                count++;
                if (found) found(s, w.path + first, w.depth - first, arg);
            }
        }
    }
    heist__free(w.path);
    heist__free(w.next);
    return count;
}

static void write_cycle(struct snapshot *s, const size_t *tasks, size_t n, void *arg) {
    FILE *to = arg;
    char name[128];
    fputs("cycle: ", to);
    for (size_t i = 0; i <= n; i++) {
        name_of(s->tasks[tasks[i % n]].task, name, sizeof(name));
        fprintf(to, "%s%s", i ? " -> " : "", name);
    }
    fputc('\n', to);
}

/* ---- the formats ---- */

static void write_table(const struct snapshot *s, bool raw, FILE *to) {
    char thread[64], name[128];
    fputs("thread\ttask id\ttask name\tstack\tawaiter's stack\tawaiter name\tawaiter id\n", to);
    for (size_t i = 0; i < s->count; i++) {
        const struct seen_task *t = &s->tasks[i];
        thread_of(t, thread, sizeof(thread));
        size_t lines = t->links ? t->links : 1;
        for (size_t k = 0; k < lines; k++) {
            name_of(t->task, name, sizeof(name));
            fprintf(to, "%s\t%p\t%s\t", thread, (void *)t->task, name);
            write_frames_in_line(t, raw, to);
            if (t->links) {
                const struct seen_task *a = &s->tasks[s->links[t->first + k]];
                fputc('\t', to);
                write_frames_in_line(a, raw, to);
                name_of(a->task, name, sizeof(name));
                fprintf(to, "\t%s\t%p\n", name, (void *)a->task);
            } else {
                fprintf(to, "\t-\t%s\t-\n", t->threads ? "a plain thread" : "-");
            }
        }
    }
}

static void write_tree_node(struct snapshot *s, size_t at, size_t depth, bool again, bool raw, FILE *to) {
    struct seen_task *t = &s->tasks[at];
    char name[128], text[256];
    int in = (int)(depth < 60 ? depth : 60) * 4;
    name_of(t->task, name, sizeof(name));
    fprintf(to, "%*s%s %s (%s)%s\n", in, "", depth ? "└──" : "*", name, state_of(t->task), again ? " see above" : "");
    if (again) return;
    for (int i = t->frame_count < 12 ? t->frame_count : 12; i-- > 0;) {
        frame_text(t->frames[i], raw, text, sizeof(text));
        fprintf(to, "%*s    | %s\n", in, "", text);
    }
}

static int write_tree(struct snapshot *s, bool raw, FILE *to) {
    int cycles = find_cycles(s, write_cycle, to);
    if (cycles < 0) return cycles;
    struct walk w = {heist__alloc((s->count + 1) * sizeof(size_t)), heist__alloc((s->count + 1) * sizeof(size_t)), 0};
    int err = !w.path || !w.next ? -ENOMEM : 0;
    for (size_t i = 0; i < s->count; i++) s->tasks[i].colour = 0;
    /* First from those for whom nobody waits; what is left then stands in cycles, or hangs on one. */
    for (int pass = 0; !err && pass < 2; pass++)
        for (size_t start = 0; start < s->count; start++) {
            if (s->tasks[start].colour || (!pass && s->tasks[start].links)) continue;
            w.path[0] = start;
            w.next[0] = 0;
            w.depth = 1;
            s->tasks[start].colour = 1;
            write_tree_node(s, start, 0, false, raw, to);
            while (w.depth) {
                size_t at = w.path[w.depth - 1];
                if (w.next[w.depth - 1] == s->tasks[at].children) {
                    w.depth--;
                    continue;
                }
                size_t child = s->awaited[s->tasks[at].first_child + w.next[w.depth - 1]++];
                bool again = s->tasks[child].colour;
                write_tree_node(s, child, w.depth, again, raw, to);
                if (again) continue;
                s->tasks[child].colour = 1;
                w.path[w.depth] = child;
                w.next[w.depth++] = 0;
            }
        }
    heist__free(w.path);
    heist__free(w.next);
    return err ? err : cycles > 0;
}

/* rlx, all of them: counters, each true for itself */
static void write_workers(const heist_runtime *rt, bool json, FILE *to) {
    for (int i = 0; i < rt->workers; i++) {
        heist_worker_stats st = HEIST_WORKER_STATS_INIT;
        heist__worker_counters(rt->worker[i], &st);
        fprintf(
            to,
            json ? "%s{\"index\":%d,\"spare\":%s,\"steps\":%llu,\"stolen\":%llu,\"callbacks\":%llu,\"timers\":%llu,"
                   "\"io_events\":%llu,\"inbox\":%llu,\"sleeps\":%llu,\"wakeups\":%llu,\"queue\":%llu}"
                 : "%s  worker %d%s: steps %llu, stolen %llu, callbacks %llu, timers %llu, io events %llu, inbox %llu, "
                   "sleeps %llu, wake-ups %llu, ready %llu\n",
            json && i ? "," : "", i,
            json                   ? rt->worker[i]->spare ? "true" : "false"
            : rt->worker[i]->spare ? " (spare)"
                                   : "",
            (unsigned long long)st.steps, (unsigned long long)st.stolen, (unsigned long long)st.callbacks,
            (unsigned long long)st.timers, (unsigned long long)st.io_events, (unsigned long long)st.inbox,
            (unsigned long long)st.sleeps, (unsigned long long)st.wakeups, (unsigned long long)st.queue);
    }
}

static void write_all(struct snapshot *s, bool raw, FILE *to) {
    char text[512], thread[64];
    fprintf(to, "process %d: %zu runtimes, %zu tasks\n", (int)getpid(), s->runtime_count, s->count);
    for (size_t i = 0; i < s->runtime_count; i++) {
        heist_runtime_repr((heist_runtime *)(uintptr_t)s->runtimes[i], text, sizeof(text));
        fprintf(to, "%s\n", text);
        write_workers(s->runtimes[i], false, to);
    }
    for (size_t i = 0; i < s->count; i++) {
        const struct seen_task *t = &s->tasks[i];
        heist_future_repr(t->task, text, sizeof(text));
        thread_of(t, thread, sizeof(thread));
        fprintf(to, "%s id=%p runtime=%s thread=%s\n", text, (void *)t->task, t->rt->name, thread);
        for (size_t k = 0; k < t->links; k++) {
            const struct seen_task *a = &s->tasks[s->links[t->first + k]];
            name_of(a->task, text, sizeof(text));
            fprintf(to, "  awaited by %s (%p)\n", text, (void *)a->task);
        }
        if (t->threads) fprintf(to, "  awaited by %u plain thread%s\n", t->threads, t->threads == 1 ? "" : "s");
        if (t->frame_count == -EBUSY) fputs("  runs at this moment\n", to);
        for (int k = 0; k < t->frame_count; k++) {
            frame_text(t->frames[k], raw, text, sizeof(text));
            fprintf(to, "  #%d %s\n", k, text);
        }
    }
}

static void write_string(const char *s, FILE *to) {
    fputc('"', to);
    for (; s && *s; s++) {
        if (*s == '"' || *s == '\\') fprintf(to, "\\%c", *s);
        else if ((unsigned char)*s < 0x20) fprintf(to, "\\u%04x", (unsigned char)*s);
        else fputc(*s, to);
    }
    fputc('"', to);
}

struct json_cycles {
    FILE *to;
    int count;
};

static void write_json_cycle(struct snapshot *s, const size_t *tasks, size_t n, void *arg) {
    struct json_cycles *c = arg;
    fputs(c->count++ ? ",[" : "[", c->to);
    for (size_t i = 0; i < n; i++) fprintf(c->to, "%s\"%p\"", i ? "," : "", (void *)s->tasks[tasks[i]].task);
    fputc(']', c->to);
}

static int write_json(struct snapshot *s, bool raw, FILE *to) {
    char text[512];
    fprintf(to, "{\"pid\":%d,\"runtimes\":[", (int)getpid());
    for (size_t i = 0; i < s->runtime_count; i++) {
        const heist_runtime *rt = s->runtimes[i];
        fprintf(to, "%s{\"id\":\"%p\",\"name\":", i ? "," : "", (const void *)rt);
        write_string(rt->name, to);
        fprintf(to, ",\"workers\":[");
        write_workers(rt, true, to);
        fprintf(to, "]}");
    }
    fputs("],\"tasks\":[", to);
    for (size_t i = 0; i < s->count; i++) {
        const struct seen_task *t = &s->tasks[i];
        name_of(t->task, text, sizeof(text));
        fprintf(to, "%s\n{\"id\":\"%p\",\"name\":", i ? "," : "", (void *)t->task);
        write_string(text, to);
        fprintf(to, ",\"state\":\"%s\",\"runtime\":\"%p\",\"worker\":%d,\"made_at\":", state_of(t->task),
                (const void *)t->rt, t->worker);
        snprintf(text, sizeof(text), "%s:%u", t->task->file ? t->task->file : "?", t->task->line);
        write_string(text, to);
        fputs(",\"stack\":[", to);
        for (int k = 0; k < t->frame_count; k++) {
            frame_text(t->frames[k], raw, text, sizeof(text));
            if (k) fputc(',', to);
            write_string(text, to);
        }
        fputs("],\"awaited_by\":[", to);
        for (size_t k = 0; k < t->links; k++)
            fprintf(to, "%s\"%p\"", k ? "," : "", (void *)s->tasks[s->links[t->first + k]].task);
        fprintf(to, "],\"waiting_threads\":%u}", t->threads);
    }
    fputs("],\"cycles\":[", to);
    struct json_cycles c = {to, 0};
    int cycles = find_cycles(s, write_json_cycle, &c);
    fputs("]}\n", to);
    return cycles < 0 ? cycles : cycles > 0;
}

int heist__dump(unsigned format, bool raw, FILE *to) {
    struct snapshot s;
    if (format > HEIST_DUMP_JSON) return -EINVAL;
    int answer = snapshot_take(&s);
    if (answer) return answer;
    switch (format) {
        case HEIST_DUMP_TABLE: write_table(&s, raw, to); break;
        case HEIST_DUMP_TREE: answer = write_tree(&s, raw, to); break;
        case HEIST_DUMP_JSON: answer = write_json(&s, raw, to); break;
        default: write_all(&s, raw, to); break;
    }
    snapshot_free(&s);
    return answer;
}

int heist_dump(int format, FILE *to) {
    if (format < 0) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return heist__dump((unsigned)format, false, to ? to : stderr);
}
