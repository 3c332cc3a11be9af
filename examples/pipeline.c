/* pipeline: three stages that take a second for each of ten values.  On demand they work one at a time, 30 s in
 * all; behind buffers they overlap, and it takes 12 s.  The values and their order are the same. */
#include <heist.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static int gen_1(heist_generator *self, void *arg, void **out) {
    (void)arg, (void)out;
    for (intptr_t value = 0; value < 10; value++) {
        int err = heist_sleep(1); /* could be a slow request */
        if (err == 0) err = heist_generator_yield(self, (void *)value, NULL);
        if (err < 0) return err;
    }
    return 0;
}

/* The other two: value * factor + term. */
struct line {
    intptr_t factor, term;
};

static int gen_n(heist_generator *self, heist_generator *input, void *arg, void **out) {
    const struct line *l = arg;
    void *value;
    int err;
    (void)out;
    heist_foreach (value, input, &err) {
        if ((err = heist_sleep(1)) < 0) break;
        if ((err = heist_generator_yield(self, (void *)((intptr_t)value * l->factor + l->term), NULL)) < 0) break;
    }
    return err == HEIST_ESTOP ? 0 : err;
}

/* Takes *g, and leaves in its place a buffer over it. */
static int buffered(heist_generator **g) {
    heist_generator *ahead;
    int err = heist_pipeline_buffer(*g, NULL, &ahead);
    if (err < 0) return err;
    heist_generator_unref(*g);
    *g = ahead;
    return 0;
}

static int stage(heist_generator **g, struct line *l) {
    heist_generator *next;
    int err = heist_pipeline_stage(*g, gen_n, l, NULL, &next);
    if (err < 0) return err;
    heist_generator_unref(*g);
    *g = next;
    return 0;
}

static int run(void *arg, void **out) {
    bool ahead = *(bool *)arg;
    struct line twice = {2, 0}, plus_three = {1, 3};
    heist_generator *it;
    void *value;
    (void)out;
    double start = heist_time();
    int err = heist_generator_new(gen_1, NULL, NULL, &it);
    if (err < 0) return err;
    if (ahead) err = buffered(&it);
    if (err == 0) err = stage(&it, &twice);
    if (err == 0 && ahead) err = buffered(&it);
    if (err == 0) err = stage(&it, &plus_three);
    if (err == 0 && ahead) err = buffered(&it);
    if (err == 0) heist_foreach (value, it, &err) printf("%ld ", (long)(intptr_t)value);
    heist_generator_unref(it);
    if (err != HEIST_ESTOP) return err;
    printf("\n%s: %.0f s\n", ahead ? "behind buffers" : "on demand", heist_time() - start);
    return 0;
}

int main(void) {
    for (int i = 0; i < 2; i++) {
        heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
        bool ahead = i;
        options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
        if (heist_run(run, &ahead, &options, NULL) < 0) return EXIT_FAILURE;
    }
    return 0;
}
