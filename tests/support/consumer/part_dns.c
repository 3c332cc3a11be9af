/* Prints 42 when a resolver of libheist-dns is installed, and answers as one that was closed. */
#include <heist.h>
#include <heist/dns.h>
#include <stdio.h>

static int use(void *arg, void **out) {
    heist_dns *dns;
    heist_addrinfo_list *list;
    (void)arg, (void)out;
    int err = heist_dns_new(NULL, &dns);
    if (err < 0) return err;
    err = heist_dns_install(dns, NULL);
    heist_dns_close(dns);
    heist_dns_unref(dns);
    if (err < 0) return err;
    err = heist_getaddrinfo("name.test", "80", NULL, HEIST_FOREVER, &list);
    return err == HEIST_ECLOSED ? 0 : -EPROTO;
}

int main(void) {
    if (heist_run(use, NULL, NULL, NULL) < 0) return 1;
    puts("42");
    return 0;
}
