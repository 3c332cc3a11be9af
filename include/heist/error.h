/* heist/error.h: the one list of codes.
 *
 * A call that can fail returns 0 or a count, or a negative code: -errno where one
 * fits (-EINVAL, -ENOMEM, -ETIMEDOUT, -ECANCELED …), else one of the codes below.
 * None is a multiple of 256, so that a code that reaches exit() is never 0. */
#ifndef HEIST_ERROR_H
#define HEIST_ERROR_H

#include <errno.h>
#include <heist/base.h>

/*  X(name, number, text)  */
#define HEIST_ERROR_MAP(X)                                                                                             \
    X(HEIST_ENOTINCORO, -10001, "this call may suspend, and a callback cannot")                                        \
    X(HEIST_ENOLOOP, -10002, "no loop runs or is set in this thread")                                                  \
    X(HEIST_EINVALSTATE, -10003, "it is done already, not done yet, or in another state that this call is not for")    \
    X(HEIST_ECLOSED, -10004, "the loop or runtime is closed")                                                          \
    X(HEIST_ERUNNING, -10005, "the loop is running")                                                                   \
    X(HEIST_EOTHERRUNNING, -10006, "another loop is running in this thread")                                           \
    X(HEIST_ESTOPPED, -10007, "the loop was stopped before the future completed")                                      \
    X(HEIST_ESELFAWAIT, -10008, "a task cannot await itself")                                                          \
    X(HEIST_EFORKED, -10009, "this process is a fork of the one that made the object")                                 \
    X(HEIST_EFATAL, -10010, "a fatal condition: ends the run call")                                                    \
    X(HEIST_ESHUTDOWN, -10011, "the channel or queue is shut down, or closed")                                         \
    X(HEIST_EFAILED, -10012, "the body failed without saying why")                                                     \
    X(HEIST_ERESULTTAKEN, -10013, "the result was taken before")                                                       \
    X(HEIST_ENOTSET, -10014, "the context variable has no value here, and no default")                                 \
    X(HEIST_EOTHERCONTEXT, -10015, "the token was made in another context")                                            \
    X(HEIST_ESTOP, -10016, "the generator has no more values")                                                         \
    X(HEIST_EGENEXIT, -10017, "the generator is being closed")                                                         \
    X(HEIST_EIGNOREDCLOSE, -10018, "the generator went on after it was told to close")                                 \
    X(HEIST_ENOTSTARTED, -10019, "a generator that has not begun takes no value")                                      \
    X(HEIST_ELAGGED, -10020, "values were lost: this receiver was too slow")                                           \
    X(HEIST_ENOTACQUIRED, -10021, "the lock is not held")                                                              \
    X(HEIST_EBROKEN, -10022, "the barrier is broken")                                                                  \
    X(HEIST_ENOTASK, -10023, "only a task can do this, and no task calls")                                             \
    X(HEIST_EGROUP, -10024, "tasks of a group failed; the group tells which")                                          \
    X(HEIST_EEXECSHUTDOWN, -10025, "the executor was shut down")                                                       \
    X(HEIST_EBROKENPOOL, -10026, "an initializer of the executor failed")                                              \
    X(HEIST_ENONAME, -10027, "there is no such name")                                                                  \
    X(HEIST_ENOADDRESS, -10028, "the name has no address of that family")                                              \
    X(HEIST_ETRYAGAIN, -10029, "no name server gave an answer; it may later")                                          \
    X(HEIST_ENAMEFAIL, -10030, "the look-up of the name failed, and will again")                                       \
    X(HEIST_ESERVICE, -10031, "there is no such service for this type of socket")                                      \
    X(HEIST_EINCOMPLETE, -10032, "the stream ended before what was asked for had come")                                \
    X(HEIST_ELIMIT, -10033, "the separator, or the end, does not come within the limit")                               \
    X(HEIST_ETLS, -10034, "TLS failed: the handshake, the protocol, or a certificate or key that cannot be used")      \
    X(HEIST_ETLSVERIFY, -10035, "the peer's certificate could not be verified")                                        \
    X(HEIST_ETRUNCATED, -10036, "the stream ended without the peer's goodbye: it was cut off")

HEIST_BEGIN_DECLS

#define HEIST_ERROR_CONSTANT(name, number, text) name = (number),
enum { HEIST_ERROR_MAP(HEIST_ERROR_CONSTANT) };
#undef HEIST_ERROR_CONSTANT

/* The name of a code: "HEIST_ECLOSED", "ENOMEM"; "UNKNOWN" for anything else.
 * Context: any.  Suspends: never.  Ownership: a constant string. */
HEIST_API const char *heist_error_name(int code);

/* One sentence on a code.  Context: any.  Suspends: never.  Ownership: a constant string. */
HEIST_API const char *heist_strerror(int code);

/* Records a message and the place for the failure that the body is about to
 * return, and returns the code: `return heist_fail(-EPROTO, "bad header %d", n);`
 * The record counts only if the body (coroutine or callback) then returns that
 * code; a later record replaces an earlier one.
 * Context: any; outside a body it only returns the code.  Suspends: never. */
#define heist_fail(code, ...) heist_fail_at(__FILE__, __LINE__, (code), __VA_ARGS__)
HEIST_API int heist_fail_at(const char *file, int line, int code, const char *format, ...) HEIST_PRINTF_LIKE(4, 5);

HEIST_END_DECLS

#endif
