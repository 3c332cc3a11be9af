/* What heist-tlscheck must find, and what it must leave alone.
 *
 * The name of a function says what becomes of it:
 *   bad_      a finding in every mode
 *   open_     a finding without optimisation; with it the compiler may take the address anew,
 *             and then the code is right, or keep it
 *   free_     with optimisation the compiler may keep the address by itself
 *   hoisted_  no finding without optimisation; with it the compiler does so
 *   good_     never a finding
 * This file is compiled and read, not run. */
#include <errno.h>
#include <heist.h>
#include <pthread.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))

_Thread_local int counter;
_Thread_local int table[64];
extern _Thread_local int elsewhere;
int *leak;
void *volatile sink;
void consume(int *p);
void refresh(int **p);
int work(void);
int open_errno(void), bad_loop(int n), open_loop(int n), bad_stack_slot(void), open_inlined(void), bad_by_function(void),
    bad_through_helper(void), bad_one_branch(int n), bad_switch(int n), open_element(int i), open_extern(void),
    bad_two(void), bad_stored(void), bad_gather(heist_task **t), bad_compared(int *other), bad_twice(void),
    bad_deep(int n), bad_many_registers(int a, int b, int c, int d), bad_late_use(int n), bad_cast(void);
int *bad_returned(void);
pthread_t open_self(void);
void bad_passed(void), bad_struct(void);
int hoisted_errno(int n), free_two_selves(pthread_t other);
int good_value(void), good_used_before(void), good_no_suspension(heist_task *t), good_taken_again(void),
    good_rewritten(void), good_branches(int n), good_frame(void), good_loop(int n), good_direct(void),
    good_switch(int n), good_after_only(void), good_noreturn(int n), good_callee_saved(int a, int b, int c);
void good_setter(int n);
int *fresh_counter(void);
int *fresh_errno(void);

/* Taken afresh by whoever calls: what the guide recommends. */
NOINLINE int *fresh_counter(void) {
    int *p = &counter;
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}
NOINLINE int *fresh_errno(void) {
    int *p = &errno;
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

/* ---- to be found ---- */

int open_errno(void) {
    int *e = &errno;
    if (heist_sleep(1) < 0) return -1;
    return *e;
}

int bad_loop(int n) {
    int *p = fresh_counter(), sum = 0;
    for (int i = 0; i < n; i++) {
        ++*p;
        sum += heist_yield();
    }
    return sum;
}

int open_loop(int n) {
    int *p = &counter, sum = 0;
    for (int i = 0; i < n; i++) {
        ++*p;
        sum += heist_yield();
    }
    return sum;
}

int bad_stack_slot(void) {
    int *volatile kept = &counter;
    int err = heist_yield();
    *kept = 7;
    return err;
}

static inline int *inlined_address(void) { return &table[3]; }

int open_inlined(void) {
    int *p = inlined_address();
    int err = heist_yield();
    return *p + err;
}

int bad_by_function(void) {
    int *p = fresh_counter();
    int err = heist_yield();
    return *p + err;
}

static NOINLINE int helper(double seconds) { return work() ? heist_sleep(seconds) : 0; }
static NOINLINE int helper_of_helper(void) { return helper(0.5) + work(); }

int bad_through_helper(void) {
    int *e = &errno;
    int err = helper_of_helper();
    return *e + err;
}

int bad_one_branch(int n) {
    int *p = fresh_counter();
    if (n > 3) {
        if (heist_yield() < 0) return -1;
    } else {
        work();
    }
    return *p;
}

int bad_switch(int n) {
    int *p = fresh_errno(), err = 0;
    switch (n) {
        case 0: err = work(); break;
        case 1: err = work() + 11; break;
        case 2: err = heist_yield(); break;
        case 3: err = work() * 5; break;
        case 4: err = 99; break;
        case 5: err = work() / 3; break;
        case 6: consume(&err); break;
        case 7: err = work() - 1; break;
        default: err = n;
    }
    return *p + err;
}

int open_element(int i) {
    int *p = &table[i];
    int err = heist_sleep_until(3);
    return *p + err;
}

int open_extern(void) {
    int *p = &elsewhere;
    int err = heist_yield();
    return *p + err;
}

int bad_two(void) {
    int *a = fresh_counter(), *b = fresh_errno();
    int err = heist_yield();
    return *a + *b + err;
}

int bad_stored(void) {
    int *p = fresh_counter();
    int err = heist_yield();
    leak = p;
    return err;
}

int bad_gather(heist_task **t) {
    int *e = fresh_errno();
    int err = heist_gather(t, 3, NULL, 0);
    if (err) *e = 0;
    return err;
}

int bad_compared(int *other) {
    int *p = fresh_counter();
    int err = heist_yield();
    return p == other ? err : 1;
}

int bad_twice(void) {
    int *p = fresh_counter();
    int a = heist_yield();
    int b = heist_yield();
    return *p + a + b;
}

int bad_deep(int n) {
    int *p = fresh_counter();
    char area[300];
    memset(area, n, sizeof(area));
    sink = area;
    int err = heist_yield();
    return *p + area[n & 255] + err;
}

int bad_many_registers(int a, int b, int c, int d) {
    int *p = fresh_counter();
    int e = work(), f = work(), g = work(), h = work();
    int err = heist_yield();
    return a + b * e + c * f + d * g + h * err + *p;
}

int bad_late_use(int n) {
    int *p = fresh_counter(), sum = 0;
    if (heist_yield() < 0) return 0;
    for (int i = 0; i < n; i++) sum += work();
    if (sum > 10) *p = sum;
    return sum;
}

int bad_cast(void) {
    uintptr_t address = (uintptr_t)fresh_counter();
    int err = heist_yield();
    return *(int *)(address + 4) + err;
}

int *bad_returned(void) {
    int *p = fresh_counter();
    return heist_yield() < 0 ? NULL : p;
}

pthread_t open_self(void) {
    pthread_t me = pthread_self();
    return heist_yield() < 0 ? 0 : me;
}

void bad_passed(void) {
    int *p = fresh_errno();
    if (heist_yield() == 0) consume(p);
}

struct pair {
    int *a;
    long b;
};

void bad_struct(void) {
    volatile struct pair pair = {fresh_errno(), work()};
    if (heist_yield() == 0) consume(pair.a);
}

/* ---- found where the compiler keeps the address ---- */

int hoisted_errno(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        errno = 0;
        if (heist_sleep(1) < 0) sum += errno;
    }
    return sum;
}

int free_two_selves(pthread_t other) {
    int before = pthread_equal(pthread_self(), other);
    int err = heist_yield();
    return before + pthread_equal(pthread_self(), other) + err;
}

/* ---- to be left alone ---- */

int good_value(void) {
    int value = errno, c = counter;
    int err = heist_sleep(1);
    return value + c + err;
}

int good_used_before(void) {
    int *p = fresh_counter();
    ++*p;
    consume(p);
    return heist_yield();
}

int good_no_suspension(heist_task *t) {
    int *e = &errno;
    int n = heist_cancel(t) + heist_future_done(t);
    return *e + n;
}

int good_taken_again(void) {
    int *p = fresh_counter();
    ++*p;
    if (heist_yield() < 0) return -1;
    p = fresh_counter();
    return ++*p;
}

int good_rewritten(void) {
    int *p = fresh_counter();
    consume(p);
    if (heist_yield() < 0) return -1;
    refresh(&p);
    return *p;
}

int good_branches(int n) {
    if (n > 0) {
        int *p = fresh_counter();
        return ++*p;
    }
    return heist_yield();
}

int good_frame(void) {
    int here = work();
    int *p = &here;
    consume(p);
    int err = heist_yield();
    return *p + err;
}

int good_loop(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        int *p = fresh_counter();
        sum += ++*p;
        if (heist_yield() < 0) break;
    }
    return sum;
}

#if defined(__x86_64__) && (!defined(__PIC__) || defined(__PIE__))
int good_direct(void) { /* no address is made: each access names the segment */
    counter++;
    int err = heist_yield();
    return counter++ + err;
}
#endif

int good_switch(int n) {
    int *p, err = 0;
    switch (n) {
        case 0: err = heist_yield(); break;
        case 1: err = heist_sleep(1); break;
        case 2: p = fresh_counter(); err = *p; break;
        case 3: p = fresh_errno(); err = *p; consume(p); break;
        case 4: err = work(); break;
        case 5: err = 77; break;
        case 6: err = work() * 3; break;
        default: err = heist_yield();
    }
    return err;
}

int good_after_only(void) {
    int err = heist_yield();
    int *p = fresh_counter();
    return *p + err;
}

int good_noreturn(int n) {
    int *p = fresh_counter();
    if (n) {
        if (heist_yield() < 0) __builtin_trap();
        return 0;
    }
    return *p;
}

int good_callee_saved(int a, int b, int c) {
    int x = work(), y = work();
    int err = heist_yield();
    int *p = fresh_counter();
    return a + b + c + x * y + err + *p;
}

void good_setter(int n) {
    *fresh_errno() = n;
    if (heist_yield() == 0) *fresh_errno() = 0;
}
