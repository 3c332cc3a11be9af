/* consumer_producer: two ways to stand on either side of a generator (APP-13).
 *
 * First the consumer is the generator: the producer sends to it, and each send brings the consumer's answer.  Then the
 * producer is: the consumer asks it for value after value, and a producer that waits between them suspends the task. */
#include <heist.h>
#include <stdio.h>

static char nothing_yet[] = "", ok[] = "200 OK";

static int consumer(heist_generator *self, void *arg, void **out) {
    char *answer = nothing_yet;
    (void)arg, (void)out;
    for (;;) {
        void *n;
        int err = heist_generator_yield(self, answer, &n);
        if (err < 0) return err; /* HEIST_EGENEXIT: the producer has closed it */
        printf("[CONSUMER] Consuming %d...\n", *(int *)n);
        answer = ok;
    }
}

static int produce(heist_generator *c) {
    void *answer;
    int err = heist_generator_next(c, NULL); /* to the first yield: only there can something be sent */
    for (int n = 1; n <= 5 && err == 0; n++) {
        printf("[PRODUCER] Producing %d...\n", n);
        err = heist_generator_send(c, &n, &answer);
        if (err == 0) printf("[PRODUCER] Consumer return: %s\n", (const char *)answer);
    }
    return err == 0 ? heist_generator_close(c) : err;
}

/* ---- the other way round ---- */

static int producer(heist_generator *self, void *arg, void **out) {
    (void)arg, (void)out;
    for (int n = 1; n <= 4; n++) {
        printf("[PRODUCER] Producing %d...\n", n);
        int err = heist_sleep(0.01);
        if (err == 0) err = heist_generator_yield(self, &n, NULL);
        if (err < 0) return err;
    }
    return 0;
}

static int consume(void *arg, void **out) {
    heist_generator *p;
    void *n;
    (void)arg, (void)out;
    int err = heist_generator_new(producer, NULL, NULL, &p), count = 0;
    if (err < 0) return err;
    heist_foreach (n, p, &err) {
        printf("[CONSUMER] Consuming %d...\n", *(int *)n);
        count++;
    }
    heist_generator_unref(p);
    if (err != HEIST_ESTOP) return err;
    printf("[CONSUMER] got %d\n", count);
    return 0;
}

int main(void) {
    heist_generator *c;
    int err = heist_generator_new(consumer, NULL, NULL, &c);
    if (err == 0) {
        err = produce(c);
        heist_generator_unref(c);
    }
    if (err == 0) err = heist_run(consume, NULL, NULL, NULL);
    return err < 0;
}
