/* The pool of guarded stacks: arenas, guards, the shared chains, trimming.
 *
 * Owns every arena of the process.  Callers and threads: see stack.h.
 *
 * One lock guards the chains, the cold maps and the counts; it is held for a few
 * instructions and for no system call.  A caller that needs one (a mapping, a guard,
 * advice) first takes what it is about under the lock, so that nobody else has it,
 * and works on it alone.
 *
 * An arena is one mapping: its description, then its stacks side by side.  Each next
 * arena of a size is as big as all before it, so a program with ten coroutines maps
 * little, and one with a million has some tens of mappings.  A guard page is a mark in
 * the page table (MADV_GUARD_INSTALL), which needs no mapping of its own; where the
 * kernel does not know it, mprotect splits the arena, and the kernel's limit of
 * mappings is then the limit of stacks.
 *
 * Invariant: outside = stacks whose place is a cache, a caller, or a trim under way. */
#include "mem/stack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "conc/atomic.h"
#include "conc/spin.h"
#include "mem/ranges.h"

#if HEIST_ASAN
#include <sanitizer/asan_interface.h>
#endif
#if HEIST_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

_Static_assert(offsetof(struct heist__stack, user) == HEIST_CACHE_LINE, "the hot fields share a line");

/* The header moves down by up to 960 bytes, a line for each neighbour: else the headers and
 * first frames of all stacks, at the same place in their pages, would fight for the
 * same few sets of every cache.  What is left of the page holds a sleeping coroutine. */
#define COLOURS 16u

/* An arena never has more stacks, nor more bytes: bounds what one trim map costs and
 * what is asked of RLIMIT_AS at once. */
#define ARENA_MAX_STACKS 65536u
#define ARENA_MAX_BYTES ((size_t)16 << 30)

struct heist__arena {
    /* Fixed before it is published. */
    char *base; /* of the stack with index 0 */
    size_t map_bytes;
    size_t page;
    int range; /* its number in the table */
    uint32_t klass, count;
    uint64_t *cold;              /* a bit for each stack; under the lock */
    uint64_t *trim;              /* likewise; the trimming thread's */
    unsigned char *guarded;      /* a byte for each stack: whoever has the stack writes it */
    _Atomic(bool) no_advice;     /* guards by mprotect */
    _Atomic(bool) advice_proven; /* one guard was seen to work */

    /* Under the lock. */
    struct heist__arena *next; /* of its size, oldest first */
    uint32_t cold_count;
    uint32_t hint; /* no cold bit in a word before this one */

    /* The trimming thread's. */
    struct heist__arena *trim_next;
    uint32_t trim_count;
};

static struct {
    struct heist__spin lock;

    /* Under the lock. */
    struct heist__stack *chains[HEIST__STACK_CLASSES];
    struct heist__arena *arenas[HEIST__STACK_CLASSES];
    struct heist__arena *newest[HEIST__STACK_CLASSES];
    size_t stacks[HEIST__STACK_CLASSES]; /* in all arenas of the size */
    size_t mapped;
    size_t outside;
    bool trimming;

    /* Written under the lock, read by anyone as a hint. */
    _Atomic(size_t) warm[HEIST__STACK_CLASSES];
    _Atomic(size_t) warm_total;

    /* Guards made by mprotect, and how many may be (0: not known yet). */
    _Atomic(size_t) protected_guards;
    _Atomic(size_t) protected_limit;

    /* For tests. */
    _Atomic(bool) force_mprotect;
    _Atomic(size_t) force_limit;
} pool;

/* ---- sizes ---- */

static size_t page_size(void) { return (size_t)getauxval(AT_PAGESZ); }

static unsigned class_shift(unsigned klass) { return HEIST__STACK_MIN_SHIFT + klass; }

/* -EINVAL, or the class of the smallest stack with that many bytes. */
static int class_of(size_t bytes) {
    if (heist_unlikely(bytes < HEIST__STACK_MIN || bytes > HEIST__STACK_MAX)) return -EINVAL;
    int shift = 64 - __builtin_clzll((unsigned long long)bytes - 1);
#if !defined(__x86_64__)
    /* Where pages are bigger than 4 KiB the smallest stacks would be all guard. */
    while (((size_t)1 << shift) < 4 * page_size()) shift++;
#endif
    return shift - HEIST__STACK_MIN_SHIFT;
}

/* How many stacks change hands at once; a cache keeps at most twice as many of a size.
 * 32 make the lock a thirty-second of a get; bigger stacks may each hold more memory,
 * so a thread keeps no more than 2 MiB of address space in a chain. */
static uint32_t batch_of(unsigned klass) {
    unsigned shift = class_shift(klass);
    return shift <= 16 ? 32 : shift >= 21 ? 1 : 1u << (21 - shift);
}

static char *stack_base(const struct heist__arena *a, uint32_t index) {
    return a->base + ((size_t)index << class_shift(a->klass));
}

static uintptr_t header_address(uintptr_t first_base, unsigned shift, size_t index) {
    return first_base + ((index + 1) << shift) - sizeof(struct heist__stack) -
           (index % COLOURS) * (size_t)HEIST_CACHE_LINE;
}

/* First touch of the stack's first page. */
static struct heist__stack *write_header(struct heist__arena *a, uint32_t index) {
    struct heist__stack *s = (void *)header_address((uintptr_t)a->base, class_shift(a->klass), index);
    s->next = NULL;
    s->lo = stack_base(a, index) + a->page;
    s->bytes = (size_t)1 << class_shift(a->klass);
    s->arena = a;
    s->klass = a->klass;
    s->index = index;
    s->chain = 0;
    s->out = 0;
    s->next_chain = NULL;
    s->san_fiber = NULL;
    return s;
}

/* ---- guards ---- */

void heist__stack_force_mprotect(bool on, size_t limit) {
    a_store_sc(&pool.force_limit, limit);
    a_store_sc(&pool.force_mprotect, on);
    a_store_sc(&pool.protected_limit, 0);
}

/* Whether a fresh page can be read, asked of the kernel without a fault: it compares the
 * word there (0) with ours (1), and so finds a mismatch or cannot look. */
static bool kernel_can_read(const void *fresh_page) {
    const struct timespec no_wait = {0, 0};
    return syscall(SYS_futex, fresh_page, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 1, &no_wait, NULL, 0) == 0 ||
           errno != EFAULT;
}

/* A guard made by mprotect costs two mappings.  An eighth of what the kernel allows a
 * process stays for the rest of the program: the limit must hit the stack that asks
 * for too much, not the next malloc. */
static size_t protected_limit(void) {
    /* rlx: a value that every thread computes alike. */
    size_t limit = a_load_rlx(&pool.protected_limit);
    if (limit) return limit;
    long maps = 65530; /* the kernel's default */
    char text[32];
    int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        if (n > 0) {
            text[n] = 0;
            long read_maps = strtol(text, NULL, 10);
            if (read_maps > 0) maps = read_maps;
        }
    }
    limit = (size_t)(maps - maps / 8) / 2;
    size_t forced = a_load_rlx(&pool.force_limit);
    if (forced) limit = forced;
    a_store_rlx(&pool.protected_limit, limit);
    return limit;
}

static int protect(char *page, size_t bytes) {
    /* rlx: a count; nothing else is read by it. */
    if (a_add_rlx(&pool.protected_guards, 1) < protected_limit() && heist__sys_mprotect(page, bytes, PROT_NONE) == 0)
        return 0;
    a_sub_rlx(&pool.protected_guards, 1);
    return -ENOMEM;
}

/* The caller alone has the stack. */
static int install_guard(struct heist__arena *a, uint32_t index) {
    if (a->guarded[index]) return 0;
    char *page = stack_base(a, index);
    /* rlx: no_advice and advice_proven only save system calls. */
    while (!a_load_rlx(&a->no_advice)) {
        int err = heist__sys_madvise(page, a->page, MADV_GUARD_INSTALL);
        if (err == 0) {
            /* An emulator may nod at advice that it does not know: look once. */
            if (a_load_rlx(&a->advice_proven) || !kernel_can_read(page)) {
                a_store_rlx(&a->advice_proven, true);
                a->guarded[index] = 1;
                return 0;
            }
            a_store_rlx(&a->no_advice, true);
        } else if (err == -ENOMEM) {
            return -ENOMEM;
        } else if (err != -EINTR && err != -EAGAIN) {
            a_store_rlx(&a->no_advice, true);
        }
    }
    int err = protect(page, a->page);
    if (err == 0) a->guarded[index] = 1;
    return err;
}

/* ---- arenas ---- */

static size_t round_up(size_t n, size_t to) { return (n + to - 1) & ~(to - 1); }

/* A mapping with `count` cold stacks, not published; NULL when there is no room. */
static struct heist__arena *map_arena(unsigned klass, uint32_t count) {
    size_t page = page_size();
    size_t map_words = ((size_t)count + 63) / 64 * sizeof(uint64_t);
    size_t head = round_up(round_up(sizeof(struct heist__arena), HEIST_CACHE_LINE) + 2 * map_words + count, page);
    size_t bytes = head + ((size_t)count << class_shift(klass));
    char *at = heist__map(bytes);
    if (!at) return NULL;
    /* One touched page must not become 2 MiB.  Refused where there are none. */
    (void)heist__sys_madvise(at, bytes, MADV_NOHUGEPAGE);

    struct heist__arena *a = (void *)at;
    a->base = at + head;
    a->map_bytes = bytes;
    a->page = page;
    a->klass = klass;
    a->count = count;
    a->cold = (void *)(at + round_up(sizeof *a, HEIST_CACHE_LINE));
    a->trim = (void *)((char *)a->cold + map_words);
    a->guarded = (unsigned char *)a->trim + map_words;
    a_store_rlx(&a->no_advice, a_load_rlx(&pool.force_mprotect)); /* rlx: set by a test before it starts */
    memset(a->cold, 0xff, count / 64 * sizeof(uint64_t));
    if (count % 64) a->cold[count / 64] = ((uint64_t)1 << (count % 64)) - 1;
    a->cold_count = count;
    return a;
}

/* With the lock: enters the arena in the table and in the list of its size; false when
 * the table is full. */
static bool publish_arena(struct heist__arena *a) {
    unsigned shift = class_shift(a->klass);
    uintptr_t lo = (uintptr_t)a->base;
    a->range = heist__ranges_add((struct heist__range){lo, lo + ((uintptr_t)a->count << shift), shift});
    if (a->range < 0) return false;

    if (pool.newest[a->klass]) pool.newest[a->klass]->next = a;
    else pool.arenas[a->klass] = a;
    pool.newest[a->klass] = a;
    pool.stacks[a->klass] += a->count;
    pool.mapped += a->map_bytes;
    return true;
}

/* With the lock: an arena of this size that has a cold stack. */
static struct heist__arena *find_cold(unsigned klass) {
    struct heist__arena *a = pool.arenas[klass];
    while (a && a->cold_count == 0) a = a->next;
    return a;
}

/* Adds an arena.  Called and returns with the lock held, gives it up between.  Where
 * address space is short (RLIMIT_AS) a smaller one will do. */
static int add_arena(unsigned klass) {
    uint32_t least = batch_of(klass);
    size_t count = pool.stacks[klass];
    if (count < 2 * (size_t)least) count = 2 * (size_t)least;
    if (count > ARENA_MAX_STACKS) count = ARENA_MAX_STACKS;
    if (count > ARENA_MAX_BYTES >> class_shift(klass)) count = ARENA_MAX_BYTES >> class_shift(klass);

    heist__spin_unlock(&pool.lock);
    struct heist__arena *a = map_arena(klass, (uint32_t)count);
    while (!a && count / 2 >= least) {
        count /= 2;
        a = map_arena(klass, (uint32_t)count);
    }
    heist__spin_lock(&pool.lock);

    bool quicker = find_cold(klass); /* somebody else was; what he made may be gone when we look again */
    if (a && !quicker && publish_arena(a)) return 0;
    heist__spin_unlock(&pool.lock);
    if (a) heist__unmap(a, a->map_bytes);
    heist__spin_lock(&pool.lock);
    return quicker || find_cold(klass) ? 0 : -ENOMEM;
}

/* ---- cold stacks ---- */

/* With the lock: takes up to max neighbours from the arena, which has a cold one. */
static uint32_t take_cold(struct heist__arena *a, uint32_t max, uint32_t *first) {
    uint32_t word = a->hint;
    while (a->cold[word] == 0) word++;
    a->hint = word;
    unsigned bit = (unsigned)__builtin_ctzll(a->cold[word]);
    uint64_t rest = ~(a->cold[word] >> bit);
    uint32_t run = rest ? (uint32_t)__builtin_ctzll(rest) : 64;
    if (run > max) run = max;
    uint64_t mask = (run == 64 ? ~(uint64_t)0 : ((uint64_t)1 << run) - 1) << bit;
    a->cold[word] &= ~mask;
    a->cold_count -= run;
    *first = word * 64 + bit;
    return run;
}

/* With the lock: count stacks from first on have no page in memory and no owner. */
static void add_cold(struct heist__arena *a, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; i++) a->cold[i / 64] |= (uint64_t)1 << (i % 64);
    a->cold_count += count;
    if (first / 64 < a->hint) a->hint = first / 64;
}

/* A run of 1 to max cold stacks with guards: its length, or -ENOMEM. */
static int pool_take_run(unsigned klass, uint32_t max, struct heist__arena **arena, uint32_t *first) {
    heist__spin_lock(&pool.lock);
    struct heist__arena *a;
    while (!(a = find_cold(klass))) {
        int err = add_arena(klass);
        if (err < 0) {
            heist__spin_unlock(&pool.lock);
            return err;
        }
    }
    uint32_t run = take_cold(a, max, first);
    pool.outside += run;
    heist__spin_unlock(&pool.lock);

    uint32_t done = 0;
    int err = 0;
    while (done < run && (err = install_guard(a, *first + done)) == 0) done++;
    if (done < run) {
        heist__spin_lock(&pool.lock);
        add_cold(a, *first + done, run - done);
        pool.outside -= run - done;
        heist__spin_unlock(&pool.lock);
        if (done == 0) return err;
    }
    *arena = a;
    return (int)done;
}

/* ---- warm stacks ---- */

/* With the lock. */
static void count_warm(unsigned klass, size_t add, size_t sub) {
    /* rlx: written under the lock; read elsewhere as a hint. */
    a_store_rlx(&pool.warm[klass], a_load_rlx(&pool.warm[klass]) + add - sub);
    a_store_rlx(&pool.warm_total, a_load_rlx(&pool.warm_total) + add - sub);
}

static void pool_put_chain(struct heist__stack *head, uint32_t count) {
    unsigned klass = head->klass;
    head->chain = count;
    heist__spin_lock(&pool.lock);
    head->next_chain = pool.chains[klass];
    pool.chains[klass] = head;
    pool.outside -= count;
    count_warm(klass, count, 0);
    heist__spin_unlock(&pool.lock);
}

/* NULL when there is none. */
static struct heist__stack *pool_take_chain(unsigned klass) {
    /* rlx: a hint; a chain that is missed here is taken next time. */
    if (a_load_rlx(&pool.warm[klass]) == 0) return NULL;
    heist__spin_lock(&pool.lock);
    struct heist__stack *head = pool.chains[klass];
    if (head) {
        pool.chains[klass] = head->next_chain;
        pool.outside += head->chain;
        count_warm(klass, 0, head->chain);
    }
    heist__spin_unlock(&pool.lock);
    return head;
}

/* One stack, for callers without a cache; it joins the chain on top while there is room. */
static void pool_put_one(struct heist__stack *s) {
    unsigned klass = s->klass;
    heist__spin_lock(&pool.lock);
    struct heist__stack *top = pool.chains[klass];
    bool join = top && top->chain < batch_of(klass);
    s->next = join ? top : NULL;
    s->chain = join ? top->chain + 1 : 1;
    s->next_chain = join ? top->next_chain : top;
    pool.chains[klass] = s;
    pool.outside--;
    count_warm(klass, 1, 0);
    heist__spin_unlock(&pool.lock);
}

static struct heist__stack *pool_take_one(unsigned klass) {
    heist__spin_lock(&pool.lock);
    struct heist__stack *s = pool.chains[klass];
    if (s) {
        struct heist__stack *rest = s->next;
        if (rest) {
            rest->chain = s->chain - 1;
            rest->next_chain = s->next_chain;
        } else {
            rest = s->next_chain;
        }
        pool.chains[klass] = rest;
        pool.outside++;
        count_warm(klass, 0, 1);
    }
    heist__spin_unlock(&pool.lock);
    return s;
}

/* ---- get and put ---- */

static int get_without_cache(unsigned klass, struct heist__stack **out) {
    struct heist__stack *s = pool_take_one(klass);
    if (!s) {
        struct heist__arena *a;
        uint32_t first;
        int n = pool_take_run(klass, 1, &a, &first);
        if (n < 0) return n;
        s = write_header(a, first); /* NOLINT: at least one was taken, so both are set */
    }
    s->out = 1;
    *out = s;
    return 0;
}

/* The shelf has no warm stack in hand: the reserve, a chain of the pool, then a cold one. */
static HEIST_NOINLINE int get_slow(struct heist__stack_shelf *shelf, unsigned klass, struct heist__stack **out) {
    struct heist__stack *s = shelf->reserve;
    if (s) {
        shelf->warm_count = shelf->reserve_count;
        shelf->reserve = NULL;
        shelf->reserve_count = 0;
    } else if ((s = pool_take_chain(klass))) {
        shelf->warm_count = s->chain;
    }
    if (s) {
        shelf->warm = s->next;
        shelf->warm_count--;
    } else {
        if (shelf->run_count == 0) {
            int n = pool_take_run(klass, batch_of(klass), &shelf->run_arena, &shelf->run_first);
            if (n < 0) return n;
            shelf->run_count = (uint32_t)n;
        }
        s = write_header(shelf->run_arena, shelf->run_first++);
        shelf->run_count--;
    }
    s->out = 1;
    *out = s;
    return 0;
}

int heist__stack_get(struct heist__stack_cache *c, size_t bytes, struct heist__stack **out) {
    int klass = class_of(bytes);
    if (klass < 0) return klass;
    if (!c) return get_without_cache((unsigned)klass, out);
    struct heist__stack_shelf *shelf = &c->shelf[klass];
    struct heist__stack *s = shelf->warm;
    if (heist_unlikely(!s)) return get_slow(shelf, (unsigned)klass, out);
    shelf->warm = s->next;
    shelf->warm_count--;
    s->out = 1;
    *out = s;
    return 0;
}

void heist__stack_put(struct heist__stack_cache *c, struct heist__stack *s) {
    s->out = 0;
#if HEIST_ASAN
    /* The frames that never returned left their red zones. */
    ASAN_UNPOISON_MEMORY_REGION(s->lo, (size_t)((char *)s - s->lo));
#endif
    if (!c) {
        pool_put_one(s);
        return;
    }
    struct heist__stack_shelf *shelf = &c->shelf[s->klass];
    s->next = shelf->warm;
    shelf->warm = s;
    if (heist_likely(++shelf->warm_count < batch_of(s->klass))) return;
    if (shelf->reserve) pool_put_chain(shelf->reserve, shelf->reserve_count);
    shelf->reserve = shelf->warm;
    shelf->reserve_count = shelf->warm_count;
    shelf->warm = NULL;
    shelf->warm_count = 0;
}

void heist__stack_cache_flush(struct heist__stack_cache *c) {
    for (unsigned klass = 0; klass < HEIST__STACK_CLASSES; klass++) {
        struct heist__stack_shelf *shelf = &c->shelf[klass];
        if (shelf->warm) pool_put_chain(shelf->warm, shelf->warm_count);
        if (shelf->reserve) pool_put_chain(shelf->reserve, shelf->reserve_count);
        if (shelf->run_count) {
            heist__spin_lock(&pool.lock);
            add_cold(shelf->run_arena, shelf->run_first, shelf->run_count);
            pool.outside -= shelf->run_count;
            heist__spin_unlock(&pool.lock);
        }
        memset(shelf, 0, sizeof *shelf);
    }
}

/* ---- trim and release ---- */

/* The header's page is about to go: so must the fibre that coro/ keeps there. */
static void end_fiber(struct heist__stack *s) {
#if HEIST_TSAN
    if (s->san_fiber) __tsan_destroy_fiber(s->san_fiber);
#endif
    s->san_fiber = NULL;
}

size_t heist__stack_trimmable(void) { return a_load_rlx(&pool.warm_total); /* rlx: a hint */ }

/* With the lock: unlinks chains of the size that together hold at least `want`. */
static struct heist__stack *detach_chains(unsigned klass, size_t want, size_t *got) {
    struct heist__stack *list = NULL;
    size_t n = 0;
    while (pool.chains[klass] && n < want) {
        struct heist__stack *head = pool.chains[klass];
        pool.chains[klass] = head->next_chain;
        head->next_chain = list;
        list = head;
        n += head->chain;
    }
    count_warm(klass, 0, n);
    pool.outside += n;
    *got = n;
    return list;
}

/* Marks the stacks of the chains in their arenas' trim maps; the arenas, linked. */
static struct heist__arena *mark_for_trim(struct heist__stack *list) {
    struct heist__arena *arenas = NULL;
    for (struct heist__stack *head = list; head; head = head->next_chain) {
        for (struct heist__stack *s = head; s; s = s->next) {
            struct heist__arena *a = s->arena;
            end_fiber(s);
            if (a->trim_count++ == 0) {
                a->trim_next = arenas;
                arenas = a;
            }
            a->trim[s->index / 64] |= (uint64_t)1 << (s->index % 64);
        }
    }
    return arenas;
}

static void drop_pages(struct heist__arena *a, uint32_t first, uint32_t end) {
    if (first < end)
        (void)heist__sys_madvise(stack_base(a, first), (size_t)(end - first) << class_shift(a->klass), MADV_DONTNEED);
}

/* Drops the pages of the marked stacks, neighbours in one call.  Guard marks stay:
 * this advice spares them. */
static void drop_marked(struct heist__arena *a) {
    uint32_t run = 0, i = 0;
    while (i < a->count) {
        if (i % 64 == 0 && a->trim[i / 64] == 0) {
            drop_pages(a, run, i);
            i += 64;
            run = i;
            continue;
        }
        bool marked = a->trim[i / 64] >> (i % 64) & 1;
        if (!marked) {
            drop_pages(a, run, i);
            run = i + 1;
        }
        i++;
    }
    if (run < a->count) drop_pages(a, run, a->count);
}

/* With the lock: the marked stacks are cold. */
static void marked_to_cold(struct heist__arena *a) {
    uint32_t words = (a->count + 63) / 64;
    for (uint32_t i = words; i-- > 0;) {
        if (!a->trim[i]) continue;
        a->cold[i] |= a->trim[i];
        a->trim[i] = 0;
        if (i < a->hint) a->hint = i;
    }
    a->cold_count += a->trim_count;
    pool.outside -= a->trim_count;
    a->trim_count = 0;
}

static size_t trim_class(unsigned klass, size_t want) {
    size_t got;
    heist__spin_lock(&pool.lock);
    struct heist__stack *list = detach_chains(klass, want, &got);
    heist__spin_unlock(&pool.lock);
    struct heist__arena *a = mark_for_trim(list);
    while (a) {
        struct heist__arena *next = a->trim_next;
        drop_marked(a);
        heist__spin_lock(&pool.lock);
        marked_to_cold(a);
        heist__spin_unlock(&pool.lock);
        a = next;
    }
    return got;
}

static bool begin_trim(void) {
    heist__spin_lock(&pool.lock);
    bool mine = !pool.trimming;
    pool.trimming = true;
    heist__spin_unlock(&pool.lock);
    return mine;
}

size_t heist__stack_trim_some(size_t stacks) {
    size_t bytes = 0;
    if (heist__stack_trimmable() == 0 || !begin_trim()) return 0;
    for (unsigned klass = HEIST__STACK_CLASSES; klass-- > 0 && stacks > 0;) {
        size_t got = trim_class(klass, stacks);
        bytes += got << class_shift(klass);
        stacks -= got < stacks ? got : stacks;
    }
    heist__spin_lock(&pool.lock);
    pool.trimming = false;
    heist__spin_unlock(&pool.lock);
    return bytes;
}

size_t heist__stack_trim(void) { return heist__stack_trim_some(SIZE_MAX); }

bool heist__stack_pool_release(void) {
    struct heist__stack *chains[HEIST__STACK_CLASSES];
    struct heist__arena *arenas[HEIST__STACK_CLASSES];
    heist__spin_lock(&pool.lock);
    if (pool.outside != 0 || pool.trimming) {
        heist__spin_unlock(&pool.lock);
        return false;
    }
    for (unsigned klass = 0; klass < HEIST__STACK_CLASSES; klass++) {
        chains[klass] = pool.chains[klass];
        arenas[klass] = pool.arenas[klass];
        for (struct heist__arena *a = arenas[klass]; a; a = a->next) heist__ranges_remove(a->range);
        pool.chains[klass] = NULL;
        pool.arenas[klass] = pool.newest[klass] = NULL;
        pool.stacks[klass] = 0;
        a_store_rlx(&pool.warm[klass], 0); /* rlx: see count_warm */
    }
    a_store_rlx(&pool.warm_total, 0);
    a_store_rlx(&pool.protected_guards, 0);
    pool.mapped = 0;
    heist__spin_unlock(&pool.lock);

    /* Nobody else can reach these now. */
    for (unsigned klass = 0; klass < HEIST__STACK_CLASSES; klass++) {
        if (HEIST_TSAN)
            for (struct heist__stack *head = chains[klass]; head; head = head->next_chain)
                for (struct heist__stack *s = head; s; s = s->next) end_fiber(s);
        for (struct heist__arena *a = arenas[klass], *next; a; a = next) {
            next = a->next;
            heist__unmap(a, a->map_bytes);
        }
    }
    return true;
}

/* ---- questions ---- */

bool heist__stack_contains_guard(const void *addr, struct heist__stack **owner) {
    uintptr_t at = (uintptr_t)addr;
    struct heist__range r;
    if (!heist__ranges_find(at, &r)) return false;
    if (((at - r.lo) & (((uintptr_t)1 << r.shift) - 1)) >= page_size()) return false;
    struct heist__stack *s = (void *)header_address(r.lo, r.shift, (at - r.lo) >> r.shift);
    *owner = s->out ? s : NULL;
    return true;
}

size_t heist__stack_high_water(struct heist__stack *s) {
    size_t page = s->arena->page;
    char *end = stack_base(s->arena, s->index) + s->bytes;
    unsigned char resident[256];
    for (char *at = s->lo; at < end; at += sizeof resident * page) {
        size_t pages = (size_t)(end - at) / page;
        if (pages > sizeof resident) pages = sizeof resident;
        if (mincore(at, pages * page, resident) < 0) return 0;
        for (size_t i = 0; i < pages; i++)
            if (resident[i] & 1) return (size_t)(end - (at + i * page));
    }
    return 0;
}

size_t heist__stack_mapped(void) {
    heist__spin_lock(&pool.lock);
    size_t bytes = pool.mapped;
    heist__spin_unlock(&pool.lock);
    return bytes;
}

size_t heist__stack_outside(void) {
    heist__spin_lock(&pool.lock);
    size_t n = pool.outside;
    heist__spin_unlock(&pool.lock);
    return n;
}
