/* The calling thread's record, and its end.  See self.h. */
#include "conc/self.h"

#include <pthread.h>

static _Thread_local struct heist__self self_record;
static pthread_key_t self_key;
static pthread_once_t self_once = PTHREAD_ONCE_INIT;
static int self_key_error;

void (*heist__self_cleanup)(struct heist__self *self);

HEIST_NOINLINE struct heist__self *heist__self(void) {
    struct heist__self *self = &self_record;
    /* Keeps the address computation here: an inlined or cloned copy could be hoisted over a switch. */
    __asm__ volatile("" : "+r"(self) : : "memory");
    return self;
}

static void on_thread_exit(void *record) {
    struct heist__self *self = record;
    self->registered = false;
    if (heist__self_cleanup) heist__self_cleanup(self);
}

static void make_key(void) { self_key_error = -pthread_key_create(&self_key, on_thread_exit); }

int heist__self_register(struct heist__self *self) {
    if (heist_likely(self->registered)) return 0;
    pthread_once(&self_once, make_key);
    if (self_key_error) return self_key_error;
    int err = pthread_setspecific(self_key, self);
    if (err) return -err;
    self->registered = true;
    return 0;
}
