/* heist-tlscheck: finds functions that keep a thread's address across a call that may suspend.
 *
 * Reads ELF files of x86-64 and AArch64: objects, archives, executables, shared objects.
 * docs/migration.md says what it finds, what it cannot see, and what to do about a finding. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flow.h"

/* From the headers, by suspends.awk. */
static const char *const heist_suspends[] = {
#include "suspends.inc"
};

static const char *const default_sources =
    "__errno_location,__h_errno_location,__tls_get_addr,__emutls_get_address,pthread_self,thrd_current,heist__self";
/* The waist of the library itself: the switch, and the one host that enters tasks by it. */
static const char *const default_suspends = "heist__suspend,heist__ctx_switch";
static const char *const default_never = "heist__step_watched,pinned_run,run_tasks,step_now,heist__worker_turn";

static void usage(FILE *to) {
    fputs("usage: heist-tlscheck [options] FILE...\n"
          "Reports functions that keep an address of the running thread (errno, a thread-local, pthread_self)\n"
          "across a call in which their task may move to another thread.\n"
          "  --json               one JSON object instead of lines\n"
          "  --suspends NAME,...  these functions may suspend, besides heist's own\n"
          "  --never NAME,...     these do not, whatever they call\n"
          "  --sources NAME,...   these return an address of the running thread, besides errno's and the like\n"
          "  --exclude NAME,...   do not report these functions\n"
          "  --indirect           every call through a pointer may suspend\n"
          "  --list               print the functions in FILEs that may suspend, and why\n"
          "  --known              print the calls of heist that may suspend\n"
          "Exit status: 0 nothing found, 1 found, 2 a file could not be read.\n",
          to);
}

static void print_json_string(const char *s) {
    putchar('"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void print_json_place(const char *key, const struct function *f, uint64_t address) {
    const char *file;
    int line = image_source(f->image, address, &file);
    printf(", \"%s\": {\"offset\": %llu", key, (unsigned long long)(address - f->parts[0].start));
    if (line) {
        fputs(", \"file\": ", stdout);
        print_json_string(file);
        printf(", \"line\": %d", line);
    }
    putchar('}');
}

/* Calls through pointers whose callee nothing tells: taken for calls that do not suspend, unless asked. */
static size_t unknown_calls(const struct images *images) {
    size_t count = 0;
    for (size_t i = 0; i < images->count; i++)
        for (size_t j = 0; j < images->list[i]->function_count; j++) {
            const struct function *f = &images->list[i]->functions[j];
            for (size_t n = 0; n < f->insn_count; n++)
                count += f->insns[n].flow == FLOW_CALL && !f->insns[n].name && !f->insns[n].target;
        }
    return count;
}

static void print_json(const struct images *images, const struct findings *findings, size_t functions) {
    printf("{\"files\": %zu, \"functions\": %zu, \"unknown_calls\": %zu, \"findings\": [", images->count, functions,
           unknown_calls(images));
    for (size_t i = 0; i < findings->count; i++) {
        const struct finding *it = &findings->list[i];
        fputs(i ? ",\n  {\"object\": " : "\n  {\"object\": ", stdout);
        print_json_string(it->function->image->name);
        fputs(", \"function\": ", stdout);
        print_json_string(it->function->name);
        fputs(", \"what\": ", stdout);
        print_json_string(it->what);
        print_json_place("taken", it->function, it->taken);
        print_json_place("call", it->function, it->call);
        fputs(", \"callee\": ", stdout);
        print_json_string(it->callee ? it->callee : "?");
        print_json_place("use", it->function, it->use);
        fputs(", \"how\": ", stdout);
        print_json_string(it->how);
        if (it->passed_to) {
            fputs(", \"passed_to\": ", stdout);
            print_json_string(it->passed_to);
        }
        putchar('}');
    }
    puts(findings->count ? "\n]}" : "]}");
}

static void print_text(const struct images *images, const struct findings *findings, size_t functions) {
    char taken[512], call[512], use[512];
    for (size_t i = 0; i < findings->count; i++) {
        const struct finding *it = &findings->list[i];
        const struct function *f = it->function;
        image_line(f, it->taken, taken, sizeof(taken));
        image_line(f, it->call, call, sizeof(call));
        image_line(f, it->use, use, sizeof(use));
        printf("%s: %s keeps %s across %s\n", taken, f->name, it->what, it->callee ? it->callee : "a call that may suspend");
        printf("    %s: %s may suspend, and the task go on in another thread\n", call, it->callee ? it->callee : "the call");
        printf("    %s: %s%s%s after that\n", use, it->how, it->passed_to ? " " : "", it->passed_to ? it->passed_to : "");
        printf("    in %s\n", f->image->name);
    }
    printf("%zu %s in %zu functions of %zu %s; %zu calls through pointers were not followed\n", findings->count,
           findings->count == 1 ? "finding" : "findings", functions, images->count, images->count == 1 ? "file" : "files",
           unknown_calls(images));
}

int main(int argc, char **argv) {
    enum { JSON = 1, SUSPENDS, NEVER, SOURCES, EXCLUDE, INDIRECT, LIST, KNOWN };
    static const struct option options[] = {
        {"json", no_argument, NULL, JSON},           {"suspends", required_argument, NULL, SUSPENDS},
        {"never", required_argument, NULL, NEVER},   {"sources", required_argument, NULL, SOURCES},
        {"exclude", required_argument, NULL, EXCLUDE}, {"indirect", no_argument, NULL, INDIRECT},
        {"list", no_argument, NULL, LIST},           {"known", no_argument, NULL, KNOWN},
        {"help", no_argument, NULL, 'h'},            {NULL, 0, NULL, 0}};
    static struct rules rules; /* static: its names live as long as the process */
    struct images images = {0};
    struct findings findings = {0};
    bool json = false, list = false, known = false;
    for (size_t i = 0; i < sizeof(heist_suspends) / sizeof(heist_suspends[0]); i++)
        names_add(&rules.suspends, heist_suspends[i]);
    names_add(&rules.suspends, default_suspends);
    names_add(&rules.never, default_never);
    names_add(&rules.sources, default_sources);
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) switch (c) {
            case JSON: json = true; break;
            case SUSPENDS: names_add(&rules.suspends, optarg); break;
            case NEVER: names_add(&rules.never, optarg); break;
            case SOURCES: names_add(&rules.sources, optarg); break;
            case EXCLUDE: names_add(&rules.excluded, optarg); break;
            case INDIRECT: rules.indirect = true; break;
            case LIST: list = true; break;
            case KNOWN: known = true; break;
            case 'h': usage(stdout); return 0;
            default: usage(stderr); return 2;
        }
    if (known) {
        for (size_t i = 0; i < sizeof(heist_suspends) / sizeof(heist_suspends[0]); i++) puts(heist_suspends[i]);
        return 0;
    }
    if (optind == argc) {
        usage(stderr);
        return 2;
    }
    int err = 0;
    for (int i = optind; i < argc; i++) {
        size_t before = images.count, holds = 0;
        if (images_open(&images, argv[i])) {
            err = 1;
            continue;
        }
        for (size_t n = before; n < images.count; n++) holds += images.list[n]->function_count;
        if (holds) continue;
        fprintf(stderr, "heist-tlscheck: %s: there is no function in it\n", argv[i]);
        err = 1;
    }
    size_t functions = 0;
    for (size_t i = 0; i < images.count; i++)
        for (size_t j = 0; j < images.list[i]->function_count; j++) {
            struct function *f = &images.list[i]->functions[j];
            if (!f->part_count) continue;
            decode(f);
            functions++;
        }
    /* What a function returns and where calls through registers go tells more about their callers. */
    for (bool learned = true; learned;) {
        learned = find_suspending(&images, &rules);
        for (size_t i = 0; i < images.count; i++)
            for (size_t j = 0; j < images.list[i]->function_count; j++)
                learned |= follow(&images, &rules, &images.list[i]->functions[j], NULL);
    }
    if (list) {
        for (size_t i = 0; i < images.count; i++)
            for (size_t j = 0; j < images.list[i]->function_count; j++) {
                const struct function *f = &images.list[i]->functions[j];
                if (f->may_suspend) printf("%s %s\n", f->name, f->may_suspend);
            }
    } else {
        for (size_t i = 0; i < images.count; i++)
            for (size_t j = 0; j < images.list[i]->function_count; j++)
                follow(&images, &rules, &images.list[i]->functions[j], &findings);
        if (json)
            print_json(&images, &findings, functions);
        else if (findings.count || !err)
            print_text(&images, &findings, functions);
    }
    bool any = findings.count > 0;
    free(findings.list);
    forget_callees();
    images_close(&images);
    return err ? 2 : any ? 1 : 0;
}
