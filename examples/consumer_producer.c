/* consumer_producer: the consumer is a generator, to which the producer sends; each send brings
 * the consumer's answer. */
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

int main(void) {
    heist_generator *c;
    int err = heist_generator_new(consumer, NULL, NULL, &c);
    if (err == 0) {
        err = produce(c);
        heist_generator_unref(c);
    }
    return err < 0;
}
