/* heist/runtime.h: N workers that steal from each other, never from another runtime.
 *
 * Several runtimes may live in one process.  Each worker is a thread with a loop and
 * a deque of its own. */
#ifndef HEIST_RUNTIME_H
#define HEIST_RUNTIME_H

#include <heist/base.h>
#include <heist/loop.h>
#include <heist/task.h>

HEIST_BEGIN_DECLS

#define HEIST_RUNTIME_OVERFLOW_HANDLER 0x1u /* install a SIGSEGV handler that names the task whose stack overflowed */
#define HEIST_RUNTIME_NO_OVERFLOW_HANDLER 0x2u /* heist_run installs it unless this is set */
#define HEIST_RUNTIME_VIRTUAL_TIME 0x4u     /* a clock that jumps to the next timer when every worker is idle */
#define HEIST_RUNTIME_DEBUG 0x8u            /* debug mode on every loop */
#define HEIST_RUNTIME_SPARE_THREAD 0x10u    /* one thread more, which works only while a worker is stuck; see below */
#define HEIST_RUNTIME_NO_DEBUG 0x20u        /* no debug mode, whatever the environment variable HEIST_DEBUG says */
#define HEIST_RUNTIME_SIGINT 0x40u          /* heist_run and heist_runner_new: SIGINT cancels main, a second one ends */

struct heist_runtime_options {
    size_t size;
    unsigned flags;
    int workers;          /* 0: one for each available CPU (affinity mask and cgroup quota) */
    size_t stack_bytes;   /* default of its tasks; 0: 64 KiB */
    size_t max_tasks;     /* live tasks beyond which create is -EAGAIN; 0: no limit */
    size_t max_inbox;     /* callbacks waiting in one loop's inbox beyond which a submit is -EAGAIN; 0: none */
    const char *name;     /* for thread names and reports; copied */
    heist_exception_handler exception_handler; /* of every loop; NULL: the default */
    void *exception_user;
    double stuck_after;   /* seconds that a task or callback may hold its worker before it is reported; 0: never */
    int stuck_signal;     /* the signal by which a report gets the stack; 0: none, and no stack */
    int backend;          /* HEIST_BACKEND_…: how its loops wait for descriptors; see below */
};
#define HEIST_RUNTIME_OPTIONS_INIT {sizeof(heist_runtime_options), 0, 0, 0, 0, 0, NULL, NULL, NULL, 0, 0, 0}

/* How the loops wait for descriptors, and for the disk.
 *
 * HEIST_BACKEND_AUTO takes what the environment variable HEIST_BACKEND says (epoll, io_uring, or uring for short), else
 * epoll.  With HEIST_BACKEND_IO_URING each loop has a ring, where the kernel allows that (Linux 5.18, no filter in
 * front of it); elsewhere it is epoll all the same, and heist_loop_backend tells.  A ring costs a loop some 100 KiB.
 * Reads, writes, opens, stats and syncs of heist/file.h then go through it instead of the executor.  The kernel does a
 * part of a ring's work on the thread that asked for it: blocking calls there that the kernel does not restart
 * (epoll_wait, recv with SO_RCVTIMEO) may end with EINTR without any signal; a worker that stands in the kernel and
 * cannot be interrupted also delays what its ring waits for; and a socket that another worker closes may reach its peer
 * a moment later. */
#define HEIST_BACKEND_AUTO 0
#define HEIST_BACKEND_EPOLL 1
#define HEIST_BACKEND_IO_URING 2

/* To be added to HEIST_BACKEND_IO_URING, or in the environment (io_uring,accept,recv): what the kernel does by one
 * request of many shots (Linux 6.0; before that as without them), instead of telling when it can be done.  The calls and
 * their outcomes are the same; it is not always the quicker way (docs/performance.md), so neither is the default.
 * ACCEPT: a listener on which somebody has waited goes on accepting while nobody does: up to 64 connections have their
 * descriptors before they are asked for.  Those that nobody asks for are closed with it.  Not of sockets that
 * a server has been given.  The limit on descriptors is that of the moment when it began to wait.
 * RECV: streams over sockets read into buffers of their loop's ring (2 MiB of address space for each, used as needed),
 * up to 64 KiB ahead of what is asked for.  Bytes that stand there cannot be seen at the descriptor (HEIST_INFO_SOCKET). */
#define HEIST_BACKEND_FEED_ACCEPT 0x100
#define HEIST_BACKEND_FEED_RECV 0x200

/* A task or callback that computes or blocks without telling holds its worker.
 *
 * With several workers the others serve what is behind it: its queued tasks, its due timers of tasks, its ready
 * descriptors.  Callbacks and pinned tasks of that loop wait.  With one worker, or when all are held,
 * HEIST_RUNTIME_SPARE_THREAD has a thread do that, and only that: it sleeps as long as nothing runs, looks twice a
 * millisecond while something does, takes over when a worker has stood still for about a millisecond, and hands back
 * when it moves on.  Tasks that it runs see the held worker's loop as the running loop, so what they post and pin
 * runs there, later.  Two tasks of a runtime of one worker may then run at the same time: while one of them holds
 * the worker.
 *
 * stuck_after > 0 asks for a report while it lasts, once for each time: the loop's exception handler is called by
 * another thread of the runtime, also while a callback or the handler itself runs on that loop, with
 *     message  "a worker is stuck in a task" or "a worker is stuck in a callback"
 *     seconds  how long, at least
 *     name, future, file, line   of the task, and where it was made
 *     extra    "worker", its index; "function" of a callback; "stack", where it stands, when there is a stuck_signal
 * and loop is the one that is held.  The thread that looks is a worker that sleeps or comes by; when there is none,
 * the spare thread, which stuck_after makes too (with one worker and without HEIST_RUNTIME_SPARE_THREAD it reports,
 * and takes nothing over).
 *
 * stuck_signal is a signal that the program uses for nothing else (SIGRTMIN + n, say).  The runtime installs a handler
 * for it, passes on what is not its own, takes it out at its end, and sends it to the stuck thread alone.  It unblocks
 * the signal on its workers.  A system call of the stuck task may end with EINTR by it, if it is one that SA_RESTART
 * does not cover (nanosleep, poll, and others).  The frames of "stack" are separated by newlines: function and offset
 * where the object's dynamic symbols tell, else object and offset (for addr2line).
 *
 * Neither has an effect in virtual time, where no time passes while a task computes.  On heist_loop_new both are
 * -EINVAL: its one thread is the caller's. */

/* Debug mode.  HEIST_RUNTIME_DEBUG switches it on for every loop, HEIST_RUNTIME_NO_DEBUG off; with neither it is on
 * when the environment variable HEIST_DEBUG is set, not empty and not 0.  heist_loop_set_debug changes one loop, at any
 * time, heist_runtime_set_debug all of a runtime.
 *
 * SIGINT.  The library touches no disposition unless asked to.  With HEIST_RUNTIME_SIGINT, and when the disposition is
 * SIG_DFL, the first SIGINT cancels main, by a callback on the first loop, and if main then ends cancelled, and nobody
 * else had asked, the call returns -EINTR; a second one ends the process as if nobody had handled it.  SIG_DFL is back
 * when main and what it left behind have ended.  Where the program has a handler of its own, or another main has the
 * signal, nothing changes.  Workers block signals: another thread takes it, the one that called heist_run at least. */

/* asyncio.run: makes a runtime, whose worker 0 is the calling thread, runs `main_fn(arg, out)` as its first
 * task, then cancels what is left, closes everything and returns what main returned.
 * Context: a plain thread that runs no loop.  Blocks.  Errors: main's code, and those of heist_runtime_new,
 * HEIST_EOTHERRUNNING, -EINTR (HEIST_RUNTIME_SIGINT).  With workers = 1 there is no hidden thread. */
HEIST_API int heist_run(heist_coro_fn main_fn, void *arg, const heist_runtime_options *opts, void **out);

/* A runtime on threads of its own, for a program that lives elsewhere.
 * Context: any.  Suspends: never.  Ownership: *out is one reference; close, then unref (which never joins).
 * Errors: -EINVAL, -ENOMEM, -EAGAIN (threads), -EMFILE, -ENFILE, HEIST_EFORKED; nothing is left behind. */
HEIST_API int heist_runtime_new(const heist_runtime_options *opts, heist_runtime **out) HEIST_NODISCARD;
HEIST_API heist_runtime *heist_runtime_ref(heist_runtime *rt);
HEIST_API void heist_runtime_unref(heist_runtime *rt);

/* Without the spare thread.  Context: any.  Suspends: never. */
HEIST_API int heist_runtime_workers(const heist_runtime *rt);
/* The loop of worker `index`; borrowed while the runtime is referenced.  NULL when there is no such worker. */
HEIST_API heist_loop *heist_runtime_loop(heist_runtime *rt, int index);
/* heist_loop_set_debug for every loop.  Context: any.  Suspends: never.  Errors: -EINVAL. */
HEIST_API int heist_runtime_set_debug(heist_runtime *rt, int on);
/* The runtime of a loop; borrowed. */
HEIST_API heist_runtime *heist_loop_runtime(heist_loop *loop);

/* The two doors to the whole runtime instead of one loop: any worker may run it.  Callbacks of one
 * submitting thread keep no order among each other here.  Otherwise as the forms for loops. */
HEIST_API int heist_runtime_call_soon(heist_runtime *rt, heist_callback_fn fn, void *arg,
                                      const heist_call_options *opts, heist_handle **out);
#define heist_runtime_run_coroutine(rt, fn, arg, opts, out)                                                            \
    heist_runtime_run_coroutine_at(__FILE__, __LINE__, (rt), (fn), (arg), (opts), (out))
HEIST_API int heist_runtime_run_coroutine_at(const char *file, int line, heist_runtime *rt, heist_coro_fn fn, void *arg,
                                             const heist_task_options *opts, heist_task **out);

/* Closes: from now on submissions are HEIST_ECLOSED, live tasks are asked to cancel (once), and when all
 * have ended the workers stop and are joined; callbacks that did not run are cancelled.  `timeout` seconds
 * (HEIST_FOREVER: wait as long as it takes); on -ETIMEDOUT what still runs is reported to the exception
 * handler (called by this thread), nothing is freed under it, and the call may be repeated.
 * Context: a plain thread, or a task of another runtime (which it blocks).  Idempotent.
 * Errors: -EDEADLK from one of its own workers, -ETIMEDOUT, -EINVAL. */
HEIST_API int heist_runtime_close(heist_runtime *rt, double timeout);

/* Counters of one worker, a snapshot that costs the worker nothing. */
typedef struct heist_worker_stats {
    size_t size;
    uint64_t steps;      /* task steps run */
    uint64_t stolen;     /* tasks taken from other workers */
    uint64_t callbacks;  /* callbacks run */
    uint64_t timers;     /* timers fired */
    uint64_t io_events;  /* descriptor events */
    uint64_t inbox;      /* submissions that came through the inbox or the injection queue */
    uint64_t sleeps;     /* times it went to sleep */
    uint64_t wakeups;    /* wake-ups that it sent to others */
    uint64_t queue;      /* tasks waiting in its deque now */
    double busy_seconds; /* processor time of the thread, 0 when it cannot be read */
} heist_worker_stats;
#define HEIST_WORKER_STATS_INIT {sizeof(heist_worker_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
/* The index after the last worker's stands for the spare thread, if there is one.
 * Context: any.  Suspends: never.  Errors: -EINVAL. */
HEIST_API int heist_runtime_stats(heist_runtime *rt, int worker, heist_worker_stats *out);
/* Tasks of the runtime that are not done. */
HEIST_API size_t heist_runtime_task_count(heist_runtime *rt);

HEIST_END_DECLS

#endif
