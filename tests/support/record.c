/* support/record.c: the words that tasks left behind; see record.h. */
#include "support/record.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void record_add(struct record *record, const char *format, ...) {
    char word[256];
    va_list args;
    va_start(args, format);
    vsnprintf(word, sizeof word, format, args);
    va_end(args);

    pthread_mutex_lock(&record->lock);
    size_t need = strlen(word) + (record->length > 0);
    if (record->length + need < sizeof record->text) {
        if (record->length > 0) record->text[record->length++] = ' ';
        strcpy(record->text + record->length, word);
        record->length += strlen(word);
    }
    record->words++;
    pthread_mutex_unlock(&record->lock);
}

const char *record_text(struct record *record) {
    pthread_mutex_lock(&record->lock);
    const char *text = record->text;
    pthread_mutex_unlock(&record->lock);
    return text;
}

int record_words(struct record *record) {
    pthread_mutex_lock(&record->lock);
    int words = record->words;
    pthread_mutex_unlock(&record->lock);
    return words;
}

void record_clear(struct record *record) {
    pthread_mutex_lock(&record->lock);
    record->text[0] = 0;
    record->length = 0;
    record->words = 0;
    pthread_mutex_unlock(&record->lock);
}

int mark_word(void *arg) {
    struct mark *mark = arg;
    record_add(mark->record, "%s", mark->word);
    return 0;
}

int mark_and_stop(void *arg) {
    struct mark *mark = arg;
    record_add(mark->record, "%s", mark->word);
    return heist_loop_stop(mark->loop);
}

void mark_free(void *arg) {
    struct mark *mark = arg;
    record_add(mark->record, "free:%s", mark->word);
}

void record_report(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop;
    if (report->text)
        record_add(user, "%d:%s", report->code, report->text);
    else
        record_add(user, "%d", report->code);
}

void gate_open(struct gate *gate) {
    pthread_mutex_lock(&gate->lock);
    gate->open = true;
    pthread_cond_broadcast(&gate->opened);
    pthread_mutex_unlock(&gate->lock);
}

void gate_wait(struct gate *gate) {
    pthread_mutex_lock(&gate->lock);
    while (!gate->open) pthread_cond_wait(&gate->opened, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

bool gate_is_open(struct gate *gate) {
    pthread_mutex_lock(&gate->lock);
    bool open = gate->open;
    pthread_mutex_unlock(&gate->lock);
    return open;
}
