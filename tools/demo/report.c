/* The record of a run; report.h has the contract.
 *
 * Lines are kept in one growing array under one lock.  When memory runs out the
 * line is printed at once instead of kept, and a broken law still counts. */
#include "report.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { PART, FIGURE, HELD, BROKEN };

struct line {
    enum kind kind;
    char *text;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct line *lines;
static size_t n_lines, room;
static int held_count, broken_count;

static const char *const marks[] = {
    [PART] = "\n", [FIGURE] = "         ", [HELD] = "  held   ", [BROKEN] = "  BROKEN ",
};

static void keep(enum kind kind, const char *format, va_list args) {
    char text[512];
    vsnprintf(text, sizeof text, format, args);
    pthread_mutex_lock(&lock);
    held_count += kind == HELD;
    broken_count += kind == BROKEN;
    if (n_lines == room) {
        size_t more = room ? room * 2 : 32;
        struct line *grown = realloc(lines, more * sizeof *grown);
        if (grown) {
            lines = grown;
            room = more;
        }
    }
    char *copy = n_lines < room ? strdup(text) : NULL;
    if (copy)
        lines[n_lines++] = (struct line){kind, copy};
    else
        printf("%s%s\n", marks[kind], text);
    pthread_mutex_unlock(&lock);
}

void report_part(const char *format, ...) {
    va_list args;
    va_start(args, format);
    keep(PART, format, args);
    va_end(args);
}

void report_figure(const char *format, ...) {
    va_list args;
    va_start(args, format);
    keep(FIGURE, format, args);
    va_end(args);
}

int report_law(int held, const char *format, ...) {
    va_list args;
    va_start(args, format);
    keep(held ? HELD : BROKEN, format, args);
    va_end(args);
    return held;
}

int report_print(void) {
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_lines; i++) {
        printf("%s%s\n", marks[lines[i].kind], lines[i].text);
        free(lines[i].text);
    }
    free(lines);
    lines = NULL;
    n_lines = room = 0;
    printf("\n%d laws held, %d broken\n", held_count, broken_count);
    fflush(stdout);
    int broken = broken_count;
    pthread_mutex_unlock(&lock);
    return broken;
}
