/* `cares PORT NAME…`: looks each name up by c-ares, and fetches a page from each address. */

#include <ares.h>

#include "fetch.h"

static int failed;

static void found(void *name, int status, int timeouts, struct ares_addrinfo *all)
{
    (void)timeouts;
    if (status != ARES_SUCCESS) {
        fprintf(stderr, "%s: %s\n", (char *)name, ares_strerror(status));
        failed = 1;
        return;
    }
    for (struct ares_addrinfo_node *each = all->nodes; each; each = each->ai_next)
        failed |= fetch(each->ai_addr, each->ai_addrlen);
    ares_freeaddrinfo(all);
}

/* Waits until all questions are answered. */
static void settle(ares_channel channel)
{
    for (;;) {
        fd_set readers, writers;
        struct timeval longest, *wait;
        FD_ZERO(&readers);
        FD_ZERO(&writers);
        int sockets = ares_fds(channel, &readers, &writers);
        if (sockets == 0)
            return;
        wait = ares_timeout(channel, NULL, &longest);
        select(sockets, &readers, &writers, NULL, wait);
        ares_process(channel, &readers, &writers);
    }
}

int main(int count, char **words)
{
    struct ares_addrinfo_hints hints = { .ai_socktype = SOCK_STREAM };
    ares_channel channel;

    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS || ares_init(&channel) != ARES_SUCCESS)
        return 2;
    for (int i = 2; i < count; i++) {
        ares_getaddrinfo(channel, words[i], words[1], &hints, found, words[i]);
        settle(channel);
    }
    ares_destroy(channel);
    return failed;
}
