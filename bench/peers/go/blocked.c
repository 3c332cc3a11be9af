#include "blocked.h"
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

extern void goSubmitItem(int);

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t blocked_now(void) { return now_ns(); }

static void sleep_until(int64_t ns) {
  struct timespec t = {ns / 1000000000, ns % 1000000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL)) {}
}

struct plan {
  int n;
  int *fd; /* NULL: submit instead */
  int64_t *due;
};

static void *run(void *arg) {
  struct plan *p = arg;
  for (int i = 0; i < p->n; i++) {
    sleep_until(p->due[i]);
    p->due[i] = now_ns();
    if (p->fd) {
      if (write(p->fd[i], "x", 1) != 1) abort();
    } else {
      goSubmitItem(i);
    }
  }
  free(p);
  return 0;
}

void blocked_start(int n, int *fd, int64_t *due) {
  struct plan *p = malloc(sizeof *p);
  pthread_t t;
  *p = (struct plan){n, fd, due};
  if (pthread_create(&t, 0, run, p)) abort();
  pthread_detach(t);
}
