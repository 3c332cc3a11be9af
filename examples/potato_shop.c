/* potato_shop: a generator that awaits between its values (APP-13).
 *
 * When the shelf is empty the shop asks for more, and the buyer's whole task waits; the clock on the wall, another
 * task, goes on meanwhile. */
#include <heist.h>
#include <stdio.h>

#define SHELF 4

static int serial, shelf[SHELF], on_shelf;

static int ask_for_potatoes(void) {
    int err = heist_sleep(1);
    if (err < 0) return err;
    while (on_shelf < SHELF) shelf[on_shelf++] = ++serial;
    return 0;
}

static int take_potatoes(heist_generator *self, void *arg, void **out) {
    (void)out;
    for (int count = 0; count < *(int *)arg; count++) {
        if (on_shelf == 0) {
            printf("wait\n");
            int err = ask_for_potatoes();
            if (err < 0) return err;
        }
        int err = heist_generator_yield(self, (void *)(intptr_t)shelf[--on_shelf], NULL);
        if (err < 0) return err;
    }
    return 0;
}

static int tick(void *arg, void **out) {
    (void)arg, (void)out;
    for (;;) {
        int err = heist_sleep(0.45);
        if (err < 0) return err;
        printf("tick\n");
    }
}

static int even(void *potato, void *arg) {
    (void)arg;
    return (intptr_t)potato % 2 == 0;
}

static int buy_potatoes(void *arg, void **out) {
    int wanted = 6, err;
    heist_task *clock;
    heist_generator *shop;
    void *potato;
    (void)arg, (void)out;
    if ((err = heist_create_task(tick, NULL, NULL, &clock)) < 0) return err;
    if ((err = heist_generator_new(take_potatoes, &wanted, NULL, &shop)) == 0) {
        heist_foreach (potato, shop, &err) printf("got potato %d\n", (int)(intptr_t)potato);
        if (err == HEIST_ESTOP) printf("the bucket is full\n"); /* what Python writes behind else */
        heist_generator_unref(shop);
    }
    heist_cancel(clock);
    heist_await(clock, NULL);
    heist_unref(clock);
    if (err != HEIST_ESTOP) return err;

    /* The same as a comprehension with a condition.  Two are left on the shelf. */
    void **bucket;
    size_t n;
    wanted = 2;
    if ((err = heist_generator_new(take_potatoes, &wanted, NULL, &shop)) < 0) return err;
    if ((err = heist_generator_collect(shop, even, NULL, &bucket, &n)) == 0) {
        printf("%zu with an even number\n", n);
        heist_values_free(bucket);
    }
    heist_generator_unref(shop);
    return err;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    if (heist_loop_new(&options, &loop) < 0) return 1;
    int err = heist_loop_run_coroutine(loop, buy_potatoes, NULL, NULL, NULL);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
