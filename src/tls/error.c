/* OpenSSL's errors as codes and words.
 *
 * The queue of errors belongs to the thread, and a task may go on elsewhere after a suspension: it is emptied before
 * each call and read right after it, under the lock of the connection, and words travel in memory of the connection. */
#include <errno.h>
#include <heist/error.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "tls/tls.h"

static _Thread_local char reason[256];

void heist__tls_clear(void) { ERR_clear_error(); }

int heist__tls_failed(char *words, size_t size) {
    const char *data = NULL;
    int flags = 0, code = HEIST_ETLS;
    unsigned long e = ERR_get_error_all(NULL, NULL, NULL, &data, &flags); /* the first one is the cause */
    snprintf(words, size, "%s", "TLS failed");
    if (e) {
        const char *text = ERR_SYSTEM_ERROR(e) ? NULL : ERR_reason_error_string(e);
        bool more = data && (flags & ERR_TXT_STRING) && *data;
        if (text) snprintf(words, size, more ? "%s: %s" : "%s", text, data);
        else if (more) snprintf(words, size, "%s", data);
        if (ERR_SYSTEM_ERROR(e) && ERR_GET_REASON(e) > 0) code = -ERR_GET_REASON(e);
        if (ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE) code = -ENOMEM;
        if (ERR_GET_LIB(e) == ERR_LIB_SSL && (ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED ||
                                              ERR_GET_REASON(e) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE))
            code = HEIST_ETLSVERIFY;
    }
    ERR_clear_error();
    return code;
}

/* Never inlined: the address of the thread's words must not be kept by a caller that suspends. */
__attribute__((noinline)) int heist__tls_report(int code, const char *words) {
    snprintf(reason, sizeof(reason), "%s", words && *words ? words : heist_strerror(code));
    return words && *words ? heist_fail(code, "%s", words) : code;
}

__attribute__((noinline)) const char *heist_tls_reason(void) { return reason; }
