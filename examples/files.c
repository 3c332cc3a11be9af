/* files: ten files read at once, without holding the loop (EXEC-15).
 *
 * A file is never "not ready", so no loop can wait for one: each call goes to a thread beside the loop, and the task
 * waits.  So all ten are under way together.  Then one of them is read line by line, and a folder is watched while
 * something happens in it. */
#include <heist.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES 10

static char folder[] = "/tmp/heist-files-XXXXXX";

struct note {
    char path[64];
    size_t bytes;
};

static int read_note(void *arg, void **out) {
    struct note *note = arg;
    char *text;
    (void)out;
    int err = heist_read_file(note->path, 1 << 20, &text, &note->bytes); /* others go on meanwhile */
    if (err == 0) heist_file_data_free(text);
    return err;
}

static int read_at_once(struct note *notes) {
    heist_task *tasks[FILES];
    size_t bytes = 0;
    int made = 0, err = 0;
    for (; made < FILES && err == 0; made++) err = heist_create_task(read_note, &notes[made], NULL, &tasks[made]);
    if (err < 0) made--;
    if (err == 0) err = heist_gather(tasks, FILES, NULL, 0);
    for (int i = 0; i < made; i++) heist_unref(tasks[i]);
    for (int i = 0; i < FILES; i++) bytes += notes[i].bytes;
    if (err == 0) printf("%d files, %zu bytes\n", FILES, bytes);
    return err;
}

static int read_by_lines(const char *path) {
    heist_file *file;
    char line[80];
    ptrdiff_t n;
    int lines = 0;
    int err = heist_file_open(path, O_RDONLY, 0, &file);
    if (err < 0) return err;
    while ((n = heist_file_readline(file, line, sizeof line)) > 0)
        if (++lines == 3) printf("the third line: %s", line);
    printf("%d lines\n", lines);
    heist_file_close(file);
    return n < 0 ? (int)n : 0;
}

static int change(void *arg, void **out) {
    char path[64];
    (void)arg, (void)out;
    snprintf(path, sizeof path, "%s/late", folder);
    int err = heist_write_file(path, "news\n", 5, 0600);
    return err == 0 ? heist_unlink(path) : err;
}

static int watch(void) {
    heist_fswatch *watcher;
    heist_fswatch_event event = {0};
    heist_task *changer = NULL;
    int err = heist_fswatch_new(&watcher);
    if (err < 0) return err;
    err = heist_fswatch_add(watcher, folder, IN_CREATE | IN_DELETE);
    if (err > 0) err = heist_create_task(change, NULL, NULL, &changer);
    for (int i = 0; i < 2 && err == 0; i++) {
        err = heist_fswatch_next(watcher, HEIST_FOREVER, &event);
        if (err == 0) printf("%s: %s\n", event.mask & IN_CREATE ? "made" : "gone", event.name);
    }
    if (changer) heist_await(changer, NULL);
    heist_unref(changer);
    heist_fswatch_close(watcher);
    return err;
}

static int main_coro(void *arg, void **out) {
    struct note notes[FILES] = {{"", 0}};
    char text[1000] = "";
    int err = 0;
    (void)arg, (void)out;
    for (int i = 0; i < FILES && err == 0; i++) {
        char line[32];
        snprintf(line, sizeof line, "line %d of a note\n", i + 1);
        strcat(text, line);
        snprintf(notes[i].path, sizeof notes[i].path, "%s/%d", folder, i);
        err = heist_write_file(notes[i].path, text, strlen(text), 0600);
    }
    if (err == 0) err = read_at_once(notes);
    if (err == 0) err = read_by_lines(notes[FILES - 1].path);
    if (err == 0) err = watch();
    for (int i = 0; i < FILES; i++)
        if (notes[i].path[0]) heist_unlink(notes[i].path);
    return err;
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    int err = heist_run(main_coro, NULL, NULL, NULL);
    if (err < 0) fprintf(stderr, "files: %s\n", heist_strerror(err));
    return rmdir(folder) < 0 || err < 0;
}
