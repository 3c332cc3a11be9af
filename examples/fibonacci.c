/* fibonacci: a generator, driven by hand until it says that it has ended; its return value is asked for then.
 *
 * Nothing here needs a loop or a runtime: a step is a switch to the body's own stack and back. */
#include <heist.h>
#include <stdio.h>

static char done[] = "done";
static const char *const state_name[] = {"created", "running", "suspended", "closed"};

static int fib(heist_generator *self, void *arg, void **out) {
    long a = 0, b = 1;
    for (int n = 0; n < *(int *)arg; n++) {
        int err = heist_generator_yield(self, &b, NULL); /* it stands in this frame until the next step */
        if (err < 0) return err;
        long next = a + b;
        a = b;
        b = next;
    }
    *out = done;
    return 0;
}

int main(void) {
    int max = 6, err;
    heist_generator *f;
    void *value;
    if (heist_generator_new(fib, &max, NULL, &f) < 0) return 1;
    printf("%s\n", state_name[heist_generator_state(f)]);
    while ((err = heist_generator_next(f, &value)) == 0) printf("%ld\n", *(long *)value);
    if (err == HEIST_ESTOP && heist_generator_result(f, &value) == 0)
        printf("generator return value: %s\n", (const char *)value);
    printf("%s\n", state_name[heist_generator_state(f)]);
    heist_generator_unref(f);

    /* All that is left of one; here it is broken off, which closes it. */
    max = 100;
    if (heist_generator_new(fib, &max, NULL, &f) < 0) return 1;
    heist_foreach (value, f, &err) {
        if (*(long *)value > 50) break;
        printf("%ld ", *(long *)value);
    }
    printf("and %s\n", state_name[heist_generator_state(f)]);
    heist_generator_unref(f);
    return 0;
}
