/* See derived.h. */
#include "task/derived.h"

#include <heist/future.h>

#include "conc/self.h"

void heist__deed_do(struct heist__deed *deed) {
    struct heist__self *self = heist__self();
    deed->next = NULL;
    if (self->deeds) {
        *self->deeds->end = deed;
        self->deeds->end = &deed->next;
        return;
    }
    struct heist__deeds deeds = {deed, &deed->next};
    self->deeds = &deeds;
    while ((deed = deeds.head)) {
        deeds.head = deed->next;
        if (!deeds.head) deeds.end = &deeds.head;
        deed->run(deed);
    }
    heist__self()->deeds = NULL; /* of another thread, perhaps: see callback_run in complete.c */
}

struct heist__failure *heist__failure_of(const heist_future *f) {
    const struct heist__failure *failure = f->failure;
    return failure ? heist__failure_make(failure->file, failure->line, failure->code, "%s", failure->message) : NULL;
}

bool heist__derived_complete_as(heist_future *f, heist_future *from) {
    heist_future_result(from, NULL); /* looked at */
    return heist__derived_complete(f, from->outcome, from->outcome == HEIST__OUT_VALUE ? 0 : from->code, from->value,
                                   heist__failure_of(from));
}
