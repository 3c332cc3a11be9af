// What heist-tlscheck must find in C++, where control also goes by exceptions.  The names
// say what is expected, as in planted.c.
#include <heist.h>
#include <stdexcept>

extern "C" {
extern thread_local int counter;
int *fresh_counter();
void may_throw(int n);
int bad_catch(int n);
int hoisted_cleanup(int n);
int bad_method(int n);
int bad_lambda(int n);
int good_catch(int n);
int good_rethrow(int n);
int hoisted_errno(int n);
}

namespace {
struct keeper {
    int *place;
    explicit keeper(int *p) : place(p) {}
    keeper(const keeper &) = delete;
    ~keeper() { ++*place; }
};
} // namespace

thread_local int counter;

__attribute__((noinline)) int *fresh_counter() {
    int *p = &counter;
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

int bad_catch(int n) {
    int *p = fresh_counter();
    int err = 0;
    try {
        err = heist_yield();
        may_throw(n);
    } catch (const std::exception &) {
        ++*p;
    }
    return err;
}

/* Without optimisation the address goes into the object by its constructor, out of sight. */
int hoisted_cleanup(int n) {
    keeper k(fresh_counter());
    int err = heist_yield();
    may_throw(n);
    return err;
}

int bad_method(int n) {
    struct holder {
        int *p;
        __attribute__((noinline)) static int wait(int n) { return n ? heist_yield() : 0; }
    } h{fresh_counter()};
    int err = holder::wait(n);
    return *h.p + err;
}

int bad_lambda(int n) {
    int *p = fresh_counter();
    auto waits = [n] { return heist_sleep(n); };
    int err = waits();
    return *p + err;
}

int good_catch(int n) {
    int err = 0;
    try {
        int *p = fresh_counter();
        ++*p;
        may_throw(n);
        err = heist_yield();
    } catch (const std::exception &) {
        ++*fresh_counter();
    }
    return err;
}

int good_rethrow(int n) {
    try {
        may_throw(n);
        return heist_yield();
    } catch (...) {
        ++*fresh_counter();
        throw;
    }
}

int hoisted_errno(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        errno = 0;
        if (heist_sleep(1) < 0) sum += errno;
    }
    return sum;
}
