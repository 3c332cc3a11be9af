/* A name server on loopback, for tests: UDP and TCP on one port, driven by reader callbacks of one loop.
 *
 * How it answers stands in the name that it is asked for: the labels before ".test" are read as orders, from left to
 * right; the first one is free, and makes names different.
 *
 *   x.test             A 10.a.b.c and AAAA 2001:db8::a:b:c, made of a hash of the whole name (name_server_address)
 *   x.v4.test, x.v6    only the one kind; the other is an empty answer
 *   x.empty.test       neither
 *   x.nx.test          no such name
 *   x.fail.test        SERVFAIL
 *   x.refuse.test      REFUSED
 *   x.format.test      FORMERR
 *   x.silent.test      nothing
 *   x.late.test        after 20 ms
 *   x.here.test        127.0.0.1 and ::1
 *   x.ttl7.test        a time to live of 7 s; without this, an hour
 *   x.many40.test      40 addresses of a kind, of which the first is the name's own
 *   x.alias.test       CNAME to alias1-x.target.test, CNAME to alias2-x.target.test, which has the addresses
 *   x.long.test        over UDP an empty truncated answer; over TCP the right one
 *   x.cut.test         over UDP as long; over TCP half the answer, then the connection is closed
 *   x.wrongid.test     first an answer with another number and 192.0.2.66, then the right one
 *   x.wrongname.test   first an answer to another question, with 192.0.2.66, then the right one
 *   x.garbage.test     first some bytes that are no answer, then the right one
 *   x.broken.test      the right header and question, then an answer that points outside of the packet
 *   x.dropN.test       the first N questions for this name are not answered
 *   d.c.b.a.in-addr.arpa, …ip6.arpa   PTR to host-<hash>.test; an address with 66 as its last byte has no name,
 *                      one with 67 is a SERVFAIL
 */
#ifndef HEIST_TEST_NAME_SERVER_H
#define HEIST_TEST_NAME_SERVER_H

#include <heist.h>

struct name_server;

/* Listens on 127.0.0.1; NULL: the system refuses. */
struct name_server *name_server_start(heist_loop *loop);
/* By anybody, while no callback of the loop runs, or on the loop's thread; frees it. */
void name_server_stop(struct name_server *s);

/* "127.0.0.1:port". */
const char *name_server_where(const struct name_server *s);
/* Questions that came; over TCP; answers that were sent. */
long name_server_questions(struct name_server *s);
long name_server_tcp_questions(struct name_server *s);

/* The address that a name has: in *out, with port 0. */
void name_server_address(const char *name, int family, heist_addr *out);
/* The name that an address has. */
void name_server_name(const heist_addr *addr, char *buf, size_t size);

#endif
