/* cameras: three sources of frames, read at the same time (APP-14).
 *
 * Each camera is a generator that waits for its next frame.  A task for each camera reads
 * it and puts the frames into one queue, from which the viewer takes them as they come.
 * The cameras are stand-ins, and their time is virtual. */
#include <heist.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CAMERAS 3

struct camera {
    const char *name;
    double seconds; /* between two frames */
    int frames;
    heist_queue *queue;
};

struct frame {
    const struct camera *from;
    int number;
    uint8_t brightness;
};

static int frames_of(heist_generator *self, void *arg, void **out) {
    struct camera *c = arg;
    (void)out;
    for (int i = 1; i <= c->frames; i++) {
        struct frame frame = {c, i, (uint8_t)(i * 10)};
        int err = heist_sleep(c->seconds); /* the task that asks waits, nobody else */
        if (err == 0) err = heist_generator_yield(self, &frame, NULL);
        if (err < 0) return err;
    }
    return 0;
}

static int read_camera(void *arg, void **out) {
    struct camera *c = arg;
    heist_generator *source;
    void *item;
    (void)out;
    int err = heist_generator_new(frames_of, c, NULL, &source), lost = 0;
    if (err < 0) return err;
    heist_foreach (item, source, &err) {
        struct frame *copy = malloc(sizeof *copy); /* the frame is the camera's until it is asked for the next */
        if (!copy) lost = -ENOMEM;
        if (copy) *copy = *(struct frame *)item;
        if (copy && (lost = heist_queue_put(c->queue, copy)) < 0) free(copy);
        if (lost < 0) break;
    }
    heist_generator_unref(source);
    return err == HEIST_ESTOP ? 0 : err < 0 ? err : lost;
}

/* Ends when the queue was shut down and is empty. */
static int view(void *arg, void **out) {
    heist_queue *queue = arg;
    int err, seen = 0;
    void *item;
    (void)out;
    while ((err = heist_queue_get(queue, &item)) == 0) {
        struct frame *frame = item;
        printf("%s: frame %d, brightness %d\n", frame->from->name, frame->number, frame->brightness);
        seen++;
        free(frame);
    }
    printf("frames in all: %d\n", seen);
    return err == HEIST_ESHUTDOWN ? 0 : err;
}

static int main_coro(void *arg, void **out) {
    struct camera *cameras = arg;
    heist_queue *queue = cameras[0].queue;
    heist_awaitable coroutine[CAMERAS];
    heist_future *reader[CAMERAS];
    heist_task *viewer;
    (void)out;
    for (int i = 0; i < CAMERAS; i++) coroutine[i] = HEIST_CORO(read_camera, &cameras[i]);
    int err = heist_create_task(view, queue, NULL, &viewer);
    if (err < 0) return err;
    if ((err = heist_ensure_futures(NULL, coroutine, CAMERAS, NULL, NULL, reader)) == 0) {
        err = heist_gather(reader, CAMERAS, NULL, 0);
        heist_unref_all(reader, CAMERAS);
    }
    heist_queue_shutdown(queue, 0); /* what is in it is still given out */
    int ended = heist_await(viewer, NULL);
    heist_unref(viewer);
    return err < 0 ? err : ended;
}

int main(void) {
    struct camera cameras[CAMERAS] = {{"door", 0.04, 5, NULL}, {"yard", 0.07, 3, NULL}, {"street", 0.11, 2, NULL}};
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    heist_queue_options queue_options = HEIST_QUEUE_OPTIONS_INIT;
    heist_queue *queue;
    heist_loop *loop;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    queue_options.item_free = free;
    if (heist_queue_new(4, &queue_options, &queue) < 0) return 1;
    for (int i = 0; i < CAMERAS; i++) cameras[i].queue = queue;
    int err = heist_loop_new(&options, &loop);
    if (err == 0) {
        err = heist_loop_run_coroutine(loop, main_coro, cameras, NULL, NULL);
        heist_loop_close(loop);
        heist_loop_unref(loop);
    }
    heist_queue_unref(queue);
    return err < 0;
}
