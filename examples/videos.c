/* videos: several video streams, decoded and read at the same time (APP-14).
 *
 * First ffmpeg makes three short clips out of its test picture.  Then each clip is decoded by an ffmpeg of its own,
 * whose raw frames come through a pipe.  A task for each reads them, frame by frame, and looks at the picture; none
 * waits for another.  A stream that somebody has seen enough of is stopped: its ffmpeg ends, and leaves nothing behind.
 * Where there is no ffmpeg the program says so and ends with status 77. */
#include <heist.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define WIDTH 64
#define HEIGHT 48
#define FRAME ((size_t)WIDTH * HEIGHT) /* one byte for each point: its brightness */
#define STREAMS 3

struct video {
    char clip[64];
    char seconds[8], rate[8];
    int enough; /* frames; 0: all of them */
    int frames, bright;
};

/* Runs ffmpeg with these arguments; its output is ours to read when `reads`. */
static int start_ffmpeg(char *const argv[], int reads, heist_process **out) {
    heist_process_options opts = HEIST_PROCESS_OPTIONS_INIT;
    opts.flags = HEIST_PROCESS_KILL_ON_CANCEL | HEIST_PROCESS_KILL_ON_DROP;
    opts.stdin_is = opts.stderr_is = HEIST_PROCESS_NULL;
    opts.stdout_is = reads ? HEIST_PROCESS_PIPE : HEIST_PROCESS_NULL;
    return heist_create_subprocess_exec(argv, &opts, out);
}

static int make_clip(void *arg, void **out) {
    struct video *v = arg;
    char picture[80], ffmpeg[] = "ffmpeg", y[] = "-y", f[] = "-f", lavfi[] = "lavfi", i[] = "-i", c[] = "-c:v";
    char mpeg4[] = "mpeg4";
    char *argv[] = {ffmpeg, y, f, lavfi, i, picture, c, mpeg4, v->clip, NULL};
    heist_process *p;
    int code = 0;
    (void)out;
    snprintf(picture, sizeof picture, "testsrc=size=%dx%d:rate=%s:duration=%s", WIDTH, HEIGHT, v->rate, v->seconds);
    int err = start_ffmpeg(argv, 0, &p);
    if (err < 0) return err;
    err = heist_process_wait(p, HEIST_FOREVER, &code);
    heist_process_unref(p);
    return err < 0 ? err : code ? heist_fail(-EPROTO, "ffmpeg ended with %d", code) : 0;
}

/* Is there a picture? */
static void look_at(struct video *v, const uint8_t *frame) {
    unsigned long sum = 0;
    for (size_t i = 0; i < FRAME; i++) sum += frame[i];
    v->frames++;
    v->bright += sum / FRAME > 32;
}

static int read_video(void *arg, void **out) {
    struct video *v = arg;
    uint8_t frame[FRAME];
    char ffmpeg[] = "ffmpeg", i[] = "-i", f[] = "-f", raw[] = "rawvideo", pix[] = "-pix_fmt", gray[] = "gray";
    char to[] = "-";
    char *argv[] = {ffmpeg, i, v->clip, f, raw, pix, gray, to, NULL};
    heist_process *p;
    int code = 0;
    (void)out;
    int err = start_ffmpeg(argv, 1, &p);
    if (err < 0) return err;
    heist_stream *video = heist_process_stdout(p);
    while ((err = heist_stream_readexactly(video, frame, FRAME, NULL)) == 0) {
        look_at(v, frame);
        if (v->frames == v->enough) break;
    }
    if (err == HEIST_EINCOMPLETE) err = 0; /* the end, after a whole frame */
    if (err == 0 && v->frames == v->enough)
        err = heist_process_stop(p, 5, &code);
    else if (err == 0)
        err = heist_process_wait(p, HEIST_FOREVER, &code);
    heist_process_unref(p);
    return err;
}

static int all_at_once(struct video *v, heist_coro_fn fn) {
    heist_task *t[STREAMS] = {NULL};
    int err = 0, n = 0;
    while (n < STREAMS && err == 0) {
        err = heist_create_task(fn, &v[n], NULL, &t[n]);
        if (err == 0) n++;
    }
    if (n) err = heist_gather(t, (size_t)n, NULL, 0);
    for (int i = 0; i < n; i++) heist_unref(t[i]);
    return err;
}

static int main_coro(void *arg, void **out) {
    struct video *v = arg;
    (void)out;
    int err = all_at_once(v, make_clip);
    if (err == 0) err = all_at_once(v, read_video);
    for (int i = 0; i < STREAMS && err == 0; i++)
        printf("stream %d: %d frames, %d of them bright\n", i + 1, v[i].frames, v[i].bright);
    return err;
}

int main(void) {
    char folder[] = "/tmp/heist-videos-XXXXXX";
    struct video v[STREAMS] = {{.seconds = "1", .rate = "25"}, {.seconds = "2", .rate = "15"},
                               {.seconds = "9", .rate = "30", .enough = 10}};
    if (!mkdtemp(folder)) return 1;
    for (int i = 0; i < STREAMS; i++) snprintf(v[i].clip, sizeof v[i].clip, "%s/%d.avi", folder, i + 1);
    int err = heist_run(main_coro, v, NULL, NULL);
    for (int i = 0; i < STREAMS; i++) unlink(v[i].clip);
    rmdir(folder);
    if (err == -ENOENT) fprintf(stderr, "videos: there is no ffmpeg here\n");
    if (err < 0 && err != -ENOENT) fprintf(stderr, "videos: %s\n", heist_strerror(err));
    return err == -ENOENT ? 77 : err < 0;
}
