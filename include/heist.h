/* heist.h: asyncio for C, on every core.
 *
 * The tour: a *coroutine* is a C function that may suspend.  A *task* runs one by
 * itself and is a *future*, a result that will come.  A *loop* runs callbacks, timers
 * and descriptors on one thread; a *runtime* is N such threads, its workers, which
 * steal tasks from each other.  A *foreign thread* hands work in through two doors,
 * heist_loop_call_soon_threadsafe and heist_run_coroutine_threadsafe, and may await
 * any future as a task does.
 *
 *   heist/base.h     words and attributes       heist/error.h    the codes, heist_fail
 *   heist/runtime.h  run, runtimes, counters    heist/loop.h     callbacks, timers, run and stop
 *   heist/inspect.h  stacks, who waits for whom
 *   heist/future.h   results that will come     heist/task.h     coroutines, sleep, gather
 *   heist/flow.h     wait, limits, shields
 *   heist/channel.h  queues between tasks       heist/net.h      TCP and Unix sockets
 *   heist/context.h  context variables          heist/runner.h   several mains on one runtime
 *   heist/queue.h    with join and shutdown     heist/select.h   the first of several things
 *   heist/watch.h    one value that changes     heist/broadcast.h  each value to every receiver
 *   heist/lock.h     one at a time              heist/rwlock.h   many readers or one writer
 *   heist/event.h    wait for a flag            heist/condition.h  wait under a lock
 *   heist/semaphore.h  n at a time              heist/barrier.h  wait for each other
 *   heist/once.h     the first one does it      heist/waitgroup.h  wait for a count of zero
 *   heist/timeout.h  blocks with a deadline     heist/group.h    tasks that end before a block
 *   heist/generator.h  values on demand         heist/pipeline.h  stages that run ahead
 *   heist/with.h     before and after a block   heist/defer.h    clean-up that always runs
 *   heist/socket.h   your own descriptors       heist/datagram.h UDP and Unix datagrams
 *   heist/executor.h calls that block, on threads beside
 *   heist/resolve.h  names to addresses, and back
 *   heist/stream.h   readers and writers over TCP, pipes, TLS
 *   heist/server.h   a handler for each connection  heist/protocol.h  callbacks over a stream
 *   heist/file.h     files, directories, changes
 *   heist/process.h  programs as children       heist/signal.h   signals, as callbacks and to wait for
 *   heist/alloc.h    another allocator          heist/version.h  numbers */
#ifndef HEIST_H
#define HEIST_H

#include <heist/alloc.h>
#include <heist/barrier.h>
#include <heist/base.h>
#include <heist/broadcast.h>
#include <heist/channel.h>
#include <heist/condition.h>
#include <heist/context.h>
#include <heist/datagram.h>
#include <heist/defer.h>
#include <heist/error.h>
#include <heist/event.h>
#include <heist/executor.h>
#include <heist/file.h>
#include <heist/flow.h>
#include <heist/future.h>
#include <heist/generator.h>
#include <heist/group.h>
#include <heist/lock.h>
#include <heist/inspect.h>
#include <heist/loop.h>
#include <heist/net.h>
#include <heist/once.h>
#include <heist/process.h>
#include <heist/queue.h>
#include <heist/pipeline.h>
#include <heist/protocol.h>
#include <heist/resolve.h>
#include <heist/runner.h>
#include <heist/runtime.h>
#include <heist/rwlock.h>
#include <heist/select.h>
#include <heist/semaphore.h>
#include <heist/server.h>
#include <heist/socket.h>
#include <heist/stream.h>
#include <heist/signal.h>
#include <heist/task.h>
#include <heist/timeout.h>
#include <heist/version.h>
#include <heist/waitgroup.h>
#include <heist/watch.h>
#include <heist/with.h>

#endif
