/* group: three pages are fetched at once; when one fails, nobody waits for the others.
 *
 * The group is left when every child has ended, so `pages`, on the stack, may be theirs.
 * What failed is told by the group; those that it cancelled have not failed.  Around it
 * stands a time-out: all of it must be done within two seconds. */
#include <heist.h>
#include <stdio.h>

struct page {
    const char *name;
    double seconds;
    int code;
};

static int fetch(void *arg, void **out) {
    struct page *page = arg;
    (void)out;
    int err = heist_sleep(page->seconds);
    if (err == -ECANCELED) printf("%s: cancelled\n", page->name);
    if (err < 0) return err;
    if (page->code) return heist_fail(page->code, "%s is not there", page->name);
    printf("%s: fetched\n", page->name);
    return 0;
}

static int fetch_all(struct page *pages, int n) {
    heist_group *group;
    heist_timeout limit = HEIST_TIMEOUT_INIT;
    int err = heist_group_new(&group);
    if (err < 0) return err;
    err = heist_timeout_enter(&limit, 2);
    if (err == 0) {
        err = heist_group_enter(group);
        for (int i = 0; i < n && err == 0; i++) err = heist_group_create_task(group, fetch, &pages[i], NULL, NULL);
        err = heist_timeout_exit(&limit, heist_group_exit(group, err));
    }
    for (int i = 0; i < heist_group_failures(group); i++) {
        heist_group_failure failure = HEIST_GROUP_FAILURE_INIT;
        if (heist_group_failure_at(group, (size_t)i, &failure) == 0)
            printf("failed with %s: %s\n", heist_error_name(failure.code), failure.message);
    }
    heist_group_unref(group);
    return err;
}

static int main_coro(void *arg, void **out) {
    (void)arg, (void)out;
    struct page with_a_hole[] = {{"news", 0.01, 0}, {"weather", 0.2, -ENOENT}, {"archive", 3600, 0}};
    printf("%s\n", heist_error_name(fetch_all(with_a_hole, 3)));
    struct page too_slow[] = {{"news", 0.01, 0}, {"archive", 3600, 0}};
    printf("%s\n", heist_error_name(fetch_all(too_slow, 2)));
    return 0;
}

int main(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.flags = HEIST_RUNTIME_VIRTUAL_TIME; /* an hour takes no time here */
    return heist_run(main_coro, NULL, &opts, NULL) < 0;
}
