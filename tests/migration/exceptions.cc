// C++ exceptions in flight while their task moves to another thread.
//
// The C++ runtime keeps what is caught and how many are in flight per thread; heist moves
// both with the coroutine.  One traveller moves by force, inside a catch block, inside
// nested ones, and inside destructors that run while the stack is unwound; then a crowd of
// tasks that throw, catch, rethrow and yield everywhere mixes on all workers.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "migrate.h"

namespace {

const int moves = 8;

int in_flight() { return std::uncaught_exceptions(); }

struct numbered : std::runtime_error {
    int number;
    explicit numbered(int n) : std::runtime_error("number " + std::to_string(n)), number(n) {}
};

// ---- in a catch block ----

void caught_stays_caught() {
    for (int i = 0; i < moves; i++) {
        try {
            throw numbered(i);
        } catch (numbered &e) {
            MIGRATE_CHECK(migrate() == 0);
            MIGRATE_CHECK(e.number == i && e.what() == "number " + std::to_string(i));
            MIGRATE_CHECK(in_flight() == 0);
            std::exception_ptr current = std::current_exception();
            MIGRATE_CHECK(current != nullptr);
            try {
                std::rethrow_exception(current);
            } catch (numbered &again) {
                MIGRATE_CHECK(&again == &e);
            }
        }
        MIGRATE_CHECK(std::current_exception() == nullptr);
    }
}

void rethrow_finds_the_right_one() {
    for (int i = 0; i < moves; i++) {
        bool outer = false, inner = false;
        try {
            try {
                throw numbered(i);
            } catch (numbered &) {
                MIGRATE_CHECK(migrate() == 0);
                try {
                    throw numbered(i + 100);
                } catch (numbered &second) {
                    MIGRATE_CHECK(migrate() == 0);
                    inner = second.number == i + 100;
                }
                MIGRATE_CHECK(migrate() == 0);
                throw; // the first: the one that is caught now
            }
        } catch (numbered &e) {
            outer = e.number == i;
        }
        MIGRATE_CHECK(inner && outer);
        MIGRATE_CHECK(std::current_exception() == nullptr && in_flight() == 0);
    }
}

// ---- in a destructor, while the stack is unwound ----

struct moves_when_it_ends {
    int *ended, expected;
    moves_when_it_ends(int *count, int in_flight_then) : ended(count), expected(in_flight_then) {}
    moves_when_it_ends(const moves_when_it_ends &) = delete;
    ~moves_when_it_ends() {
        MIGRATE_CHECK(in_flight() == expected);
        MIGRATE_CHECK(migrate() == 0);
        MIGRATE_CHECK(in_flight() == expected);
        try { // a whole life of another one meanwhile
            throw numbered(-1);
        } catch (numbered &e) {
            MIGRATE_CHECK(migrate() == 0);
            MIGRATE_CHECK(e.number == -1 && in_flight() == expected);
        }
        ++*ended;
    }
};

__attribute__((noinline)) void throw_through(int depth, int *ended) {
    moves_when_it_ends guard(ended, 1);
    if (depth == 0) throw numbered(42);
    throw_through(depth - 1, ended);
}

void unwinding_goes_on_elsewhere() {
    int ended = 0;
    try {
        throw_through(3, &ended);
        MIGRATE_CHECK(!"an exception was lost");
    } catch (numbered &e) {
        MIGRATE_CHECK(e.number == 42 && ended == 4 && in_flight() == 0);
        MIGRATE_CHECK(migrate() == 0);
    }
    MIGRATE_CHECK(std::current_exception() == nullptr && in_flight() == 0);
    {
        moves_when_it_ends quiet(&ended, 0);
    }
    MIGRATE_CHECK(ended == 5);
}

// ---- a task that is awaited from a catch block, before it has begun ----

int finds_none(void *arg, void **) {
    MIGRATE_CHECK(std::current_exception() == nullptr && in_flight() == 0);
    bool caught = false;
    try {
        throw numbered(1);
    } catch (numbered &) {
        caught = migrate() == 0;
    }
    *static_cast<bool *>(arg) = caught && std::current_exception() == nullptr;
    return 0;
}

void await_one() {
    heist_task *task;
    bool fine = false;
    MIGRATE_CHECK(heist_create_task(finds_none, &fine, nullptr, &task) == 0);
    MIGRATE_CHECK(heist_await(task, nullptr) == 0 && fine);
    heist_unref(task);
}

struct awaits_when_it_ends {
    ~awaits_when_it_ends() {
        MIGRATE_CHECK(in_flight() == 1);
        await_one();
        MIGRATE_CHECK(in_flight() == 1);
    }
};

void awaited_tasks_begin_without() {
    await_one();
    try {
        awaits_when_it_ends guard;
        throw numbered(5);
    } catch (numbered &e) {
        await_one();
        MIGRATE_CHECK(e.number == 5 && std::current_exception() != nullptr);
    }
}

// ---- a generator's body, nested in a task: each has its own, and both move ----

int throws_and_yields(heist_generator *self, void *, void **) {
    MIGRATE_CHECK(std::current_exception() == nullptr && in_flight() == 0); // not its driver's
    for (int i = 0; i < moves; i++) {
        try {
            throw numbered(1000 + i);
        } catch (numbered &e) {
            MIGRATE_CHECK(migrate() == 0); // the driver waits below, in its own catch block
            int err = heist_generator_yield(self, &e.number, nullptr);
            if (err) return err;
            MIGRATE_CHECK(e.number == 1000 + i && std::current_exception() != nullptr);
        }
        MIGRATE_CHECK(std::current_exception() == nullptr);
        int err = heist_generator_yield(self, nullptr, nullptr);
        if (err) return err;
    }
    return 0;
}

void a_body_has_its_own() {
    heist_generator *g;
    void *value;
    int err = 0, seen = 0;
    MIGRATE_CHECK(heist_generator_new(throws_and_yields, nullptr, nullptr, &g) == 0);
    for (;;) {
        try {
            throw numbered(seen);
        } catch (numbered &e) { // while the body has none, and while it has one
            err = heist_generator_next(g, &value);
            MIGRATE_CHECK(e.number == seen && std::current_exception() != nullptr && in_flight() == 0);
            if (!err && seen % 2) MIGRATE_CHECK(migrate() == 0);
        }
        MIGRATE_CHECK(std::current_exception() == nullptr);
        if (err) break;
        MIGRATE_CHECK(seen % 2 ? value == nullptr : *static_cast<int *>(value) == 1000 + seen / 2);
        seen++;
    }
    MIGRATE_CHECK(err == HEIST_ESTOP && seen == 2 * moves);
    heist_generator_unref(g);
}

// ---- a crowd ----

const int crowd_size = 48;

int yields(unsigned *random) {
    *random = *random * 1664525u + 1013904223u;
    return static_cast<int>(*random >> 30);
}

void give_way(unsigned *random) {
    for (int n = yields(random); n > 0; n--) MIGRATE_CHECK(heist_yield() == 0);
}

struct yields_when_it_ends {
    unsigned *random;
    int expected;
    yields_when_it_ends(unsigned *r, int e) : random(r), expected(e) {}
    yields_when_it_ends(const yields_when_it_ends &) = delete;
    ~yields_when_it_ends() {
        MIGRATE_CHECK(in_flight() == expected);
        give_way(random);
        MIGRATE_CHECK(in_flight() == expected);
    }
};

void nest(int id, int depth, unsigned *random) {
    int number = id * 100 + depth;
    try {
        yields_when_it_ends guard(random, 1);
        throw numbered(number);
    } catch (numbered &e) {
        give_way(random);
        MIGRATE_CHECK(e.number == number);
        if (depth > 0) nest(id, depth - 1, random);
        MIGRATE_CHECK(e.number == number && in_flight() == 0);
        try {
            give_way(random);
            throw;
        } catch (numbered &again) {
            MIGRATE_CHECK(again.number == number);
        }
    }
}

int crowd_member(void *arg, void **) {
    int id = *static_cast<int *>(arg);
    unsigned random = static_cast<unsigned>(id) * 7919u + 1;
    MIGRATE_CHECK(std::current_exception() == nullptr && in_flight() == 0);
    for (int i = 0; i < 20; i++) {
        nest(id, i % 4, &random);
        MIGRATE_CHECK(std::current_exception() == nullptr && in_flight() == 0);
    }
    return 0;
}

int crowd(void *, void **) {
    heist_task *tasks[crowd_size];
    int ids[crowd_size];
    for (int i = 0; i < crowd_size; i++) {
        ids[i] = i;
        MIGRATE_CHECK(heist_create_task(crowd_member, &ids[i], nullptr, &tasks[i]) == 0);
    }
    MIGRATE_CHECK(heist_gather(tasks, crowd_size, nullptr, 0) == 0);
    for (heist_task *task : tasks) heist_unref(task);
    return 0;
}

int traveller(void *, void **) {
    MIGRATE_CHECK(std::current_exception() == nullptr && in_flight() == 0);
    caught_stays_caught();
    rethrow_finds_the_right_one();
    unwinding_goes_on_elsewhere();
    awaited_tasks_begin_without();
    a_body_has_its_own();
    return 0;
}

int run(heist_coro_fn fn, int workers) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = workers;
    return heist_run(fn, nullptr, &opts, nullptr);
}

struct runs_when_it_ends {
    ~runs_when_it_ends() {
        MIGRATE_CHECK(in_flight() == 1);
        MIGRATE_CHECK(run(crowd, 2) == 0);
        MIGRATE_CHECK(in_flight() == 1);
    }
};

} // namespace

int main() {
    MIGRATE_CHECK(run(traveller, 2) == 0);
    for (int workers = 1; workers <= 4; workers *= 2) MIGRATE_CHECK(run(crowd, workers) == 0);
    // The host's own: a runtime that is run from a catch block and from a destructor in flight.
    try {
        runs_when_it_ends guard;
        throw numbered(7);
    } catch (numbered &) {
        MIGRATE_CHECK(run(traveller, 2) == 0);
        try {
            throw;
        } catch (numbered &e) {
            MIGRATE_CHECK(e.number == 7);
        }
    }
    MIGRATE_CHECK(std::current_exception() == nullptr && in_flight() == 0);
    return 0;
}
