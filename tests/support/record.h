/* support/record.h: what tasks and callbacks saw, asserted later.
 *
 * A failed assertion of cmocka leaves by longjmp and may happen only on the test's
 * own thread, outside the runtime.  So everything that runs inside writes words into
 * a record, and the test's body compares the whole sentence afterwards.  Every call
 * may be made from any thread; the lock is a leaf and is never held across a
 * suspension. */
#ifndef HEIST_TEST_RECORD_H
#define HEIST_TEST_RECORD_H

#include <heist.h>
#include <pthread.h>
#include <stdbool.h>

/* Words in the order of their arrival, separated by single spaces. */
struct record {
    pthread_mutex_t lock;
    char text[8192];
    size_t length;
    int words;
};
#define RECORD_INIT {.lock = PTHREAD_MUTEX_INITIALIZER}

/* Appends one formatted word; what does not fit any more is dropped, and the words are still counted. */
void record_add(struct record *record, const char *format, ...) HEIST_PRINTF_LIKE(2, 3);
/* The sentence so far.  Call it when nobody writes any more. */
const char *record_text(struct record *record);
int record_words(struct record *record);
void record_clear(struct record *record);

/* One word and where it goes: an argument for the callbacks below. */
struct mark {
    struct record *record;
    const char *word;
    heist_loop *loop; /* for mark_and_stop */
};
int mark_word(void *mark);     /* a heist_callback_fn */
int mark_and_stop(void *mark); /* the same, and stops mark->loop */
void mark_free(void *mark);    /* a heist_free_fn that records "free:<word>" */

/* An exception handler whose user pointer is a record: adds "<code>" or "<code>:<text>". */
void record_report(heist_loop *loop, const heist_report *report, void *record);

/* A gate that stays open once opened; blocks the operating system's thread. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool open;
};
#define GATE_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false}
void gate_open(struct gate *gate);
void gate_wait(struct gate *gate);
bool gate_is_open(struct gate *gate);

#endif
