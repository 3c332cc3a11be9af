/* Intrusive circular doubly linked list.
 *
 * A head is a link too: an empty head points at itself both ways, and so does
 * a link that stands in no list.  Nothing is allocated, nothing can fail.
 * Knows nothing of threads: whoever owns the list (one thread, or the holder
 * of its lock) calls these.
 * Invariant: for every link l in a list, l->next->prev == l == l->prev->next. */
#ifndef HEIST_BASE_LIST_H
#define HEIST_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"

struct heist__link {
    struct heist__link *next;
    struct heist__link *prev;
};

/* The structure of TYPE that holds LINK in its field MEMBER. */
#define heist__list_entry(link, type, member) heist_container_of(link, type, member)

/* All links in order; the body must not remove POS. */
#define heist__list_for_each(pos, head) for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)

/* The same, and the body may remove POS (and only POS): NEXT was read before. */
#define heist__list_for_each_safe(pos, after, head)                                                                    \
    for ((pos) = (head)->next, (after) = (pos)->next; (pos) != (head); (pos) = (after), (after) = (pos)->next)

/* Makes an empty head, or a link that stands in no list. */
static inline void heist__list_init(struct heist__link *l) {
    l->next = l;
    l->prev = l;
}

static inline bool heist__list_empty(const struct heist__link *head) {
    return head->next == head;
}

/* Does this link stand in a list?  Only for links that were initialised. */
static inline bool heist__list_linked(const struct heist__link *l) {
    return l->next != l;
}

/* Puts l before pos. */
static inline void heist__list_insert_before(struct heist__link *pos, struct heist__link *l) {
    l->next = pos;
    l->prev = pos->prev;
    pos->prev->next = l;
    pos->prev = l;
}

static inline void heist__list_push_back(struct heist__link *head, struct heist__link *l) {
    heist__list_insert_before(head, l);
}

static inline void heist__list_push_front(struct heist__link *head, struct heist__link *l) {
    heist__list_insert_before(head->next, l);
}

/* Takes l out of its list; l then points at itself, so a second removal (and
 * the removal of a link that was only initialised) changes nothing. */
static inline void heist__list_remove(struct heist__link *l) {
    l->next->prev = l->prev;
    l->prev->next = l->next;
    heist__list_init(l);
}

/* The first or last link, left in its place; NULL when the list is empty. */
static inline struct heist__link *heist__list_front(struct heist__link *head) {
    return heist__list_empty(head) ? NULL : head->next;
}

static inline struct heist__link *heist__list_back(struct heist__link *head) {
    return heist__list_empty(head) ? NULL : head->prev;
}

/* The first or last link, taken out; NULL when the list is empty. */
static inline struct heist__link *heist__list_pop_front(struct heist__link *head) {
    struct heist__link *l = heist__list_front(head);
    if (l) heist__list_remove(l);
    return l;
}

static inline struct heist__link *heist__list_pop_back(struct heist__link *head) {
    struct heist__link *l = heist__list_back(head);
    if (l) heist__list_remove(l);
    return l;
}

/* Moves everything in from, in order, to the back of to; from is empty after. */
static inline void heist__list_splice_back(struct heist__link *to, struct heist__link *from) {
    if (heist__list_empty(from)) return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    heist__list_init(from);
}

#endif
