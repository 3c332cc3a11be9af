/* Reading: one buffer, filled by demand.  The tokens stand in stream.h.
 *
 * The buffer is the reader's from enter to leave.  A call takes bytes out of it (start goes forward) only when it is
 * sure of its outcome: a call that is cancelled, or out of time, leaves in the buffer what it had read.  So what a line
 * or a separator needs grows there, up to the limit; read_all grows it beyond that and hands the block itself over.
 * A large read with an empty buffer goes into the caller's memory; readexactly does so too, and puts back what it has
 * when it does not get the rest.
 *
 * A line is lent where it stands.  The zero byte behind it takes the place of the next byte, which `cut` keeps until
 * the next call. */
#include <heist/stream.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "io/fd.h"
#include "net/stream.h"

enum { FIRST_ROOM = 4095, DIRECT = 1024 };

/* ---- the token ---- */

static int enter(heist_stream *s) {
    int err = heist__fd_entry();
    if (err) return err;
    heist__spin_lock(&s->lock);
    if (s->state != HEIST__STREAM_OPEN) err = HEIST_ECLOSED;
    else if (s->reading) err = -EBUSY;
    else s->reading = true;
    heist__spin_unlock(&s->lock);
    if (err) {
        heist__fd_skipped(); /* who tries again for ever must give way */
        return err;
    }
    if (s->is_cut) {
        s->buf[s->start] = s->cut;
        s->is_cut = false;
    }
    return 0;
}

static void leave(heist_stream *s) {
    heist__spin_lock(&s->lock);
    s->reading = false;
    bool last = heist__stream_last(s);
    heist__spin_unlock(&s->lock);
    if (last) heist__stream_gone(s);
    heist__fd_skipped();
}

/* ---- out of the transport ---- */

/* Failures of this call, and not of the connection. */
static bool is_passing(ptrdiff_t err) {
    return err == -ECANCELED || err == HEIST_ECLOSED || err == -EBUSY || err == -ENOMEM || err == -ENOSPC ||
           err == HEIST_EFORKED;
}

/* A code that ends both directions of a connection.  The kernel tells it once, to whoever asks first; to the other
 * direction a connection that broke then looks like one that ended.  (Not -EPIPE: the peer may have ended in order.) */
static bool breaks_both(int err) {
    return err == -ECONNRESET || err == -ETIMEDOUT || err == -ECONNABORTED || err == -EHOSTUNREACH ||
           err == -ENETUNREACH || err == -ENETDOWN || err == -ENETRESET;
}

/* At an end: what a write was told, if that was why. */
static int told_to_writer(heist_stream *s) {
    heist__spin_lock(&s->lock);
    int err = s->error;
    heist__spin_unlock(&s->lock);
    return breaks_both(err) ? err : 0;
}

static ptrdiff_t pull(heist_stream *s, void *buf, size_t size) {
    if (s->read_error) return s->read_error;
    if (s->eof) return 0;
    for (;;) {
        heist__spin_lock(&s->lock);
        bool open = s->state == HEIST__STREAM_OPEN;
        double deadline = s->read_deadline;
        heist__spin_unlock(&s->lock);
        if (!open) return HEIST_ECLOSED;
        ptrdiff_t n = s->ops.read(s->self, buf, size, deadline);
        if (n > 0) return n;
        if (n == -EINTR) continue;
        if (n == 0) {
            n = s->read_error = told_to_writer(s);
            s->eof = n == 0;
        } else if (n == -ETIMEDOUT) /* ours, or the connection's own */
            s->read_error = heist__fd_now() < heist__ns_from_seconds(deadline) ? -ETIMEDOUT : 0;
        else if (!is_passing(n)) s->read_error = (int)n;
        return n;
    }
}

/* Between two pulls of one call: what always has something to read must keep nobody from his turn or from cancelling
 * the call, and the call must not go on beyond its deadline. */
static int between(heist_stream *s) {
    heist__fd_skipped();
    int err = heist__fd_entry();
    if (err) return err;
    heist__spin_lock(&s->lock);
    int64_t deadline = heist__ns_from_seconds(s->read_deadline);
    heist__spin_unlock(&s->lock);
    return deadline != INT64_MAX && heist__fd_now() >= deadline ? -ETIMEDOUT : 0;
}

static size_t buffered(const heist_stream *s) { return s->end - s->start; }

static int resize(heist_stream *s, size_t room) {
    char *block = heist__alloc(room + 1);
    if (!block) return -ENOMEM;
    if (s->buf && s->end > s->start) memcpy(block, s->buf + s->start, s->end - s->start);
    heist__free(s->buf);
    s->buf = block;
    s->room = room;
    s->end -= s->start;
    s->start = 0;
    return 0;
}

/* Reads more into the buffer, which may come to hold `most` bytes, more than it holds now: as heist_stream_read. */
static ptrdiff_t fill(heist_stream *s, size_t most) {
    if (s->read_error) return s->read_error;
    if (s->eof) return 0;
    bool empty = s->start == s->end;
    if (empty) s->start = s->end = 0;
    size_t limit = most > s->limit ? most : s->limit, room = s->room;
    if (!room) room = FIRST_ROOM;
    else if ((empty && s->grow) || buffered(s) == s->room) room = room < limit / 2 ? room * 2 : limit;
    if (room > limit) room = limit;
    if (room > s->room && resize(s, room) && buffered(s) == s->room) return -ENOMEM; /* the old one may still do */
    if (s->end == s->room) {
        memmove(s->buf, s->buf + s->start, buffered(s));
        s->end -= s->start;
        s->start = 0;
    }
    size_t free_room = s->room - s->end;
    ptrdiff_t n = pull(s, s->buf + s->end, free_room);
    if (n > 0) s->end += (size_t)n;
    s->grow = n > 0 && (size_t)n == free_room && empty;
    return n;
}

/* Takes n bytes. */
static void take(heist_stream *s, void *buf, size_t n) {
    memcpy(buf, s->buf + s->start, n);
    s->start += n;
}

/* Lends n bytes, with a zero byte behind them. */
static char *lend(heist_stream *s, size_t n) {
    if (!s->buf) return NULL;
    char *data = s->buf + s->start;
    s->start += n;
    s->cut = s->buf[s->start];
    s->buf[s->start] = 0;
    s->is_cut = true;
    return data;
}

/* ---- the calls ---- */

static ptrdiff_t read_some(heist_stream *s, void *buf, size_t n) {
    if (s->read_error) return s->read_error;
    if (!buffered(s)) {
        if (n >= DIRECT) return pull(s, buf, n);
        ptrdiff_t got = fill(s, n);
        if (got <= 0) return got;
    }
    if (n > buffered(s)) n = buffered(s);
    take(s, buf, n);
    return (ptrdiff_t)n;
}

ptrdiff_t heist_stream_read(heist_stream *s, void *buf, size_t n) {
    if (!s || (!buf && n) || n > PTRDIFF_MAX) return -EINVAL;
    int err = enter(s);
    if (err) return err;
    ptrdiff_t got = n ? read_some(s, buf, n) : 0;
    leave(s);
    return got;
}

int heist_stream_read_all(heist_stream *s, size_t max, void **data, size_t *n) {
    if (!s || !data || !n) return -EINVAL;
    if (!max || max > PTRDIFF_MAX - 1) max = PTRDIFF_MAX - 1;
    int err = enter(s);
    if (err) return err;
    ptrdiff_t got = s->read_error;
    while (!got && buffered(s) <= max) {
        got = fill(s, max + 1); /* one more, to see that it is too much */
        if (got <= 0) break;
        got = between(s);
    }
    if (!got && buffered(s) > max) got = HEIST_ELIMIT;
    if (!got && (s->start || !s->buf)) got = resize(s, s->room ? s->room : 1); /* the block begins with the data */
    if (!got) {
        s->buf[s->end] = 0;
        *data = s->buf;
        *n = s->end;
        s->buf = NULL;
        s->start = s->end = s->room = 0;
        s->grow = false;
    }
    leave(s);
    return (int)got;
}

void heist_stream_data_free(void *data) { heist__free(data); }

/* What a call took out of an empty buffer goes back; without memory for it, the connection has failed. */
static void put_back(heist_stream *s, const char *data, size_t n) {
    if (!n) return;
    size_t left = buffered(s), room = n + left > s->room ? n + left : s->room;
    char *block = heist__alloc(room + 1);
    if (!block) {
        s->read_error = -ENOMEM;
        return;
    }
    memcpy(block, data, n);
    if (left) memcpy(block + n, s->buf + s->start, left);
    heist__free(s->buf);
    s->buf = block;
    s->room = room;
    s->start = 0;
    s->end = n + left;
}

static int read_exactly(heist_stream *s, char *buf, size_t n, size_t *got) {
    if (s->read_error) return s->read_error;
    size_t have = 0;
    ptrdiff_t err = 0;
    bool again = false;
    while (have < n) {
        if (buffered(s)) {
            size_t part = buffered(s) < n - have ? buffered(s) : n - have;
            take(s, buf + have, part);
            have += part;
            continue;
        }
        err = again ? between(s) : 0;
        if (!err) err = n - have >= DIRECT ? pull(s, buf + have, n - have) : fill(s, n - have);
        if (err <= 0) break;
        again = true;
        if (n - have >= DIRECT) have += (size_t)err;
    }
    if (have == n) return 0;
    if (err) {
        put_back(s, buf, have);
        return (int)err;
    }
    if (got) *got = have;
    return HEIST_EINCOMPLETE;
}

int heist_stream_readexactly(heist_stream *s, void *buf, size_t n, size_t *got) {
    if (!s || (!buf && n) || n > PTRDIFF_MAX) return -EINVAL;
    int err = enter(s);
    if (err) return err;
    err = read_exactly(s, buf, n, got);
    leave(s);
    return err;
}

/* Where the first of the separators ends in data[0..size), looked for from `from` on; 0: none.  *length: its own. */
static size_t find_end(const char *data, size_t size, size_t from, const struct iovec *separators, int count,
                       size_t *length) {
    size_t first = 0;
    for (int i = 0; i < count; i++) {
        size_t n = separators[i].iov_len, to = first ? first : size;
        if (to < from || to - from < n) continue;
        const char *at = n == 1 ? memchr(data + from, *(const char *)separators[i].iov_base, to - from)
                                : memmem(data + from, to - from, separators[i].iov_base, n);
        if (!at || (first && (size_t)(at - data) + n >= first)) continue;
        first = (size_t)(at - data) + n;
        *length = n;
    }
    return first;
}

/* 0: *size bytes with their separator are buffered.  HEIST_EINCOMPLETE: the end, and *size bytes without one. */
static int await_separator(heist_stream *s, const struct iovec *separators, int count, size_t *size) {
    if (s->read_error) return s->read_error;
    size_t longest = 0, seen = 0, length = 0;
    bool again = false;
    for (int i = 0; i < count; i++)
        if (separators[i].iov_len > longest) longest = separators[i].iov_len;
    for (;;) {
        size_t have = buffered(s);
        size_t end = have ? find_end(s->buf + s->start, have, seen, separators, count, &length) : 0;
        seen = have >= longest ? have - longest + 1 : 0; /* it may begin there */
        if (end && end - length <= s->limit) {
            *size = end;
            return 0;
        }
        if (end || seen > s->limit) {
            *size = end ? end - length : seen;
            return HEIST_ELIMIT;
        }
        ptrdiff_t n = again ? between(s) : 0;
        if (!n) n = fill(s, s->limit + longest);
        again = true;
        if (n > 0) continue;
        *size = have;
        return n ? (int)n : HEIST_EINCOMPLETE;
    }
}

ptrdiff_t heist_stream_readline(heist_stream *s, char **line) {
    static const struct iovec newline = {(char *)(uintptr_t) "\n", 1};
    if (!s || !line) return -EINVAL;
    ptrdiff_t err = enter(s);
    if (err) return err;
    size_t size = 0;
    err = await_separator(s, &newline, 1, &size);
    if (err == HEIST_EINCOMPLETE || !err) {
        if (size) *line = lend(s, size);
        err = (ptrdiff_t)size;
    }
    leave(s);
    return err;
}

int heist_stream_readuntil_any(heist_stream *s, const struct iovec *separators, int count, char **data, size_t *size) {
    if (!s || !separators || count < 1 || !data || !size) return -EINVAL;
    for (int i = 0; i < count; i++)
        if (!separators[i].iov_base || !separators[i].iov_len || separators[i].iov_len > PTRDIFF_MAX / 4)
            return -EINVAL;
    int err = enter(s);
    if (err) return err;
    size_t n = 0;
    err = await_separator(s, separators, count, &n);
    if (!err || err == HEIST_EINCOMPLETE) *data = n ? lend(s, n) : (char *)(uintptr_t) "";
    if (!err || err == HEIST_EINCOMPLETE || err == HEIST_ELIMIT) *size = n;
    leave(s);
    return err;
}

int heist_stream_readuntil(heist_stream *s, const void *separator, size_t length, char **data, size_t *size) {
    struct iovec one = {(void *)(uintptr_t)separator, length};
    return heist_stream_readuntil_any(s, &one, 1, data, size);
}

/* ---- questions ---- */

/* Has the token for a moment, when nobody has it. */
static bool look(heist_stream *s, size_t *left, bool *end) {
    heist__spin_lock(&s->lock);
    bool free_now = !s->reading;
    if (free_now) {
        *left = buffered(s);
        *end = s->eof && !s->read_error;
    }
    heist__spin_unlock(&s->lock);
    return free_now;
}

int heist_stream_at_eof(heist_stream *s) {
    if (!s) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    size_t left;
    bool end;
    return look(s, &left, &end) && end && !left;
}

size_t heist_stream_buffered(heist_stream *s) {
    size_t left = 0;
    bool end;
    return s && !heist__forked() && look(s, &left, &end) ? left : 0;
}
