/* Prints 42 when a context of libheist-tls is made, and one that lacks a certificate is refused. */
#include <heist.h>
#include <heist/tls.h>
#include <stdio.h>

int main(void) {
    heist_tls_context *client, *server;
    if (heist_tls_context_new_client(NULL, &client) != 0) return 1;
    if (heist_tls_context_new_server(NULL, &server) != -EINVAL) return 2;
    int sessions = heist_tls_context_sessions(client);
    heist_tls_context_unref(client);
    printf("%d\n", 42 + sessions);
    return 0;
}
